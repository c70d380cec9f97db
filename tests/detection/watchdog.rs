//! The watchdog's thread: no wake-ups while nothing is held, and an end with its monitor.
//!
//! Measured in a process of its own, because the threads of other tests bear the same name.

#[cfg(target_os = "linux")]
#[test]
fn the_watchdog_sleeps_while_nothing_is_held_and_ends_with_its_monitor() {
    use crate::child::{Role, play};
    let (out, err) = play(Role::Watchdog, &[]).output();
    for line in ["rests", "looks", "rests again", "ended"] {
        assert!(
            out.lines().any(|known| known == line),
            "{line}: {out}\n{err}"
        );
    }
}

/// What the child does: each line is written when it is true.
pub(crate) async fn measure() {
    use crate::child::pool;
    use crate::ground::*;
    use crate::support::eventually;
    use leaktrace::Monitor;

    let monitor = Monitor::new(silent());
    let pool = pool(&monitor, "orders").await;
    // Opening the pool has woken it up.
    eventually("a second without a wake-up", PATIENCE, async || {
        wakes_in_a_second().await == 0
    })
    .await;
    println!("\nrests");
    let conn = pool.acquire().await.expect("a connection");
    eventually("wake-ups", PATIENCE, async || wakes_in_a_second().await > 0).await;
    println!("looks");
    drop(conn);
    eventually("a second without a wake-up", PATIENCE, async || {
        wakes_in_a_second().await == 0
    })
    .await;
    println!("rests again");
    assert_eq!(threads("leaktrace-watch").len(), 1);
    pool.close().await;
    drop((pool, monitor));
    eventually("no thread of ours", PATIENCE, async || {
        threads("leaktrace-").is_empty()
    })
    .await;
    println!("ended");
}

/// The ids of this process' threads whose names begin so.
fn threads(name: &str) -> Vec<String> {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else {
        return Vec::new();
    };
    tasks
        .filter_map(|task| task.ok()?.file_name().into_string().ok())
        .filter(|id| {
            std::fs::read_to_string(format!("/proc/self/task/{id}/comm"))
                .is_ok_and(|comm| comm.starts_with(name))
        })
        .collect()
}

async fn wakes_in_a_second() -> u64 {
    let switches = || -> u64 {
        threads("leaktrace-watch")
            .iter()
            .filter_map(|id| std::fs::read_to_string(format!("/proc/self/task/{id}/status")).ok())
            .filter_map(|status| {
                let line = status
                    .lines()
                    .find(|line| line.starts_with("voluntary_ctxt_switches"))?;
                line.split_whitespace().nth(1)?.parse::<u64>().ok()
            })
            .sum()
    };
    let before = switches();
    tokio::time::sleep(crate::ground::SECOND).await;
    switches() - before
}
