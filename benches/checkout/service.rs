//! An axum service with the layer: what a request costs, with and without a checkout.
//!
//! Responsible for requests that are made in this process, without a network in between. Not
//! responsible for HTTP servers: see `examples/load.rs`.

use std::hint::black_box;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::State;
use axum::http::{Request, Response, StatusCode};
use axum::routing::get;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use leaktrace::{Config, Detail, Monitor};
use sqlx::Sqlite;
use tower::ServiceExt;
use tower::util::{MapRequestLayer, MapResponseLayer};

use super::groups::{Effort, one_thread};
use super::subject::POOL;
use super::table::{Row, Table};

/// A body that does nothing of its own. axum puts any type but its own into a box.
struct Wrapped(Body);

impl HttpBody for Wrapped {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

async fn nothing() -> StatusCode {
    StatusCode::OK
}

async fn on_sqlx(State(pool): State<sqlx::Pool<Sqlite>>) -> StatusCode {
    match pool.acquire().await {
        Ok(_) => StatusCode::OK,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

async fn on_leaktrace(State(pool): State<leaktrace::Pool<Sqlite>>) -> StatusCode {
    match pool.acquire().await {
        Ok(_) => StatusCode::OK,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

async fn ask(app: &Router) -> Duration {
    let request = Request::get("/orders/7")
        .body(Body::empty())
        .expect("a request");
    let app = app.clone();
    let start = Instant::now();
    let response = app.oneshot(request).await.expect("never fails");
    assert_eq!(response.status(), StatusCode::OK);
    let bytes = response.into_body().collect().await.expect("a body");
    black_box(bytes.to_bytes());
    start.elapsed()
}

fn monitor(detail: Detail) -> Monitor {
    Monitor::new(Config::default().detail(detail))
}

/// A request through a router, by what is around it.
pub(crate) fn layer(effort: Effort) -> Table {
    let bare = || Router::new().route("/orders/{id}", get(nothing));
    let apps = [
        (
            "a layer that does nothing",
            "-",
            bare().layer(MapRequestLayer::new(|request: Request<Body>| request)),
        ),
        (
            "a layer that gives the body another type",
            "-",
            bare().layer(MapResponseLayer::new(|response: Response<Body>| {
                response.map(Wrapped)
            })),
        ),
        ("layer", "off", bare().layer(monitor(Detail::Off).layer())),
        (
            "layer",
            "location",
            bare().layer(monitor(Detail::Location).layer()),
        ),
        (
            "layer",
            "backtrace",
            bare().layer(monitor(Detail::Backtrace).layer()),
        ),
    ];
    let rows = run(&apps, effort);
    Table {
        title: "axum, one request through the router, no database".to_string(),
        settings: "subscriber none, threads 1, in this process".to_string(),
        rows,
    }
}

/// 64 clients at once on a pool of 10, one checkout for each request.
pub(crate) fn load(effort: Effort) -> Result<Table, sqlx::Error> {
    const CLIENTS: u32 = 64;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let each = (effort.count / CLIENTS).max(1);
    let rows = runtime.block_on(async {
        let pool = || async {
            sqlx::pool::PoolOptions::<Sqlite>::new()
                .max_connections(POOL)
                .test_before_acquire(false)
                .connect("sqlite::memory:")
                .await
        };
        let mut apps = vec![(
            "raw sqlx, no layer",
            "-",
            Router::new()
                .route("/orders/{id}", get(on_sqlx))
                .with_state(pool().await?),
        )];
        for (detail, name) in [
            (Detail::Off, "off"),
            (Detail::Location, "location"),
            (Detail::Backtrace, "backtrace"),
        ] {
            let monitor = monitor(detail);
            let ours = monitor.watch("bench", pool().await?);
            let app = Router::new()
                .route("/orders/{id}", get(on_leaktrace))
                .layer(monitor.layer())
                .with_state(ours);
            apps.push(("leaktrace and its layer", name, app));
        }
        let mut rows: Vec<Row> = apps
            .iter()
            .map(|(name, detail, _)| row(name, detail))
            .collect();
        for row in &mut rows {
            row.test_before_acquire = Some(false);
        }
        for round in 0..=effort.rounds {
            for ((_, _, app), row) in apps.iter().zip(&mut rows) {
                let start = Instant::now();
                let mut clients = tokio::task::JoinSet::new();
                for _ in 0..CLIENTS {
                    let app = app.clone();
                    clients.spawn(async move {
                        for _ in 0..each {
                            ask(&app).await;
                        }
                    });
                }
                while let Some(done) = clients.join_next().await {
                    done.expect("no client panics");
                }
                if round > 0 {
                    row.add(start.elapsed(), CLIENTS * each);
                }
            }
        }
        Ok::<_, sqlx::Error>(rows)
    })?;
    Ok(Table {
        title: "axum on SQLite, 64 clients: one checkout a request, whole time".to_string(),
        settings: format!("subscriber none, threads 2, pool {POOL}, in this process"),
        rows,
    })
}

fn row(name: &str, detail: &str) -> Row {
    Row {
        detail: detail.to_string(),
        ..Row::new(name)
    }
}

fn run(apps: &[(&str, &str, Router)], effort: Effort) -> Vec<Row> {
    let mut rows: Vec<Row> = apps
        .iter()
        .map(|(name, detail, _)| row(name, detail))
        .collect();
    one_thread().block_on(async {
        for round in 0..=effort.rounds {
            for ((_, _, app), row) in apps.iter().zip(&mut rows) {
                let mut spent = Duration::ZERO;
                for _ in 0..effort.count {
                    spent += ask(app).await;
                }
                if round > 0 {
                    row.add(spent, effort.count);
                }
            }
        }
    });
    rows
}
