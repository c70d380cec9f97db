//! Who keeps a statement from going on: by our line when it is one of our holders, else by its pid.

use leaktrace::{Kind, Scope};
use sqlx::{Connection, raw_sql};

use crate::bench::{Bench, SEATS, Server, at, never_says, oldest, on_each_server, says};
use crate::support::database;

on_each_server! {
    #[tokio::test(flavor = "multi_thread")]
    async fn a_holder_that_blocks_another_one_is_named_by_its_lines() {
        let Some(test) = database(DB::DB).await else { return };
        let bench = Bench::<DB>::on(&test).await;
        raw_sql(SEATS).execute(&bench.pool).await.expect("a table");
        let begun = async {
            let mut first = bench.pool.begin().await.expect("a transaction");
            sqlx::query("UPDATE seats SET taken = 7 WHERE id = 1").execute(&mut *first).await.expect("locked");
            first
        };
        let first = Scope::new("POST /first").run(begun).await;
        let pool = bench.pool.clone();
        let second = tokio::spawn(async move {
            let mut blocked = pool.acquire().await.expect("a connection");
            sqlx::query("UPDATE seats SET taken = 8 WHERE id = 1").execute(&mut *blocked).await
        });
        let finding = bench.finding_at(at!("let mut blocked = pool.acquire()")).await;
        assert_eq!(finding.kind, Kind::HeldTooLong, "{finding}");
        let server = oldest(&finding).server.as_ref().expect("the server was asked");
        let [blocker] = server.blocked_by.as_slice() else { panic!("{server:?}") };
        let holders = bench.pool.holders();
        let of_first = holders.iter().find(|holder| holder.backend == Some(blocker.backend));
        assert_eq!(blocker.holder, of_first.map(|holder| holder.id));
        says(&finding, &[
            &format!("blocked by POST /first, taken at {}", at!("let mut first = bench.pool.begin()")),
            &format!(", last used at {}", at!("execute(&mut *first).await.expect(\"locked\")")),
            &format!(", pid {}", blocker.backend),
            "the statement waits for a lock of POST /first: that one keeps it",
        ]);
        never_says(&finding, &[&format!("holder {}", blocker.holder.expect("one of ours"))]);
        let line = at!("let mut first = bench.pool.begin()");
        assert_eq!(finding.to_string().matches(&line).count(), 1, "said once: {finding}");
        first.rollback().await.expect("rolled back");
        second.await.expect("no panic").expect("goes on");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_holder_that_blocks_others_hears_of_them() {
        let Some(test) = database(DB::DB).await else { return };
        let bench = Bench::<DB>::on(&test).await;
        raw_sql(SEATS).execute(&bench.pool).await.expect("a table");
        let mut culprit = bench.pool.begin().await.expect("a transaction");
        sqlx::query("UPDATE seats SET taken = 7 WHERE id = 1").execute(&mut *culprit).await.expect("locked");
        let (pool, waits) = (bench.pool.clone(), bench.pool.clone());
        let victim = tokio::spawn(Scope::new("POST /victim").run(async move {
            let mut waits = waits.acquire().await.expect("a connection");
            sqlx::query("UPDATE seats SET taken = 8 WHERE id = 1").execute(&mut *waits).await
        }));
        // A connection is held by a holder that works beside it, and waits for nobody.
        let work = tokio::spawn(async move {
            let mut innocent = pool.acquire().await.expect("a connection");
            sqlx::query(DB::LONG).execute(&mut *innocent).await.expect("slept");
        });
        sqlx::query(DB::LONG).execute(&mut *culprit).await.expect("slept");
        let finding = bench.finding_at(at!("let mut culprit = bench.pool.begin()")).await;
        says(&finding, &[
            &format!("      blocks     POST /victim, taken at {}", at!("let mut waits = waits.acquire()")),
            ", waiting for ",
            "another holder of this pool waits for a lock that it has, while its statement runs",
        ]);
        never_says(&finding, &["waits for no lock", "look at its plan"]);
        let twin = bench.finding_at(at!("let mut innocent = pool.acquire()")).await;
        says(&twin, &["waits for no lock: look at its plan"]);
        never_says(&twin, &["blocks  "]);
        culprit.rollback().await.expect("rolled back");
        victim.await.expect("no panic").expect("goes on");
        work.await.expect("no panic");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_holder_of_another_row_blocks_nobody() {
        let Some(test) = database(DB::DB).await else { return };
        let bench = Bench::<DB>::on(&test).await;
        raw_sql(SEATS).execute(&bench.pool).await.expect("a table");
        let mut other = bench.pool.begin().await.expect("a transaction");
        sqlx::query("UPDATE seats SET taken = 7 WHERE id = 1").execute(&mut *other).await.expect("locked");
        let pool = bench.pool.clone();
        let work = tokio::spawn(async move {
            let mut slow = pool.acquire().await.expect("a connection");
            sqlx::query("UPDATE seats SET taken = 8 WHERE id = 2").execute(&mut *slow).await.expect("no lock");
            sqlx::query(DB::LONG).execute(&mut *slow).await.expect("slept");
        });
        let finding = bench.finding_at(at!("let mut slow = pool.acquire()")).await;
        says(&finding, &["(server: in flight, pid ", "waits for no lock"]);
        never_says(&finding, &["blocked by"]);
        other.rollback().await.expect("rolled back");
        work.await.expect("no panic");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_blocker_from_outside_is_named_by_its_pid_and_its_masked_statement() {
        let Some(test) = database(DB::DB).await else { return };
        let bench = Bench::<DB>::on(&test).await;
        raw_sql(SEATS).execute(&bench.pool).await.expect("a table");
        let mut outside = Raw::connect(&test.url).await.expect("a connection beside the pool");
        let pid: i64 = sqlx::query_scalar(DB::OWN_PID).fetch_one(&mut outside).await.expect("a pid");
        raw_sql("BEGIN").execute(&mut outside).await.expect("begun");
        raw_sql("UPDATE seats SET taken = 4711 WHERE id = 1").execute(&mut outside).await.expect("locked");
        let pool = bench.pool.clone();
        let blocked = tokio::spawn(async move {
            sqlx::query("UPDATE seats SET taken = 8 WHERE id = 1").execute(&pool).await
        });
        let finding = bench.finding().await;
        says(&finding, &[
            "by a statement on the pool itself",
            &format!("blocked by pid {pid}, not of this pool, user leaktrace"),
        ]);
        if DB::TELLS_LAST_SQL {
            says(&finding, &["UPDATE seats SET taken = ? WHERE id = ?"]);
        }
        never_says(&finding, &["4711", "of this pool, taken at"]);
        raw_sql("ROLLBACK").execute(&mut outside).await.expect("rolled back");
        blocked.await.expect("no panic").expect("goes on");
    }
}
