//! What contradicts another setting is refused, with both names; what a default can give way to is not.

use std::time::Duration;

use leaktrace::kit::{PoolSettings, Sizing, Traffic};

use crate::settle::read;

#[test]
fn each_contradiction_names_both_sides() {
    for (list, variable, other) in [
        (
            &[("DB_MIN_CONNECTIONS", "11")][..],
            "DB_MIN_CONNECTIONS",
            "DB_MAX_CONNECTIONS (10)",
        ),
        (
            &[
                ("DB_MIN_CONNECTIONS", "3"),
                ("DATABASE_MAX_CONNECTIONS", "2"),
            ],
            "DB_MIN_CONNECTIONS",
            "DATABASE_MAX_CONNECTIONS (2)",
        ),
        (
            &[("DB_CONNECT_TIMEOUT_SECS", "20")],
            "DB_CONNECT_TIMEOUT_SECS",
            "DB_ACQUIRE_TIMEOUT_SECS (10s)",
        ),
        (
            &[
                ("DB_IDLE_TIMEOUT_SECS", "10m"),
                ("DB_MAX_LIFETIME_SECS", "5m"),
            ],
            "DB_IDLE_TIMEOUT_SECS",
            "DB_MAX_LIFETIME_SECS (5m)",
        ),
        (
            &[
                ("DB_LOCK_TIMEOUT_SECS", "5"),
                ("DB_STATEMENT_TIMEOUT_SECS", "4"),
            ],
            "DB_LOCK_TIMEOUT_SECS",
            "DB_STATEMENT_TIMEOUT_SECS (4s)",
        ),
        (
            &[
                ("DB_LEAK_THRESHOLD", "4s"),
                ("DB_ACQUIRE_TIMEOUT_SECS", "3s"),
            ],
            "DB_LEAK_THRESHOLD",
            "DB_ACQUIRE_TIMEOUT_SECS (3s)",
        ),
        (
            &[("DB_WARM_UP", "yes")],
            "DB_WARM_UP",
            "DB_MIN_CONNECTIONS is 0",
        ),
    ] {
        let error = read(list).expect_err(variable);
        assert_eq!(error.variable(), variable);
        assert!(error.allowed().contains(other), "{error}");
    }
}

#[test]
fn a_default_gives_way_to_what_is_set() {
    for list in [
        &[("DB_ACQUIRE_TIMEOUT_SECS", "1")][..],
        &[("DB_MAX_LIFETIME_SECS", "60")],
        &[("DB_MAX_CONNECTIONS", "1")],
        &[("DB_LOCK_TIMEOUT_SECS", "5")],
        &[("DB_LEAK_THRESHOLD", "10s")],
        &[
            ("DB_LEAK_THRESHOLD", "auto"),
            ("DB_ACQUIRE_TIMEOUT_SECS", "500ms"),
        ],
        &[
            ("DB_IDLE_TIMEOUT_SECS", "1h"),
            ("DB_MAX_LIFETIME_SECS", "off"),
        ],
    ] {
        read(list).unwrap_or_else(|error| panic!("{list:?}: {error}"));
    }
}

#[test]
fn what_is_set_in_code_is_checked_too() {
    let error = PoolSettings::default()
        .min_connections(20)
        .check()
        .expect_err("20 of 10");
    assert_eq!(error.variable(), "min_connections");
    let error = PoolSettings::default()
        .max_connections(0)
        .check()
        .expect_err("none");
    assert_eq!(error.variable(), "max_connections");
    for many in [
        PoolSettings::default().max_connections(1 << 18),
        PoolSettings::default().max_overflow(u32::MAX),
    ] {
        let error = many.check().expect_err("more than a server takes");
        assert!(error.to_string().contains("at most 262143"), "{error}");
    }
    let error = PoolSettings::default()
        .threshold(Duration::from_secs(60))
        .check()
        .expect_err("later than the failure");
    assert_eq!(error.variable(), "threshold");
}

#[test]
fn sizes_come_from_a_formula_a_preset_or_a_table() {
    let sized = |rate, millis, headroom| {
        let hold = Duration::from_millis(millis);
        PoolSettings::default()
            .sized_for(rate, hold, headroom)
            .get_max_connections()
    };
    assert_eq!(sized(200.0, 40, 0.0), 8);
    assert_eq!(sized(200.0, 40, 0.25), 10);
    assert_eq!(sized(0.1, 5, 0.5), 1);
    assert_eq!(sized(33.0, 300, 0.0), 10);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let from_cores = PoolSettings::default().from_cores().get_max_connections();
    assert_eq!(from_cores as usize, cores * 2 + 1);

    let own = Sizing {
        min: 1,
        max: 7,
        overflow: 2,
    };
    let table = [("orders", Traffic::High), ("jobs", Traffic::Sized(own))];
    let jobs = PoolSettings::default()
        .service("jobs")
        .traffic_from(&table)
        .expect("a row");
    let sizes = (
        jobs.get_min_connections(),
        jobs.get_max_connections(),
        jobs.get_max_overflow(),
    );
    assert_eq!(sizes, (1, 7, 2));
    let unknown = PoolSettings::default()
        .service("ordres")
        .traffic_from(&table);
    let error = unknown.expect_err("a typo");
    assert_eq!((error.value(), error.allowed()), ("ordres", "orders, jobs"));
}
