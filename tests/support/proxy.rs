//! A TCP proxy in front of a database that delays, stalls, cuts and refuses.
//!
//! Responsible for bytes only; it knows no protocol. It runs on a thread and runtime of its own, so
//! that a test that blocks its runtime, or pauses its time, does not change the network.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::Url;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Which bytes a stall holds back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Direction {
    /// From the client to the server: statements do not arrive.
    ToServer,
    /// From the server to the client: answers do not arrive.
    ToClient,
}

/// A running proxy. Ends, with its connections, when dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    /// Where clients connect.
    pub(crate) addr: SocketAddr,
    weather: watch::Sender<Weather>,
    commands: Option<mpsc::UnboundedSender<Command>>,
    counts: Arc<Counts>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Clone, Debug, Default)]
struct Weather {
    delay: Duration,
    stalled: HashSet<Direction>,
    /// Raised to cut all connections of before.
    cuts: u64,
}

#[derive(Debug, Default)]
struct Counts {
    accepted: AtomicU64,
    open: AtomicU64,
    to_server: AtomicU64,
    to_client: AtomicU64,
}

impl Counts {
    fn bytes(&self, direction: Direction) -> &AtomicU64 {
        match direction {
            Direction::ToServer => &self.to_server,
            Direction::ToClient => &self.to_client,
        }
    }
}

type Done = std::sync::mpsc::SyncSender<()>;

#[derive(Debug)]
enum Command {
    Cut(Done),
    Refuse(Done),
    Accept(Done),
}

impl Proxy {
    /// Starts a proxy in front of the server that `url` names.
    pub(crate) fn start(url: &str) -> Self {
        let url = Url::parse(url).expect("a database URL");
        let default_port = if url.scheme().starts_with("postgres") {
            5432
        } else {
            3306
        };
        let host = url.host_str().expect("a database URL with a host");
        let upstream = format!("{host}:{}", url.port().unwrap_or(default_port));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port for the proxy");
        listener.set_nonblocking(true).expect("a nonblocking port");
        let addr = listener.local_addr().expect("the proxy's address");
        let (weather, seen) = watch::channel(Weather::default());
        let (commands, orders) = mpsc::unbounded_channel();
        let counts = Arc::<Counts>::default();
        let network = Network {
            upstream,
            weather: seen,
            counts: Arc::clone(&counts),
        };
        let thread = std::thread::Builder::new()
            .name("proxy".into())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("the proxy's runtime");
                runtime.block_on(network.serve(listener, orders));
            })
            .expect("the proxy's thread");
        Self {
            addr,
            weather,
            commands: Some(commands),
            counts,
            thread: Some(thread),
        }
    }

    /// The same URL, through this proxy.
    pub(crate) fn url(&self, base: &str) -> String {
        let mut url = Url::parse(base).expect("a database URL");
        url.set_host(Some(&self.addr.ip().to_string()))
            .expect("a URL with a host");
        url.set_port(Some(self.addr.port()))
            .expect("a URL with a port");
        url.into()
    }

    /// From now on every piece of bytes arrives this much later, in both directions.
    pub(crate) fn delay(&self, delay: Duration) {
        self.weather.send_modify(|weather| weather.delay = delay);
    }

    /// Takes bytes in and forwards none, nor an end: what a silently dead peer looks like.
    pub(crate) fn stall(&self) {
        self.stall_only(Direction::ToServer);
        self.stall_only(Direction::ToClient);
    }

    /// [`Self::stall`] in one direction.
    pub(crate) fn stall_only(&self, direction: Direction) {
        self.weather.send_modify(|weather| {
            weather.stalled.insert(direction);
        });
    }

    /// Ends stalls; what was held back is forwarded now.
    pub(crate) fn resume(&self) {
        self.weather.send_modify(|weather| weather.stalled.clear());
    }

    /// Resets (RST) all connections, on both sides. Done when it returns; new ones are accepted.
    pub(crate) fn cut(&self) {
        self.weather.send_modify(|weather| weather.cuts += 1);
        self.order(Command::Cut);
    }

    /// Refuses new connections; those that stand stay.
    pub(crate) fn refuse(&self) {
        self.order(Command::Refuse);
    }

    /// Accepts new connections again, at the same address.
    pub(crate) fn accept(&self) {
        self.order(Command::Accept);
    }

    /// Connections accepted since the start.
    pub(crate) fn accepted(&self) -> u64 {
        self.counts.accepted.load(Ordering::SeqCst)
    }

    /// Connections that stand now.
    pub(crate) fn open(&self) -> u64 {
        self.counts.open.load(Ordering::SeqCst)
    }

    /// Bytes taken in so far in this direction, forwarded or not.
    pub(crate) fn bytes(&self, direction: Direction) -> u64 {
        self.counts.bytes(direction).load(Ordering::SeqCst)
    }

    /// Blocks for the moment that the proxy's own thread needs.
    fn order(&self, command: impl FnOnce(Done) -> Command) {
        let (done, wait) = std::sync::mpsc::sync_channel(1);
        let sent = self.commands.as_ref().map(|to| to.send(command(done)));
        assert!(matches!(sent, Some(Ok(()))), "the proxy's thread is gone");
        wait.recv_timeout(Duration::from_secs(5))
            .expect("the proxy's thread does what it is told");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The closed channel ends the thread's loop.
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[derive(Clone)]
struct Network {
    upstream: String,
    weather: watch::Receiver<Weather>,
    counts: Arc<Counts>,
}

impl Network {
    async fn serve(
        self,
        listener: std::net::TcpListener,
        mut orders: mpsc::UnboundedReceiver<Command>,
    ) {
        let addr = listener.local_addr().expect("the proxy's address");
        let mut listener = Some(TcpListener::from_std(listener).expect("a tokio listener"));
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    None => return,
                    Some(Command::Cut(done)) => {
                        // A client that came after the cut stays, and is not waited for.
                        let quiet = Duration::from_millis(250);
                        while let Ok(Some(_)) =
                            tokio::time::timeout(quiet, connections.join_next()).await
                        {}
                        let _ = done.send(());
                    }
                    Some(Command::Refuse(done)) => {
                        listener = None;
                        let _ = done.send(());
                    }
                    Some(Command::Accept(done)) => {
                        if listener.is_none() {
                            let bound = TcpListener::bind(addr).await;
                            listener = Some(bound.expect("the proxy's port again"));
                        }
                        let _ = done.send(());
                    }
                },
                client = next_client(listener.as_ref()) => {
                    if let Ok(client) = client {
                        connections.spawn(self.clone().connection(client));
                    }
                }
                Some(_) = connections.join_next() => {}
            }
        }
    }

    async fn connection(self, mut client: TcpStream) {
        self.counts.accepted.fetch_add(1, Ordering::SeqCst);
        let _open = Open::new(&self.counts.open);
        let mut cut = self.weather.clone();
        let cuts = cut.borrow().cuts;
        // An unreachable server looks to the client like a closed connection.
        let Ok(mut server) = TcpStream::connect(&self.upstream).await else {
            return;
        };
        let _ = client.set_nodelay(true);
        let _ = server.set_nodelay(true);
        let is_cut = {
            let (from_client, to_client) = client.split();
            let (from_server, to_server) = server.split();
            let pumps = async {
                tokio::try_join!(
                    self.pump(Direction::ToServer, from_client, to_server),
                    self.pump(Direction::ToClient, from_server, to_client),
                )
            };
            tokio::select! {
                // A failed pump ends both directions: the other side learns it by the close below.
                _ = pumps => false,
                _ = cut.wait_for(|weather| weather.cuts != cuts) => true,
            }
        };
        if is_cut {
            let _ = client.set_zero_linger();
            let _ = server.set_zero_linger();
        }
    }

    /// Reads at once and writes when the weather allows: a delay is latency, not less throughput.
    async fn pump(
        &self,
        direction: Direction,
        mut from: ReadHalf<'_>,
        mut to: WriteHalf<'_>,
    ) -> io::Result<()> {
        let (sender, mut receiver) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
        let read = async move {
            let mut buffer = vec![0; 16 * 1024];
            loop {
                let count = from.read(&mut buffer).await?;
                self.counts
                    .bytes(direction)
                    .fetch_add(count as u64, Ordering::SeqCst);
                let due = Instant::now() + self.weather.borrow().delay;
                // An empty piece is the end; it waits for the weather like all others.
                let _ = sender.send((due, buffer[..count].to_vec()));
                if count == 0 {
                    return io::Result::Ok(());
                }
            }
        };
        let write = async {
            let mut weather = self.weather.clone();
            while let Some((due, bytes)) = receiver.recv().await {
                tokio::time::sleep_until(due).await;
                let calm = weather.wait_for(|weather| !weather.stalled.contains(&direction));
                if calm.await.is_err() {
                    // The proxy is being dropped: held back bytes are lost, as on a dead network.
                    return Ok(());
                }
                if bytes.is_empty() {
                    return to.shutdown().await;
                }
                to.write_all(&bytes).await?;
            }
            Ok(())
        };
        tokio::try_join!(read, write).map(|_| ())
    }
}

/// The next client, or never while connections are refused.
async fn next_client(listener: Option<&TcpListener>) -> io::Result<TcpStream> {
    match listener {
        Some(listener) => listener.accept().await.map(|(client, _)| client),
        None => std::future::pending().await,
    }
}

/// Counts a connection as long as it lives, also when its task is dropped.
struct Open<'a>(&'a AtomicU64);

impl<'a> Open<'a> {
    fn new(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
