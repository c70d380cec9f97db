//! The thread that speaks.
//!
//! Responsible for handing findings to sinks off every other path: a sink that blocks or panics
//! stops neither the scan nor the service. Not responsible for the log's form (`voice`).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};

use super::{FindingSink, Voice};
use crate::finding::Finding;
use crate::site::{Location, Reading, Stack};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};

/// What waits to be said.
enum Words {
    // Boxed: a finding is large, and the queue has room for 256 of the largest.
    Finding(Box<Finding>),
    /// Of leaktrace itself; for the log alone.
    Note(String),
}

type Sinks = Arc<Mutex<Vec<Arc<dyn FindingSink>>>>;

/// Takes findings, and passes them on from its own thread. Ends when it is dropped, after what it
/// was given has been said.
pub(crate) struct Reporter {
    sinks: Sinks,
    queue: Mutex<Option<SyncSender<Words>>>,
    voice: Arc<Voice>,
    dropped: Arc<AtomicU64>,
}

impl Reporter {
    /// As many findings may wait for slow sinks.
    const QUEUE: usize = 256;

    pub(crate) fn new(voice: Voice) -> Self {
        Self {
            sinks: Arc::default(),
            queue: Mutex::default(),
            voice: Arc::new(voice),
            dropped: Arc::default(),
        }
    }

    pub(crate) fn add_sink(&self, sink: Arc<dyn FindingSink>) {
        self.sinks.lock().push(sink);
    }

    /// Hands a finding over. Never waits: what does not fit in the queue is counted.
    pub(crate) fn say(&self, finding: Finding) {
        self.queue(Words::Finding(Box::new(finding)));
    }

    /// Hands a sentence over that is no finding. Never waits.
    pub(crate) fn note(&self, text: String) {
        self.queue(Words::Note(text));
    }

    fn queue(&self, words: Words) {
        let mut queue = self.queue.lock();
        let sender = match &*queue {
            Some(sender) => sender,
            None => match self.start() {
                Some(sender) => queue.insert(sender),
                None => {
                    // No thread can be had: rather late and here than never.
                    hand_over(&words, &self.sinks, &self.voice);
                    return;
                }
            },
        };
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = sender.try_send(words) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many findings did not fit in the queue.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn start(&self) -> Option<SyncSender<Words>> {
        let (sender, receiver) = sync_channel(Self::QUEUE);
        let sinks = Arc::clone(&self.sinks);
        let voice = Arc::clone(&self.voice);
        let dropped = Arc::clone(&self.dropped);
        std::thread::Builder::new()
            .name("leaktrace-reporter".into())
            .spawn(move || run(&receiver, &sinks, &voice, &dropped))
            .ok()?;
        Some(sender)
    }
}

/// Stacks that nobody had named when their line was said, with that line.
type Stacks = Vec<(Stack, Option<Location>)>;

fn run(queue: &Receiver<Words>, sinks: &Sinks, voice: &Voice, dropped: &AtomicU64) {
    let mut unnamed: Vec<(Words, Stacks)> = Vec::new();
    let mut told_dropped = 0;
    loop {
        let words = match queue.try_recv() {
            Ok(words) => words,
            // Naming takes a while: only when no line waits for it.
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => {
                let dropped = dropped.load(Ordering::Relaxed);
                if dropped > told_dropped {
                    let lost = dropped - told_dropped;
                    survives(|| voice.note(&did_not_fit(lost)));
                    told_dropped = dropped;
                }
                name(&mut unnamed, voice);
                match queue.recv() {
                    Ok(words) => words,
                    Err(_) => return,
                }
            }
        };
        // Before the sinks: one that prints the finding names them, and the line said none.
        let stacks = match &words {
            Words::Finding(finding) => finding.unnamed_stacks(),
            Words::Note(_) => Vec::new(),
        };
        hand_over(&words, sinks, voice);
        unnamed.push((words, stacks));
    }
}

/// Says the stacks of what was said.
fn name(unnamed: &mut Vec<(Words, Stacks)>, voice: &Voice) {
    // What is read for the first of them serves all, and is given back after the last.
    let _reading = Reading::begins();
    for (words, stacks) in unnamed.drain(..) {
        if let Words::Finding(finding) = words {
            survives(|| voice.say_stacks(&finding, &stacks));
        }
    }
}

fn did_not_fit(lost: u64) -> String {
    let findings = if lost == 1 { "finding" } else { "findings" };
    format!(
        "{lost} {findings} did not fit in the queue of {}, and were not said: a sink is slow, or blocks",
        Reporter::QUEUE
    )
}

fn hand_over(words: &Words, sinks: &Sinks, voice: &Voice) {
    let finding = match words {
        Words::Finding(finding) => finding,
        Words::Note(text) => return survives(|| voice.note(text)).unwrap_or_default(),
    };
    // The log first: it does not wait for names.
    survives(|| voice.say(finding));
    let sinks: Vec<_> = sinks.lock().clone();
    for sink in sinks {
        if survives(|| sink.finding(finding)).is_none() {
            survives(|| {
                voice.note("a finding sink panicked; the finding was handed to the others");
            });
        }
    }
}

/// Runs what belongs to the user (a sink, a subscriber, a closed stderr); a panic of it ends here.
fn survives<R>(work: impl FnOnce() -> R) -> Option<R> {
    catch_unwind(AssertUnwindSafe(work)).ok()
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;
    use crate::clock::Moment;
    use crate::finding::{FindingId, Kind};
    use crate::registry::PoolInfo;

    /// What the log says.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// Says which finding it has got, and goes on when it is told to.
    struct Blocking {
        got: Sender<u64>,
        gate: Mutex<Receiver<()>>,
    }

    impl FindingSink for Blocking {
        fn finding(&self, finding: &Finding) {
            let _ = self.got.send(finding.id.0);
            let _ = self.gate.lock().recv();
        }
    }

    #[test]
    fn what_does_not_fit_in_the_queue_is_counted_and_said() {
        const TOO_MANY: usize = 7;
        let log = Log::default();
        let writer = log.clone();
        // Where there is one subscriber only, tracing takes it for that of every thread.
        let _second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::new());
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .finish();
        let voice = tracing::subscriber::with_default(subscriber, Voice::here);
        let reporter = Reporter::new(voice);
        let (got, says) = channel();
        let (open, gate) = channel();
        let gate = Mutex::new(gate);
        reporter.add_sink(Arc::new(Blocking { got, gate }));
        let info = PoolInfo {
            id: 1,
            name: "orders".into(),
            ..PoolInfo::default()
        };
        let say = |id: usize| {
            let id = FindingId(id as u64);
            reporter.say(Finding::new(id, Kind::DirtyReturn, &info, "one".into()));
        };
        say(0);
        assert_eq!(says.recv(), Ok(0), "it blocks with the first");
        let began = Moment::now();
        for id in 1..=Reporter::QUEUE + TOO_MANY {
            say(id);
        }
        assert!(Moment::now().since(began).as_secs() < 5, "nobody waits");
        assert_eq!(reporter.dropped(), TOO_MANY as u64);
        drop(open);
        for id in 1..=Reporter::QUEUE {
            assert_eq!(says.recv(), Ok(id as u64), "in their order");
        }
        // Its thread ends when it has said all.
        drop(reporter);
        assert!(says.recv().is_err(), "and no more");
        let said = || String::from_utf8_lossy(&log.0.lock()).into_owned();
        let began = Moment::now();
        while !said().contains("7 findings did not fit in the queue of 256") {
            assert!(Moment::now().since(began).as_secs() < 20, "{}", said());
            std::thread::yield_now();
        }
    }
}
