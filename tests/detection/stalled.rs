//! A runtime that runs nothing does not keep the watchdog from speaking in time.

use std::sync::mpsc::channel;
use std::time::Duration;

use leaktrace::Kind;

use crate::ground::*;

/// Blocks every worker, as a computation or a blocking call does.
#[test]
fn a_blocked_runtime_still_gets_its_finding_in_time() {
    // On a busy machine any thread may be late: the best of several rounds counts, and a watchdog
    // that needs the runtime would be late by seconds in every one.
    let mut best = Duration::MAX;
    for _ in 0..20 {
        let late = lateness_with_all_workers_blocked();
        best = best.min(late);
        if best <= millis(50) {
            return;
        }
    }
    panic!("the finding was {best:?} late at best");
}

fn lateness_with_all_workers_blocked() -> Duration {
    const WORKERS: usize = 2;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .expect("a runtime");
    let config = loud().threshold(millis(300)).idle_in_transaction(None);
    let (w, conn) = runtime.block_on(async {
        let w = sqlite(config, 2).await;
        let conn = w.pool.acquire().await.expect("a connection");
        (w, conn)
    });
    let (release, gate) = channel::<()>();
    let gate = std::sync::Arc::new(std::sync::Mutex::new(gate));
    let (inside, blocked) = channel();
    for _ in 0..WORKERS {
        let gate = std::sync::Arc::clone(&gate);
        let inside = inside.clone();
        runtime.spawn(async move {
            inside.send(()).expect("the test listens");
            // Whoever gets the lock waits for the end of the test, the other one for the lock.
            let _ = gate.lock().map(|gate| gate.recv());
        });
    }
    for _ in 0..WORKERS {
        blocked.recv_timeout(PATIENCE).expect("a blocked worker");
    }
    let found = w
        .findings
        .wait_for_blocking("held_too_long", PATIENCE, |all| {
            of(all, Kind::HeldTooLong).pop()
        });
    drop(release);
    let _inside = runtime.enter();
    drop(conn);
    found.holders[0].held_for - millis(300)
}
