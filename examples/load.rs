//! Under load: the same service on sqlx's own pool and on leaktrace's, in turns.
//!
//! ```sh
//! DATABASE_URL=postgres://… cargo run --release --example load
//! ```
//!
//! 500 clients at a time ask a service with a pool of 10; each request is a transaction of two
//! statements and one statement on the pool. leaktrace runs at `backtrace`, inside of its layer. The two
//! take turns of three seconds, so that whatever else the machine does meets both; `--seconds N` is the
//! time of each in all, 30 by default. Prints a table, and what leaktrace found. With `--places 10,20,50`
//! it does so for pools of these sizes, in one table with a line for each side. Without `DATABASE_URL`
//! there is nothing to measure, and it says so.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex};
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
const TURN: Duration = Duration::from_secs(3);

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

/// What came of one side.
#[derive(Default)]
struct Side {
    url: String,
    times: Vec<Duration>,
    failed: u64,
    busy: Duration,
}

impl Side {
    async fn serve(app: Router) -> Result<Self, Box<dyn Error>> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/order", listener.local_addr()?);
        tokio::spawn(async { serve(listener, app).await });
        Ok(Self {
            url,
            ..Self::default()
        })
    }

    /// Keeps all clients asking for this long.
    async fn turn(&mut self, http: &reqwest::Client, time: Duration) -> Result<(), Box<dyn Error>> {
        let start = Instant::now();
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            let (http, url) = (http.clone(), self.url.clone());
            clients.spawn(async move {
                let (mut times, mut failed) = (Vec::new(), 0_u64);
                while start.elapsed() < time {
                    let asked = Instant::now();
                    match http.get(&url).send().await {
                        Ok(answer) if answer.status() == 200 => times.push(asked.elapsed()),
                        _ => failed += 1,
                    }
                }
                (times, failed)
            });
        }
        while let Some(client) = clients.join_next().await {
            let (times, failed) = client?;
            self.times.extend(times);
            self.failed += failed;
        }
        self.busy += start.elapsed();
        Ok(())
    }

    /// Requests a second, median, 99 of 100: in milliseconds.
    fn figures(&mut self) -> [f64; 3] {
        self.times.sort_unstable();
        let part = |of_hundred: usize| {
            let time = self.times.get(self.times.len() * of_hundred / 100);
            time.copied().unwrap_or_default().as_secs_f64() * 1_000.0
        };
        let a_second = self.times.len() as f64 / self.busy.as_secs_f64();
        [a_second, part(50), part(99)]
    }
}

/// What is asked for on the command line.
struct Asked {
    /// The time of each side in all.
    time: Duration,
    places: Option<Vec<u32>>,
}

fn asked() -> Result<Asked, Box<dyn Error>> {
    let mut asked = Asked {
        time: Duration::from_secs(30),
        places: None,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match (&*word, words.next()) {
            ("--seconds", Some(seconds)) => asked.time = Duration::from_secs(seconds.parse()?),
            ("--places", Some(list)) => {
                let places: Result<_, _> = list.split(',').map(str::parse).collect();
                asked.places = Some(places?);
            }
            _ => return Err("usage: load [--seconds N] [--places 10,20,50]".into()),
        }
    }
    Ok(asked)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let asked = asked()?;
    let Ok(url) = std::env::var("DATABASE_URL") else {
        println!("DATABASE_URL is not set: nothing to measure");
        return Ok(());
    };
    let Some(list) = asked.places else {
        return measure(&url, 10, asked.time).await?.print();
    };
    let mut found = String::new();
    println!(
        "| Pool of | | requests a second | median, ms | 99 of 100, ms | failed |\n|---|---|---|---|---|---|"
    );
    for places in list {
        let mut both = measure(&url, places, asked.time).await?;
        for (name, side) in [("sqlx", &mut both.sqlx), ("leaktrace", &mut both.leaktrace)] {
            let [a_second, median, most] = side.figures();
            let failed = side.failed;
            println!("| {places} | {name} | {a_second:.0} | {median:.1} | {most:.1} | {failed} |");
        }
        if both.left != [places as usize; 2] {
            return Err(format!("permits left of {places}: {:?}", both.left).into());
        }
        found += &format!("\n{places}: {}", both.found);
    }
    println!("\nFound:{found}");
    Ok(())
}

/// Both sides after their turns.
struct Measured {
    sqlx: Side,
    leaktrace: Side,
    places: u32,
    /// How many connections each pool has left at the end.
    left: [usize; 2],
    found: String,
}

impl Measured {
    fn print(mut self) -> Result<(), Box<dyn Error>> {
        let (a, b) = (self.sqlx.figures(), self.leaktrace.figures());
        println!("| | sqlx | leaktrace, `backtrace` | ratio |\n|---|---|---|---|");
        for (index, name) in ["requests a second", "median, ms", "99 of 100, ms"]
            .into_iter()
            .enumerate()
        {
            let (a, b) = (a[index], b[index]);
            println!("| {name} | {a:.1} | {b:.1} | {:.2} |", b / a);
        }
        let (a, b) = (self.sqlx.failed, self.leaktrace.failed);
        println!("| failed requests | {a} | {b} | |");
        let [a, b] = self.left;
        println!("| permits left of {} | {a} | {b} | |", self.places);
        println!("\nFound: {}", self.found);
        Ok(())
    }
}

async fn measure(url: &str, places: u32, time: Duration) -> Result<Measured, Box<dyn Error>> {
    let options = PgPoolOptions::new().max_connections(places);
    let raw = options.clone().connect(url).await?;
    let app = Router::new().route("/order", get(on_sqlx));
    let mut sqlx = Side::serve(app.with_state(raw.clone())).await?;

    let monitor = Monitor::new(Config::default().detail(Detail::Backtrace));
    let found = Arc::new(Mutex::new(BTreeMap::<String, usize>::new()));
    let finds = Arc::clone(&found);
    monitor.add_sink(move |finding: &Finding| {
        let causes: Vec<&str> = finding
            .causes
            .iter()
            .map(|cause| cause.kind.as_str())
            .collect();
        let phase = finding.phase().unwrap_or_default();
        let name = format!("{} {phase} {}", finding.kind, causes.join("+"));
        *finds.lock().unwrap().entry(name).or_default() += 1;
    });
    let pool = monitor.watch("orders", options.connect(url).await?);
    let app = Router::new().route("/order", get(on_leaktrace));
    let app = app.layer(monitor.layer()).with_state(pool.clone());
    let mut leaktrace = Side::serve(app).await?;

    let http = reqwest::Client::new();
    // Connections are opened and stacks are seen for the first time.
    for side in [&mut sqlx, &mut leaktrace] {
        side.turn(&http, Duration::from_secs(1)).await?;
        side.times.clear();
        side.busy = Duration::ZERO;
    }
    let mut turns = 0;
    while leaktrace.busy < time {
        let turn = TURN.min(time - leaktrace.busy);
        let mut order = [&mut sqlx, &mut leaktrace];
        // Who goes first changes from turn to turn.
        order.rotate_left(turns % 2);
        for side in order {
            side.turn(&http, turn).await?;
        }
        turns += 1;
    }

    let left = [
        all_of(&raw, places).await,
        all_of(pool.as_sqlx(), places).await,
    ];
    let found = format!("{:?}, {:?}", found.lock().unwrap(), pool.status());
    pool.close_within(Duration::from_secs(5)).await?;
    raw.close().await;
    Ok(Measured {
        sqlx,
        leaktrace,
        places,
        left,
        found,
    })
}

/// How many connections can be out at once, now that nobody asks.
async fn all_of(pool: &sqlx::PgPool, places: u32) -> usize {
    let mut all = Vec::new();
    for _ in 0..places {
        let one = tokio::time::timeout(Duration::from_secs(5), pool.acquire()).await;
        all.extend(one.ok().and_then(Result::ok));
    }
    all.len()
}
