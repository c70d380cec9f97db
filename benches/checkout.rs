//! What a checkout costs beside raw sqlx, measured side by side in one run.
//!
//! Run it with `scripts/bench`. Every row is the median over rounds that are interleaved with the
//! rounds of all other rows, so that a noisy machine disturbs them alike. Only the ratio to the row
//! `raw sqlx` of the same group means something on another machine.

use std::hint::black_box;
use std::time::{Duration, Instant};

use leaktrace::{Config, Detail, Monitor};
use sqlx::sqlite::SqlitePoolOptions;
use tokio::runtime::Builder;

type Db = sqlx::Sqlite;

fn options(ping: bool) -> sqlx::pool::PoolOptions<Db> {
    SqlitePoolOptions::new()
        .max_connections(10)
        .test_before_acquire(ping)
}

async fn raw_pool(ping: bool) -> sqlx::Pool<Db> {
    options(ping)
        .connect("sqlite::memory:")
        .await
        .expect("SQLite")
}

async fn watched(detail: Detail) -> leaktrace::Pool<Db> {
    let monitor = Monitor::new(Config::default().detail(detail));
    monitor.watch("bench", raw_pool(false).await)
}

/// One row: how it is called and how long `count` checkouts take.
struct Row {
    name: &'static str,
    nanos: Vec<f64>,
}

impl Row {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            nanos: Vec::new(),
        }
    }

    fn add(&mut self, time: Duration, count: u32) {
        self.nanos.push(time.as_nanos() as f64 / f64::from(count));
    }

    fn quantile(&self, part: f64) -> f64 {
        let mut sorted = self.nanos.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[((sorted.len() - 1) as f64 * part) as usize]
    }
}

macro_rules! checkouts {
    ($pool:expr, $count:expr) => {{
        // Only the acquire is timed: what follows the drop runs in sqlx's own task, which is let run
        // before the next round trip so that a connection is idle again.
        let mut spent = Duration::ZERO;
        for _ in 0..$count {
            let start = Instant::now();
            let conn = $pool.acquire().await.expect("a connection");
            let conn = black_box(conn);
            drop(conn);
            spent += start.elapsed();
            while $pool.num_idle() == 0 {
                tokio::task::yield_now().await;
            }
        }
        spent
    }};
}

fn main() {
    let quick = std::env::args().any(|word| word == "--quick");
    let (rounds, count) = if quick { (15, 300) } else { (41, 1_000) };
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let ping = raw_pool(true).await;
        let raw = raw_pool(false).await;
        let off = watched(Detail::Off).await;
        let location = watched(Detail::Location).await;
        let backtrace = watched(Detail::Backtrace).await;
        let mut rows = [
            Row::new("raw sqlx, test_before_acquire on (its default)"),
            Row::new("raw sqlx, test_before_acquire off"),
            Row::new("leaktrace off, test off"),
            Row::new("leaktrace location, test off"),
            Row::new("leaktrace backtrace (portable capture), test off"),
            Row::new("raw sqlx, test off, std::backtrace per checkout"),
        ];
        for round in 0..=rounds {
            let spent = [
                checkouts!(ping, count),
                checkouts!(raw, count),
                checkouts!(off, count),
                checkouts!(location, count),
                checkouts!(backtrace, count),
                {
                    let mut spent = Duration::ZERO;
                    for _ in 0..count {
                        let start = Instant::now();
                        let conn = raw.acquire().await.expect("a connection");
                        drop(black_box(std::backtrace::Backtrace::force_capture()));
                        drop(black_box(conn));
                        spent += start.elapsed();
                        while raw.num_idle() == 0 {
                            tokio::task::yield_now().await;
                        }
                    }
                    spent
                },
            ];
            // The first round warms up.
            if round > 0 {
                for (row, spent) in rows.iter_mut().zip(spent) {
                    row.add(spent, count);
                }
            }
        }
        let base = rows[1].quantile(0.5);
        println!("acquire + drop, SQLite in memory, pool of 10, one task, current-thread runtime");
        println!("{rounds} rounds of {count}, interleaved; no tracing subscriber\n");
        println!(
            "{:<50} {:>9} {:>17} {:>9} {:>7}",
            "", "median", "p10 .. p90", "added", "ratio"
        );
        for row in &rows {
            let median = row.quantile(0.5);
            println!(
                "{:<50} {:>6.0} ns {:>6.0} .. {:>6.0} ns {:>+6.0} ns {:>6.2}",
                row.name,
                median,
                row.quantile(0.1),
                row.quantile(0.9),
                median - base,
                median / base
            );
        }
    });
}
