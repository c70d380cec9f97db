//! Beside the checkouts: how soon a finding is out, and what naming a stack does to an acquire.
//!
//! Responsible for S4, S5, and of S6 for the copies of many holders. Not responsible for what findings say.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use leaktrace::{Config, Detail, Finding, Monitor};
use sqlx::Sqlite;
use tokio::runtime::Builder;

use super::groups::one_thread;
use super::subject::{Design, Setting, Subject, sqlite};
use super::table::{Row, Table};

/// How long after its threshold a finding reaches a sink, with runtimes that run and that block.
pub(crate) fn lateness(times: u32) -> Result<Table, sqlx::Error> {
    let mut rows = Vec::new();
    for blocked in [false, true] {
        let mut row = Row {
            detail: "backtrace".to_string(),
            ..Row::new(match blocked {
                false => "workers run",
                true => "all workers blocked",
            })
        };
        for _ in 0..times {
            // A subscriber that prints nothing: without one, findings go to stderr.
            let said = tracing::subscriber::with_default(tracing_subscriber::registry(), || {
                one_finding(blocked)
            });
            row.add(said?, 1);
        }
        rows.push(row);
    }
    Ok(Table {
        title: "A finding: from its threshold (100 ms) to the sink".to_string(),
        settings: "subscriber registry, threads 1".to_string(),
        rows,
    })
}

fn one_finding(blocked: bool) -> Result<Duration, sqlx::Error> {
    const THRESHOLD: Duration = Duration::from_millis(100);
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let monitor = Monitor::new(
        Config::default()
            .detail(Detail::Backtrace)
            .threshold(THRESHOLD),
    );
    let (out, findings) = mpsc::channel();
    monitor.add_sink(move |_: &Finding| {
        let _ = out.send(Instant::now());
    });
    let (pool, conn) = runtime.block_on(async {
        let raw = sqlx::pool::PoolOptions::<Sqlite>::new()
            .connect("sqlite::memory:")
            .await?;
        let pool = monitor.watch("bench", raw);
        let conn = pool.acquire().await?;
        Ok::<_, sqlx::Error>((pool, conn))
    })?;
    let taken = Instant::now();
    if blocked {
        runtime.spawn(async { thread::sleep(THRESHOLD * 4) });
    }
    let said = findings
        .recv_timeout(Duration::from_secs(20))
        .expect("a finding");
    runtime.block_on(async move {
        drop(conn);
        pool.close().await;
    });
    Ok(said.saturating_duration_since(taken + THRESHOLD))
}

/// p99 of acquire while another thread names stacks without a break, beside p99 while none does.
pub(crate) fn naming(rounds: u32, count: u32) -> Result<Table, sqlx::Error> {
    let setting = Setting::new(Design::Watched(Detail::Backtrace), false);
    let mut rows = [
        Row {
            detail: setting.detail(),
            test_before_acquire: Some(false),
            ..Row::new("p99 of acquire and drop, nothing is named")
        },
        Row {
            detail: setting.detail(),
            test_before_acquire: Some(false),
            ..Row::new("p99 of acquire and drop while stacks are named")
        },
    ];
    one_thread().block_on(async {
        let subject = Subject::<Sqlite>::open(setting, &sqlite()?).await?;
        for round in 0..=rounds {
            for (busy, row) in [false, true].into_iter().zip(&mut rows) {
                let stop = Arc::new(AtomicBool::new(false));
                let until = Arc::clone(&stop);
                // The same load on the machine in both rows: one names, the other counts.
                let work = thread::spawn(move || match busy {
                    true => name_until(&until),
                    false => spin_until(&until),
                });
                let mut times = Row::new("");
                for _ in 0..count {
                    times.add(subject.checkout(false).await?, 1);
                    subject.settle().await;
                }
                stop.store(true, Ordering::Relaxed);
                work.join().expect("naming does not panic");
                if round > 0 {
                    row.nanos.push(times.quantile(0.99));
                }
            }
        }
        Ok::<_, sqlx::Error>(())
    })?;
    Ok(Table {
        title: "SQLite, while a report is being named".to_string(),
        settings: "subscriber none, threads 2".to_string(),
        rows: rows.into(),
    })
}

/// What a pass of the watchdog begins with, with so many holders: times are for 10 000 of them.
pub(crate) fn copies(rounds: u32) -> Result<Table, sqlx::Error> {
    /// As many connections as a machine takes without a thought; the cost is one of each holder.
    const HOLDERS: u32 = 200;
    let name = |what: &str| format!("{what}, for 10 000 of {HOLDERS}");
    let mut rows = [
        Row::new(name("copies of holders")),
        Row::new(name("copies, verdicts and groups")),
    ];
    for row in &mut rows {
        row.detail = "backtrace".to_string();
    }
    one_thread().block_on(async {
        let raw = sqlx::pool::PoolOptions::<Sqlite>::new()
            .max_connections(HOLDERS)
            .connect("sqlite::memory:")
            .await?;
        let monitor = Monitor::new(Config::default().detail(Detail::Backtrace));
        let pool = monitor.watch("bench", raw);
        let mut out = Vec::new();
        for _ in 0..HOLDERS {
            let mut conn = pool.acquire().await?;
            sqlx::query("SELECT 1").execute(&mut *conn).await?;
            out.push(conn);
        }
        for round in 0..=rounds {
            for row in &mut rows {
                let start = Instant::now();
                match row.name.starts_with("copies of") {
                    true => drop(black_box(monitor.holders())),
                    false => drop(black_box(monitor.report())),
                }
                if round > 0 {
                    row.add(start.elapsed() * (10_000 / HOLDERS), 1);
                }
            }
        }
        drop(out);
        pool.close().await;
        Ok::<_, sqlx::Error>(())
    })?;
    Ok(Table {
        title: "SQLite, the record of many holders".to_string(),
        settings: "subscriber none, threads 1".to_string(),
        rows: rows.into(),
    })
}

fn spin_until(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        std::hint::spin_loop();
    }
}

/// A monitor of its own each time: what is named once is not named again.
fn name_until(stop: &AtomicBool) {
    one_thread().block_on(async {
        let Ok(raw) = sqlx::SqlitePool::connect("sqlite::memory:").await else {
            return;
        };
        while !stop.load(Ordering::Relaxed) {
            let monitor = Monitor::new(Config::default().detail(Detail::Backtrace));
            let pool = monitor.watch("named", raw.clone());
            if let Ok(conn) = pool.acquire().await {
                for holder in pool.holders() {
                    let _ = holder.stack.map(|stack| stack.frames().len());
                }
                conn.release().await;
            }
        }
    });
}
