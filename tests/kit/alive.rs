//! For how long a connection counts as alive: read from what an acquire sends to the server.

use std::time::Duration;

use leaktrace::PgPool;
use leaktrace::kit::PoolSettings;
use serde_json::json;

use crate::settle::{open, read};
use crate::support::db::postgres_database;
use crate::support::{Direction, Proxy};

/// How many bytes an acquire sends, that long after the connection came back.
async fn sent(settings: PoolSettings, proxy: &Proxy, idle: Duration) -> u64 {
    let settings = settings.max_connections(1).start_tries(1);
    let pool: PgPool = open(&settings).await.expect("a pool");
    // The second time its backend is known for certain.
    for _ in 0..2 {
        pool.acquire().await.expect("a connection").release().await;
    }
    tokio::time::sleep(idle).await;
    let before = proxy.bytes(Direction::ToServer);
    let conn = pool.acquire().await.expect("a connection");
    let sent = proxy.bytes(Direction::ToServer) - before;
    conn.release().await;
    pool.close().await;
    sent
}

#[tokio::test]
async fn the_alive_bypass_decides_whether_an_acquire_asks() {
    let Some(test) = postgres_database().await else {
        return;
    };
    let proxy = Proxy::start(&test.url);
    let url = proxy.url(&test.url);
    for (value, asks) in [("60", false), ("1m", false), ("0", true), ("off", true)] {
        let list = [("DATABASE_URL", &*url), ("DB_ALIVE_BYPASS_SECS", value)];
        let settings = read(&list).expect(value);
        let bytes = sent(settings, &proxy, Duration::ZERO).await;
        assert_eq!(bytes > 0, asks, "{value}: {bytes} bytes");
    }
    let settings = PoolSettings::default().url(&url).expect("a URL");
    let never = settings.alive_bypass(Duration::ZERO);
    assert!(sent(never, &proxy, Duration::ZERO).await > 0);
}

/// `pool_pre_ping` is whether it asks at all; the bypass is what it may leave out.
#[tokio::test]
async fn sqlalchemys_pre_ping_asks_what_was_idle_for_longer_than_the_bypass() {
    let Some(test) = postgres_database().await else {
        return;
    };
    let proxy = Proxy::start(&test.url);
    let url = proxy.url(&test.url);
    let idle = Duration::from_millis(700);
    for (file, asks) in [
        (json!({"url": url, "pool_pre_ping": true}), true),
        (json!({"url": url, "pool_pre_ping": false}), false),
        (json!({"url": url, "alive_bypass": "1m"}), false),
    ] {
        let settings = serde_json::from_value(file.clone()).expect("settings");
        let bytes = sent(settings, &proxy, idle).await;
        assert_eq!(bytes > 0, asks, "{file}: {bytes} bytes");
    }
}
