//! A sink that panics or blocks harms nobody but itself.

use std::collections::HashSet;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use leaktrace::{Finding, FindingSink, Kind};

use crate::ground::*;

#[tokio::test]
async fn a_sink_that_panics_harms_nobody_else() {
    let w = sqlite(silent().report_interval(millis(1)), 3).await;
    w.monitor
        .add_sink(|_: &Finding| panic!("a sink of the user"));
    let after = listen(&w.monitor);
    // By id: a holder speaks again at ten times its threshold, under the same one.
    let reported = |all: &[Finding]| {
        let held = of(all, Kind::HeldTooLong);
        held.iter()
            .map(|finding| finding.id)
            .collect::<HashSet<_>>()
    };
    for round in 1..=2 {
        let conn = w.pool.acquire().await.expect("a connection");
        w.monitor.set_threshold(millis(1));
        for capture in [&w.findings, &after] {
            capture
                .wait_for("a finding and its end", PATIENCE, |all| {
                    (reported(all).len() >= round).then_some(())
                })
                .await;
        }
        drop(conn);
        after
            .wait_for("its end", PATIENCE, |all| {
                (of(all, Kind::ReturnedLate).len() >= round).then_some(())
            })
            .await;
    }
}

/// Blocks at its first finding until the test lets it go on.
struct Blocking {
    gate: Mutex<std::sync::mpsc::Receiver<()>>,
    inside: std::sync::mpsc::Sender<()>,
}

impl FindingSink for Blocking {
    fn finding(&self, _: &Finding) {
        let _ = self.inside.send(());
        let _ = self.gate.lock().map(|gate| gate.recv());
    }
}

#[tokio::test]
async fn a_sink_that_blocks_does_not_stop_detection() {
    let w = sqlite(silent().threshold(millis(20)), 4).await;
    let (open, gate) = channel();
    let (inside, blocked) = channel();
    w.monitor.add_sink(Blocking {
        gate: Mutex::new(gate),
        inside,
    });
    let _one = w.pool.acquire().await.expect("a connection");
    tokio::task::spawn_blocking(move || blocked.recv_timeout(PATIENCE).expect("a blocked sink"))
        .await
        .expect("the sink was called");
    // The watchdog goes on: a second bug gets its number while the first is still being told.
    let _two = w.pool.begin().await.expect("a transaction");
    let numbered = async || {
        let groups = w.monitor.report().groups;
        (groups.len() == 2 && groups.iter().all(|group| group.finding.is_some())).then_some(())
    };
    crate::support::eventually("two numbered groups", PATIENCE, numbered).await;
    assert_eq!(w.findings.len(), 1, "it waits in the queue");
    drop(open);
    let both = |all: &[Finding]| (all.len() >= 2).then_some(());
    w.findings.wait_for("the second", PATIENCE, both).await;
    assert_eq!(w.monitor.report().findings_dropped, 0);
}

#[tokio::test]
async fn a_sink_gets_what_display_and_json_tell() {
    let w = sqlite(silent().threshold(millis(20)), 4).await;
    let texts = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&texts);
    w.monitor.add_sink(move |finding: &Finding| {
        let json = serde_json::to_value(finding).expect("JSON");
        sink.lock()
            .expect("no panic")
            .push((finding.to_string(), json));
    });
    let _conn = w.pool.acquire().await.expect("a connection");
    w.finding(Kind::HeldTooLong).await;
    let told = async || texts.lock().expect("no panic").first().cloned();
    let (text, json) = crate::support::eventually("the sink", PATIENCE, told).await;
    assert_eq!(json["kind"], "held_too_long");
    assert!(text.contains(json["headline"].as_str().expect("a headline")));
}
