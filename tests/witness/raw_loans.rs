//! What nobody sees of a raw loan, the server tells: idle, idle in a transaction, or at work.

use leaktrace::{Activity, Kind, ServerState};
use sqlx::raw_sql;

use crate::bench::{Bench, SEATS, Server, at, never_says, oldest, on_each_server, says};
use crate::support::database;

on_each_server! {
    #[tokio::test(flavor = "multi_thread")]
    async fn a_transaction_left_open_on_a_raw_loan_is_confirmed_and_called_idle() {
        let Some(test) = database(DB::DB).await else { return };
        let bench = Bench::<DB>::on(&test).await;
        raw_sql(SEATS).execute(&bench.pool).await.expect("a table");
        let mut conn = bench.pool.acquire().await.expect("a connection");
        let raw: &mut Raw = &mut conn;
        raw_sql("BEGIN").execute(&mut *raw).await.expect("begun");
        raw_sql("UPDATE seats SET taken = 4711 WHERE id = 1").execute(&mut *raw).await.expect("one row");
        let finding = bench.finding().await;
        assert_eq!(finding.kind, Kind::IdleInTransaction, "{finding}");
        let holder = oldest(&finding);
        assert!(holder.is_idle_in_transaction());
        let server = holder.server.as_ref().expect("the server was asked");
        assert_eq!(server.state, ServerState::IdleInTransaction);
        let pid = holder.backend.expect("its backend is known");
        says(&finding, &[
            "idle in transaction",
            &at!("let raw: &mut Raw = &mut conn;"),
            "lent as a raw connection",
            &format!("(server: idle in transaction, pid {pid})"),
            "runs nothing on it: it awaits something that is not this database, with the transaction open",
        ]);
        never_says(&finding, &["4711 WHERE", "was not seen"]);
        drop(conn);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_raw_loan_without_a_transaction_is_idle_and_not_in_a_transaction() {
        let Some(test) = database(DB::DB).await else { return };
        let bench = Bench::<DB>::on(&test).await;
        raw_sql(SEATS).execute(&bench.pool).await.expect("a table");
        let mut conn = bench.pool.acquire().await.expect("a connection");
        let raw: &mut Raw = &mut conn;
        raw_sql("BEGIN").execute(&mut *raw).await.expect("begun");
        raw_sql("UPDATE seats SET taken = 1 WHERE id = 1").execute(&mut *raw).await.expect("one row");
        raw_sql("COMMIT").execute(&mut *raw).await.expect("committed");
        let finding = bench.finding().await;
        assert_eq!(finding.kind, Kind::HeldTooLong, "{finding}");
        assert!(matches!(oldest(&finding).activity, Activity::Idle { .. }), "{finding}");
        says(&finding, &["(server: idle, pid "]);
        never_says(&finding, &["idle in transaction", "with the transaction open"]);
        drop(conn);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_statement_that_runs_on_a_raw_loan_is_in_flight_and_slow() {
        let Some(test) = database(DB::DB).await else { return };
        let bench = Bench::<DB>::on(&test).await;
        let pool = bench.pool.clone();
        let work = tokio::spawn(async move {
            let mut conn = pool.acquire().await.expect("a connection");
            let raw: &mut Raw = &mut conn;
            raw_sql(DB::LONG).execute(raw).await.expect("slept");
        });
        let finding = bench.finding().await;
        assert_eq!(finding.kind, Kind::HeldTooLong, "{finding}");
        assert!(matches!(oldest(&finding).activity, Activity::InFlight { .. }), "{finding}");
        says(&finding, &[
            "statement running for",
            "(server: in flight, pid ",
            DB::LONG_SHOWN,
            "the statement is slow, and waits for no lock",
        ]);
        never_says(&finding, &["9.25", "blocked by"]);
        work.await.expect("no panic");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_statement_seen_to_run_is_slow_by_the_servers_word_too() {
        let Some(test) = database(DB::DB).await else { return };
        let bench = Bench::<DB>::on(&test).await;
        let pool = bench.pool.clone();
        let work = tokio::spawn(async move {
            let mut conn = pool.acquire().await.expect("a connection");
            sqlx::query(DB::LONG).execute(&mut *conn).await.expect("slept");
        });
        let finding = bench.finding().await;
        says(&finding, &["(server: in flight, pid ", "the statement is slow, and waits for no lock"]);
        work.await.expect("no panic");
    }
}

#[cfg(feature = "json")]
#[tokio::test(flavor = "multi_thread")]
async fn a_program_reads_what_the_server_said() {
    let Some(test) = database(sqlx::Postgres::DB).await else {
        return;
    };
    let bench = Bench::<sqlx::Postgres>::on(&test).await;
    let mut conn = bench.pool.acquire().await.expect("a connection");
    let raw: &mut sqlx::PgConnection = &mut conn;
    raw_sql("BEGIN").execute(&mut *raw).await.expect("begun");
    let finding = bench.finding().await;
    let json = serde_json::to_value(&finding).expect("JSON");
    let holder = &json["holders"][0];
    assert_eq!(holder["server"]["state"], "idle_in_transaction", "{json}");
    assert!(holder["server"]["state_ms"].as_u64() > Some(2000), "{json}");
    assert_eq!(
        holder["backend"].as_i64(),
        finding.holders[0].backend,
        "{json}"
    );
    drop(conn);
}
