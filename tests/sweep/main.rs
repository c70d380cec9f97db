//! The cancellation sweep: every public async operation, on every database, dropped at its k-th poll
//! for every k until it completes, and at random times. After each cut the next borrower is clean by
//! the server's word, no permit is lost, and what is committed is what the caller was told or may
//! not know. The same program on raw sqlx must find the known defects, else it proves nothing.

#[path = "../guarantee/stage.rs"]
#[macro_use]
#[allow(unused_macros, dead_code)]
mod stage;
#[path = "../support/mod.rs"]
mod support;

#[macro_use]
mod operations;
mod tables;

use std::time::Duration;

use stage::{Stage, ours_made_with, ours_opened, raw};
use support::Db;
use tables::Table;

macro_rules! sweep {
    ($db:ident, $sqlx:ty, $insert:literal, $only_it_has:ident) => {
        async fn leaktrace_on_it(thorough: bool) -> Option<Table> {
            let mut stage = Stage::set(Db::$db).await?;
            // What stays stuck is given up soon: MariaDB's driver may wait for ever on a raw loan.
            let limit = Duration::from_millis(500);
            // A busy machine: a long wait for the only connection is honest, and nothing of the sweep.
            let config = leaktrace::Config::default().wait(stage::LONG * 3);
            let (pool, findings) =
                ours_opened::<$sqlx>(&stage, 1, config.clone(), Some(limit)).await;
            let mut table = Table::new(Db::$db, thorough);
            {
                let options = leaktrace::PoolOptions::new().alive_bypass(Duration::ZERO);
                let (pool, findings) =
                    ours_made_with::<$sqlx>(&stage, 1, config.clone(), Some(limit), options).await;
                operations_of_a_tested_pool!(pool, stage, table);
                leaktrace::assert_no_leaks!(pool);
                assert!(findings.is_empty(), "{:?}", findings.all());
                pool.close().await;
            }
            operations!(pool, stage, table, $insert);
            operations_of_ours!(pool, stage, table, $insert, $sqlx);
            $only_it_has!(pool, stage, table, $insert);
            leaktrace::assert_no_leaks!(pool);
            let status = pool.status();
            assert_eq!(
                (status.held, status.returning, status.waiting),
                (0, 0, 0),
                "{status:?}"
            );
            assert_eq!(status.orphaned, 0);
            table.findings(&findings.all());
            Some(table)
        }

        async fn sqlx_on_it() -> Option<Table> {
            let mut stage = Stage::set(Db::$db).await?;
            let pool = raw::<$sqlx>(&stage, 1).await;
            let mut table = Table::new(Db::$db, false);
            operations_of_a_tested_pool!(pool, stage, table);
            operations!(pool, stage, table, $insert);
            Some(table)
        }

        pub(crate) fn ours_swept() -> Option<Table> {
            block_on(leaktrace_on_it(true))
        }

        pub(crate) fn sqlx_swept() -> Option<Table> {
            block_on(sqlx_on_it())
        }
    };
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(future)
}

mod postgres {
    use super::*;
    sweep!(
        Postgres,
        sqlx::Postgres,
        "INSERT INTO t VALUES ($1)",
        operations_of_postgres
    );
}
mod mysql {
    use super::*;
    sweep!(
        MySql,
        sqlx::MySql,
        "INSERT INTO t VALUES (?)",
        operations_of_no_other
    );
}
mod sqlite {
    use super::*;
    sweep!(
        Sqlite,
        sqlx::Sqlite,
        "INSERT INTO t VALUES ($1)",
        operations_of_no_other
    );
}
mod any {
    use super::*;
    sweep!(
        Any,
        sqlx::Any,
        "INSERT INTO t VALUES ($1)",
        operations_of_no_other
    );
}

/// Runs each on a thread and runtime of its own, under the name of the test, for the ledger.
fn on_all(jobs: [fn() -> Option<Table>; 4]) -> Vec<Table> {
    let name = std::thread::current().name().unwrap_or("sweep").to_owned();
    let threads = jobs.map(|job| {
        std::thread::Builder::new()
            .name(name.clone())
            // All operations of a sweep are part of one large future.
            .stack_size(64 * 1024 * 1024)
            .spawn(job)
            .expect("a thread")
    });
    threads
        .into_iter()
        .filter_map(|thread| thread.join().expect("its sweep ends"))
        .collect()
}

#[test]
fn whatever_is_cut_the_next_borrower_is_clean() {
    let tables = on_all([
        postgres::ours_swept,
        mysql::ours_swept,
        sqlite::ours_swept,
        any::ours_swept,
    ]);
    Table::print("leaktrace", &tables);
    for table in &tables {
        table.must_be_clean();
    }
    if tables.len() == 4 {
        let cuts: usize = tables.iter().map(Table::cuts).sum();
        assert!(cuts >= 2_000, "{cuts} cut points are too few");
    }
}

#[test]
fn the_same_sweep_finds_the_known_defects_of_sqlx() {
    let tables = on_all([
        postgres::sqlx_swept,
        mysql::sqlx_swept,
        sqlite::sqlx_swept,
        any::sqlx_swept,
    ]);
    Table::print("sqlx", &tables);
    for table in &tables {
        table.must_show_defects();
    }
}
