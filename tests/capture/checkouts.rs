//! Checkouts at `backtrace`: the fast walk names the same frames as the portable one, and each checkout
//! its own.
//!
//! Responsible for what a user sees of stacks. Not responsible for addresses: see `compare`.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use leaktrace::{Config, Detail, Holder, Monitor, Pool, Unwinder};
use sqlx::Sqlite;
use sqlx::sqlite::SqlitePoolOptions;
use tokio::task::yield_now;

use crate::compare::times;

type Watched = (Monitor, Pool<Sqlite>);

async fn watched(unwinder: Unwinder) -> Watched {
    let config = Config::default()
        .detail(Detail::Backtrace)
        .unwinder(unwinder);
    let monitor = Monitor::new(config);
    let pool = SqlitePoolOptions::new()
        .max_connections(8)
        .test_before_acquire(false)
        .connect("sqlite::memory:")
        .await
        .expect("SQLite");
    let pool = monitor.watch("capture", pool);
    (monitor, pool)
}

/// Function and line of each frame that is shown.
type Frames = Vec<(String, String)>;

/// What is shown of a checkout.
fn frames(holder: &Holder) -> Frames {
    let stack = holder.stack.as_ref().expect("a stack");
    let shown = stack.frames().iter().map(|frame| {
        let line = frame.location().map(ToString::to_string);
        (frame.function().to_string(), line.unwrap_or_default())
    });
    shown.collect()
}

/// One line for both, so that the frames can be the same.
async fn one_line(pools: &[Watched]) -> Vec<Frames> {
    let mut seen = Vec::new();
    for (monitor, pool) in pools {
        let conn = pool.acquire().await.expect("a connection");
        let holders = monitor.holders();
        seen.push(frames(&holders[0]));
        assert_eq!(holders.len(), 1);
        conn.release().await;
    }
    seen
}

fn nested(
    pools: Arc<Vec<Watched>>,
    depth: usize,
) -> Pin<Box<dyn Future<Output = Vec<Frames>> + Send>> {
    Box::pin(async move {
        match depth {
            0 => one_line(&pools).await,
            _ => nested(pools, depth - 1).await,
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_walks_name_the_same_frames() {
    let pools = Arc::new(vec![
        watched(Unwinder::Portable).await,
        watched(Unwinder::Auto).await,
    ]);
    // More than once: when its frames have been named, a stack is walked to the task's bottom only.
    for turn in 0..6 {
        let here = nested(Arc::clone(&pools), turn % 3).await;
        let spawned = tokio::spawn(nested(Arc::clone(&pools), turn % 3));
        let spawned = spawned.await.expect("no panic");
        for seen in [here, spawned] {
            // At least the line, and the function that nests it.
            assert!(seen[0].len() > 1, "{seen:?}");
            assert_eq!(seen[0], seen[1], "portable, fast");
        }
    }
}

async fn the_line(pool: &Pool<Sqlite>) {
    let conn = pool.acquire().await.expect("a connection");
    yield_now().await;
    conn.release().await;
}

// A build with line tables only has no names for async functions: the line of the call tells them too.
const FIRST: u32 = line!() + 2;
async fn first_caller(pool: &Pool<Sqlite>) {
    the_line(pool).await;
}

const SECOND: u32 = line!() + 2;
async fn second_caller(pool: &Pool<Sqlite>) {
    the_line(pool).await;
}

const THIRD: u32 = line!() + 2;
async fn third_caller(pool: &Pool<Sqlite>) {
    the_line(pool).await;
}

const CALLERS: [(&str, u32); 3] = [
    ("first_caller", FIRST),
    ("second_caller", SECOND),
    ("third_caller", THIRD),
];

/// The labels say by whom a connection was taken, the stacks must say the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_of_three_callers_of_one_line_is_named_by_its_own_checkouts() {
    const TASKS: usize = 8;
    let (monitor, pool) = watched(Unwinder::Auto).await;
    let turns = times(100_000) / TASKS;
    let tasks = (0..TASKS).map(|task| {
        let pools = CALLERS.map(|(label, _)| pool.labeled(label));
        tokio::spawn(async move {
            for turn in 0..turns {
                match (turn + task) % 3 {
                    0 => first_caller(&pools[0]).await,
                    1 => second_caller(&pools[1]).await,
                    _ => third_caller(&pools[2]).await,
                }
            }
        })
    });
    let tasks: Vec<_> = tasks.collect();
    let over = Arc::new(AtomicBool::new(false));
    let looking = std::thread::spawn({
        let over = Arc::clone(&over);
        move || {
            let mut seen: BTreeMap<String, u64> = BTreeMap::new();
            while !over.load(Ordering::Relaxed) {
                for holder in monitor.holders() {
                    let (Some(label), Some(_)) = (holder.label.clone(), &holder.stack) else {
                        continue;
                    };
                    let frames = frames(&holder);
                    for (caller, line) in CALLERS {
                        let at = format!("checkouts.rs:{line}:");
                        let named = frames
                            .iter()
                            .any(|(name, place)| name.contains(caller) || place.contains(&at));
                        assert_eq!(named, caller == label, "{label}: {frames:?}");
                    }
                    *seen.entry(label).or_default() += 1;
                }
            }
            seen
        }
    });
    for task in tasks {
        task.await.expect("no panic");
    }
    over.store(true, Ordering::Relaxed);
    let seen = looking.join().expect("each checkout named its caller");
    println!("{seen:?}");
    assert!(
        seen.len() == 3 && seen.values().all(|&count| count > 100),
        "{seen:?}"
    );
}
