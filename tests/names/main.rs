//! What reading names takes of the process, and that it is given back.
//!
//! One test in a program of its own: memory is counted for the whole process.
#![cfg(target_os = "linux")]

use std::fs;
use std::hint::black_box;
use std::time::{Duration, Instant};

use leaktrace::{Config, Detail, Monitor};

const MIB: i64 = 1 << 20;

/// A field of `/proc/self/status`, in bytes.
fn status(name: &str) -> i64 {
    let status = fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let mut words = line.expect("the field").split_ascii_whitespace();
    let kibibytes: i64 = words.next().expect("a number").parse().expect("a number");
    kibibytes * 1024
}

/// Starts the peak anew.
fn forget_peak() -> bool {
    fs::write("/proc/self/clear_refs", "5").is_ok()
}

#[inline(never)]
async fn here(pool: &leaktrace::SqlitePool) -> leaktrace::PoolConnection<sqlx::Sqlite> {
    pool.acquire().await.expect("a connection")
}

#[inline(never)]
async fn there(pool: &leaktrace::SqlitePool) -> leaktrace::PoolConnection<sqlx::Sqlite> {
    black_box(pool).acquire().await.expect("a connection")
}

#[tokio::test]
async fn what_names_were_read_from_is_given_back() {
    let monitor = Monitor::new(Config::default().detail(Detail::Backtrace));
    let raw = sqlx::SqlitePool::connect("sqlite::memory:").await;
    let pool = monitor.watch("names", raw.expect("a pool"));
    let mut kept = Vec::new();
    let mut after_first = 0;
    for round in 0..2 {
        let conn = match round {
            0 => here(&pool).await,
            _ => there(&pool).await,
        };
        let stack = pool.holders()[0].stack.clone().expect("a stack");
        conn.release().await;
        let knows_peak = forget_peak();
        let (before, files) = (status("VmRSS:"), status("RssFile:"));
        let start = Instant::now();
        let named = stack.frames().len();
        let took = start.elapsed();
        let peak = status("VmHWM:");
        let lasts = || (status("VmRSS:") - before) * 3 > (peak - before) * 2;
        // It lingers for two seconds, for those that follow.
        while lasts() && start.elapsed().as_secs() < 60 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let after = status("VmRSS:");
        println!(
            "{named} frames in {took:?}: {} KiB before, {} more at most, {} more after, {} of files",
            before / 1024,
            (peak - before) / 1024,
            (after - before) / 1024,
            (status("RssFile:") - files) / 1024
        );
        assert!(named > 0, "{stack:?}");
        if round == 0 {
            after_first = after;
        } else {
            // The first time the allocator grows to what it keeps for the next time.
            assert!(after - after_first < 8 * MIB, "it grows with each");
        }
        if knows_peak {
            assert!(!lasts(), "it is given back");
            // Names that are known read nothing again.
            assert_eq!(stack.frames().len(), named);
            assert!(status("VmRSS:") - after < MIB, "for nothing");
        }
        kept.push(stack);
    }
}
