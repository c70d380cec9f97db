//! Values never leave: a canary in every literal form of a real database, in no output.

use leaktrace::{Kind, Monitor, PoolOptions};
use sqlx::{AssertSqlSafe, Database, Executor, SqlSafeStr};

use crate::ground::*;
use crate::outlets::everything;
use crate::support::{Events, database};

/// Letters that stand in no keyword, and digits that stand in no count.
const CANARY: &str = "QZCANARYZQ";
const NUMBER: &str = "918273645";

/// Every form in which a value can stand in a statement.
trait Forms: Ground {
    const FORMS: &'static [&'static str];
    /// Two values, bound.
    const BOUND: &'static str;
}

const EVERYWHERE: &[&str] = &[
    "SELECT 'QZCANARYZQ' AS a",
    "SELECT 'it''s QZCANARYZQ' AS a",
    "SELECT 918273645 AS a",
    "SELECT -918273645.25e0 AS a",
    "SELECT 1 AS a /* QZCANARYZQ */",
    "SELECT 1 AS a -- QZCANARYZQ",
    "/* QZCANARYZQ */ SELECT 1 AS a",
    "SELECT 1 AS a WHERE 'QZCANARYZQ' IN ('a', 'QZCANARYZQ')",
    "SELECT 'QZCANARYZQ\nQZCANARYZQ' AS a",
    // Refused, each in its own way.
    "SELECT 'QZCANARYZQ",
    "SELECT 1 FROM no_such_table WHERE a = 'QZCANARYZQ'",
    "SELEKT 'QZCANARYZQ'",
    "GRANT ALL TO nobody IDENTIFIED BY 'QZCANARYZQ'",
    "CREATE USER somebody PASSWORD 'QZCANARYZQ'",
];

impl Forms for sqlx::Postgres {
    const BOUND: &'static str = "SELECT $1::text AS a, $2::int8 AS b";
    const FORMS: &'static [&'static str] = &[
        "SELECT E'\\'QZCANARYZQ' AS a",
        "SELECT $$QZCANARYZQ$$ AS a",
        "SELECT $body$ it's $$ QZCANARYZQ $body$ AS a",
        "SELECT U&'QZCANARYZQ' AS a",
        "SELECT B'1010' AS b, 'QZCANARYZQ'::text AS a",
        "SELECT 1 AS a /* outer /* QZCANARYZQ */ QZCANARYZQ */",
        "SELECT 'a'\n'QZCANARYZQ' AS a",
        "SET application_name = 'QZCANARYZQ'",
        "SET application_name TO QZCANARYZQ",
        "SELECT set_config('app.token', 'QZCANARYZQ', false)",
        "DO $do$ BEGIN PERFORM 'QZCANARYZQ'; END $do$",
        "ALTER ROLE CURRENT_USER PASSWORD 'QZCANARYZQ' VALID UNTIL 'never'",
    ];
}

impl Forms for sqlx::MySql {
    const BOUND: &'static str = "SELECT ? AS a, ? AS b";
    const FORMS: &'static [&'static str] = &[
        "SELECT \"QZCANARYZQ\" AS a",
        "SELECT 'a\\'QZCANARYZQ' AS a",
        "SELECT \"a\"\"QZCANARYZQ\" AS a",
        "SELECT _utf8mb4'QZCANARYZQ' AS a",
        "SELECT N'QZCANARYZQ' AS a",
        "SELECT 0x918273645918273645 AS a",
        "SELECT X'918273645a' AS a",
        "SELECT 1 AS a # QZCANARYZQ",
        "SELECT 1 AS a /*! , 'QZCANARYZQ' AS b */",
        "SET @token = 'QZCANARYZQ'",
        "SET PASSWORD FOR nobody = PASSWORD('QZCANARYZQ')",
        "SELECT 'a' 'QZCANARYZQ' AS a",
    ];
}

impl Forms for sqlx::Sqlite {
    const BOUND: &'static str = "SELECT ? AS a, ? AS b";
    const FORMS: &'static [&'static str] = &[
        "SELECT X'918273645a' AS a",
        "SELECT 0x918273645 AS a",
        "SELECT \"QZCANARYZQ\" AS a",
        "PRAGMA user_version = 918273645",
        "PRAGMA no_such_key = 'QZCANARYZQ'",
        "ATTACH 'file:QZCANARYZQ?mode=memory' AS other",
        "SELECT 1 AS a WHERE 'QZCANARYZQ' LIKE '%QZCANARYZQ%'",
    ];
}

on_each_database! {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_value_in_any_form_is_in_no_output() {
        let Some(test) = database(DB::DB).await else { return };
        let events = Events::new();
        let monitor = {
            let _here = events.here();
            Monitor::new(silent().report_interval(millis(1)))
        };
        let findings = listen(&monitor);
        let pool = PoolOptions::<DB>::new()
            .monitor(&monitor)
            .name("orders")
            .connect(&test.url)
            .await
            .expect("a pool");
        let w = Watched { pool, monitor, findings, test };
        let mut shown = 0;
        for form in EVERYWHERE.iter().chain(<DB as Forms>::FORMS) {
            let mut tx = w.pool.begin().await.expect("a transaction");
            // Each way in; what the server thinks of it does not matter.
            let _ = sqlx::raw_sql(*form).execute(&mut *tx).await;
            shown += look(&w, &events, form).await;
            drop(tx);
            let mut conn = w.pool.acquire().await.expect("a connection");
            let _ = conn.fetch_all(*form).await;
            shown += look(&w, &events, form).await;
            let _ = conn.prepare(AssertSqlSafe(*form).into_sql_str()).await;
            shown += look(&w, &events, form).await;
            let _ = sqlx::query(*form).execute(&w.pool).await;
            shown += look(&w, &events, form).await;
            conn.close().await.expect("the next form begins on a fresh one");
        }
        let mut conn = w.pool.acquire().await.expect("a connection");
        let bound = sqlx::query(<DB as Forms>::BOUND).bind(CANARY).bind(918_273_645_i64);
        bound.fetch_all(&mut *conn).await.expect("bound values");
        assert_eq!(look(&w, &events, "bound values").await, 1);
        drop(conn);
        w.all_back().await;

        assert!(shown > 4 * EVERYWHERE.len(), "statements were shown at all: {shown}");

        // And once by the log.
        let mut tx = w.pool.begin().await.expect("a transaction");
        let _ = sqlx::query("SELECT 'QZCANARYZQ', 918273645").execute(&mut *tx).await;
        aged(&w.pool, millis(20)).await;
        w.monitor.set_threshold(millis(10));
        w.finding(Kind::HeldTooLong).await;
        let heard = |all: &[_]| (!all.is_empty()).then_some(());
        events.wait_for("an event", PATIENCE, heard).await;
        assert_eq!(look(&w, &events, "the log").await, 1);
        assert!(events.all()[0].fields["sql"].starts_with("SELECT ?, ?"), "{:?}", events.all());
    }
}

/// Looks at every output; answers how many holders showed a statement.
async fn look<DB: Database>(w: &Watched<DB>, events: &Events, form: &str) -> usize {
    let leaks = match w.pool.find_leaks(millis(1)).await {
        Err(leaks) => leaks,
        Ok(()) => return 0,
    };
    for out in everything(w, &leaks, events) {
        assert!(
            !out.text.contains(CANARY),
            "{form}: {}: {}",
            out.from,
            out.text
        );
        assert!(
            !out.text.contains(NUMBER),
            "{form}: {}: {}",
            out.from,
            out.text
        );
    }
    w.pool
        .holders()
        .iter()
        .filter(|holder| holder.last_sql.is_some())
        .count()
}
