//! All services together fit the server, or are told which do not.

use leaktrace::kit::{Budget, Limit, Share};
use leaktrace::{MySqlPool, PgPool};
use sqlx::{Connection, PgConnection};

use crate::settle::{open, read};
use crate::support::Events;
use crate::support::db::{mysql_database, postgres_database};

#[test]
fn too_much_is_an_error_with_a_table() {
    let budget = Budget::of(&[Share::new("orders", 6, 15), Share::new("invoices", 2, 5)]);
    let error = budget.against(Limit::new(100, 3)).expect_err("100 of 97");
    let table = format!("{error:?}");
    for word in [
        "orders", "6", "15", "90", "invoices", "10", "100", "97", "103 %",
    ] {
        assert!(table.contains(word), "{word} is not in\n{table}");
    }
    assert_eq!(error.budget_use().sum(), 100);
}

#[test]
fn little_room_is_a_warning_and_enough_is_none() {
    let limit = Limit::new(100, 0);
    for (connections, tight) in [(80, false), (81, true), (100, true)] {
        let events = Events::new();
        let _subscriber = events.here();
        let shares = [Share::new("orders", 1, connections)];
        let used = Budget::of(&shares).against(limit).expect("it fits");
        assert_eq!(used.is_tight(), tight, "{used}");
        assert_eq!(events.len(), usize::from(tight));
    }
}

#[tokio::test]
async fn what_the_server_says_it_takes_is_what_it_takes() {
    let Some(test) = postgres_database().await else {
        return;
    };
    let settings = read(&[("DATABASE_URL", &test.url)]).expect("settings");
    let pool: PgPool = open(&settings).await.expect("a pool");
    let limit = Limit::of_postgres(&pool).await.expect("a limit");
    // Asked in another way, by another connection.
    let mut conn = PgConnection::connect(&test.url)
        .await
        .expect("a connection");
    let usable: i64 = sqlx::query_scalar(
        "SELECT sum(CASE name WHEN 'max_connections' THEN setting::int8 ELSE -setting::int8 END)::int8 \
         FROM pg_settings \
         WHERE name IN ('max_connections', 'superuser_reserved_connections', 'reserved_connections')",
    )
    .fetch_one(&mut conn)
    .await
    .expect("the settings");
    let usable = u32::try_from(usable).expect("a limit");
    let fits = |connections| {
        Budget::of(&[Share::new("all", 1, connections)])
            .against(limit)
            .is_ok()
    };
    assert!(
        fits(usable) && !fits(usable + 1),
        "{limit:?} is not {usable}"
    );
    let less = Budget::of(&[Share::new("all", 1, usable)]).against(limit.less(1));
    less.expect_err("one is kept for a person");
}

#[tokio::test]
async fn mariadb_says_what_it_takes() {
    let Some(test) = mysql_database().await else {
        return;
    };
    let settings = read(&[("DATABASE_URL", &test.url)]).expect("settings");
    let pool: MySqlPool = open(&settings).await.expect("a pool");
    let limit = Limit::of_mysql(&pool).await.expect("a limit");
    let row: (String, String) = sqlx::query_as("SHOW VARIABLES LIKE 'max_connections'")
        .fetch_one(&pool)
        .await
        .expect("a row");
    assert_eq!(limit, Limit::new(row.1.parse().expect("a number"), 0));
}
