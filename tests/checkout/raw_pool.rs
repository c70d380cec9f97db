//! What goes by the raw pool is counted, and the line that handed it out is shown.

use crate::ground::*;
use crate::support::eventually;

on_each_database! {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_connection_of_the_raw_pool_is_in_progress_and_after_a_while_untracked() {
        let Some(w) = watched::<DB>(silent(), 3).await else { return };
        let line = line!() + 1;
        let raw = w.pool.as_sqlx().acquire().await.expect("a raw connection");
        // One look after more than two seconds: nobody has asked before.
        tokio::time::sleep(millis(4000)).await;
        let status = w.pool.status();
        assert_eq!((status.held, status.in_progress, status.untracked), (0, 1, 1));
        let report = w.monitor.report().to_string();
        assert!(report.contains("untracked 1"), "{report}");
        let handed_out = format!("raw pool handed out at tests/checkout/raw_pool.rs:{line}:");
        assert!(report.contains(&handed_out), "{report}");
        drop(raw);
        eventually("it is back", PATIENCE, async || w.pool.status().in_progress == 0).await;
        assert_eq!(w.pool.status().untracked, 0);
    }

    #[tokio::test]
    async fn what_is_only_just_in_progress_is_not_untracked() {
        let Some(w) = watched::<DB>(silent(), 3).await else { return };
        let _raw = w.pool.as_sqlx().acquire().await.expect("a raw connection");
        let status = w.pool.status();
        assert_eq!((status.held, status.in_progress, status.untracked), (0, 1, 0));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_watched_connection_is_never_untracked() {
        let Some(w) = watched::<DB>(silent(), 3).await else { return };
        let conn = w.pool.acquire().await.expect("a connection");
        // Half of the time with a connection out, so that somebody looks.
        let mut conn = Some(conn);
        for round in 0..30 {
            if round == 15 {
                conn = None;
            }
            tokio::time::sleep(millis(100)).await;
            assert_eq!(w.pool.status().untracked, 0, "round {round}");
        }
        drop(conn);
        assert!(!w.monitor.report().to_string().contains("untracked"));
    }
}

#[tokio::test]
async fn each_place_that_hands_the_raw_pool_out_is_shown_once() {
    let w = sqlite(silent(), 3).await;
    let mut lines = Vec::new();
    for _ in 0..3 {
        let _ = w.pool.as_sqlx().size();
        lines.push(line!() - 1);
    }
    let _ = w.pool.as_sqlx().size();
    lines.push(line!() - 1);
    lines.dedup();
    let shown: Vec<u32> = w.monitor.report().pools[0]
        .raw_handed_out
        .iter()
        .map(|place| place.line())
        .collect();
    assert_eq!(shown, lines);
}
