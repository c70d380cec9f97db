//! Figures under load: the same service on sqlx's pool and on leaktrace's, one after the other.
//!
//! ```sh
//! DATABASE_URL=postgres://… cargo run --release --example load -- --seconds 30
//! ```
//!
//! 500 clients at a time ask a service with a pool of 10; each request is a transaction of two
//! statements and one statement on the pool. Prints requests a second, the time of a request (median,
//! 99 of 100), failures, and what leaktrace found at `backtrace`. Without `DATABASE_URL` there is
//! nothing to measure, and it says so.

use std::error::Error;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Router, serve};
use leaktrace::{Config, Detail, Finding, Monitor, PgPool};
use sqlx::postgres::PgPoolOptions;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

const CLIENTS: usize = 500;

macro_rules! handler {
    ($name:ident, $pool:ty) => {
        async fn $name(State(pool): State<$pool>) -> StatusCode {
            let work = async {
                let mut tx = pool.begin().await?;
                sqlx::query("SELECT 1").execute(&mut *tx).await?;
                sqlx::query("SELECT 2").execute(&mut *tx).await?;
                tx.commit().await?;
                sqlx::query("SELECT 3").execute(&pool).await
            };
            match work.await {
                Ok(_) => StatusCode::OK,
                Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
            }
        }
    };
}

handler!(on_sqlx, sqlx::PgPool);
handler!(on_leaktrace, PgPool);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let seconds = match &*std::env::args().skip(1).collect::<Vec<_>>() {
        [] => 30,
        [word, seconds] if word == "--seconds" => seconds.parse()?,
        _ => return Err("usage: load [--seconds N]".into()),
    };
    let Ok(url) = std::env::var("DATABASE_URL") else {
        println!("DATABASE_URL is not set: nothing to measure");
        return Ok(());
    };
    // Half of the time for each.
    let time = Duration::from_secs(seconds) / 2;
    let options = PgPoolOptions::new().max_connections(10);
    let pool = options.clone().connect(&url).await?;
    let app = Router::new().route("/order", get(on_sqlx));
    measure("sqlx", app.with_state(pool.clone()), time).await?;
    pool.close().await;

    let monitor = Monitor::new(Config::default().detail(Detail::Backtrace));
    monitor.add_sink(|finding: &Finding| println!("{finding}"));
    let pool = monitor.watch("orders", options.connect(&url).await?);
    let app = Router::new().route("/order", get(on_leaktrace));
    let app = app.layer(monitor.layer()).with_state(pool.clone());
    measure("leaktrace, backtrace", app, time).await?;
    println!("{:?}", pool.status());
    pool.close_within(Duration::from_secs(5)).await?;
    Ok(())
}

async fn measure(name: &str, app: Router, time: Duration) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/order", listener.local_addr()?);
    let server = tokio::spawn(async { serve(listener, app).await });
    let http = reqwest::Client::new();
    let until = Instant::now() + time;
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (http, url) = (http.clone(), url.clone());
        clients.spawn(async move {
            let (mut times, mut failed) = (Vec::new(), 0_u64);
            while Instant::now() < until {
                let start = Instant::now();
                match http.get(&url).send().await {
                    Ok(answer) if answer.status() == 200 => times.push(start.elapsed()),
                    _ => failed += 1,
                }
            }
            (times, failed)
        });
    }
    let (mut times, mut failed) = (Vec::new(), 0);
    while let Some(client) = clients.join_next().await {
        let (more, others) = client?;
        times.extend(more);
        failed += others;
    }
    server.abort();
    times.sort();
    let part = |of_hundred: usize| times.get(times.len() * of_hundred / 100).copied();
    println!(
        "{name}: {:.0} requests/s, median {:.1?}, 99 of 100 within {:.1?}, {failed} failed",
        times.len() as f64 / time.as_secs_f64(),
        part(50).unwrap_or_default(),
        part(99).unwrap_or_default(),
    );
    Ok(())
}
