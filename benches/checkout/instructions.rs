//! A checkout for callgrind: the same code, so often that what is around it does not count.
//!
//! Responsible for a function that callgrind can find by its name. `scripts/bench --instructions`
//! runs it, reads the total and subtracts raw sqlx's.

use futures_util::FutureExt;
use leaktrace::{Config, Detail, Monitor};

use super::groups::one_thread;

/// How many checkouts are counted.
const TIMES: u32 = 1_000;

/// Polls once: an idle connection is there, and nothing is asked.
#[inline(never)]
fn counted_checkout<F: Future<Output = Result<T, sqlx::Error>>, T>(acquire: impl FnOnce() -> F) {
    let conn = acquire()
        .now_or_never()
        .expect("a connection is idle")
        .expect("it is given out");
    drop(conn);
}

/// Counts `raw`, `off`, `location` or `backtrace`.
pub(crate) fn run(design: &str) -> Result<(), Box<dyn std::error::Error>> {
    let detail: Option<Detail> = match design {
        "raw" => None,
        detail => Some(detail.parse()?),
    };
    one_thread().block_on(async {
        let raw = sqlx::sqlite::SqlitePoolOptions::new()
            .max_connections(1)
            .test_before_acquire(false)
            .connect("sqlite::memory:")
            .await?;
        let ours = detail.map(|detail| {
            Monitor::new(Config::default().detail(detail)).watch("counted", raw.clone())
        });
        for _ in 0..TIMES {
            match &ours {
                Some(pool) => counted_checkout(|| pool.acquire()),
                None => counted_checkout(|| raw.acquire()),
            }
            while raw.num_idle() == 0 {
                tokio::task::yield_now().await;
            }
        }
        Ok::<_, sqlx::Error>(())
    })?;
    println!("counted {TIMES} checkouts of {design}");
    Ok(())
}
