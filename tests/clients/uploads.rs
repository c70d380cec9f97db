//! Uploads over HTTP/1.1 and handlers that panic, each with a transaction open. (HTTP/2: `http2`.)

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use futures::StreamExt;
use leaktrace::{Detail, Finding, Kind, SqlitePool};
use sqlx::Sqlite;
use tower_http::catch_panic::CatchPanicLayer;

use crate::bench::{Bench, PATIENCE};
use crate::support::db::{TestDb, sqlite_database};
use crate::support::eventually;
use crate::web::{Book, Client, ask, back_and_silent, patient, serve};

type Context = State<(SqlitePool, Book)>;

async fn upload(State((pool, book)): Context, body: Body) -> Result<(), StatusCode> {
    book.write(&pool, body).await
}

async fn panics(State((pool, book)): Context) {
    let mut tx = pool.begin().await.expect("free");
    book.row(&mut tx, 1).await;
    panic!("on purpose, with a transaction open");
}

/// The stream has a transaction, and panics after its first line.
async fn panics_in_its_body(State((pool, book)): Context) -> Body {
    Body::from_stream(
        async_stream::stream! {
            let mut tx = pool.begin().await.expect("free");
            book.row(&mut tx, 1).await;
            yield Ok::<_, std::io::Error>("first");
            panic!("on purpose, in the body");
        }
        .boxed(),
    )
}

/// The stream has a transaction, and fails after its first line.
async fn fails_in_its_body(State((pool, book)): Context) -> Body {
    Body::from_stream(
        async_stream::stream! {
            let mut tx = pool.begin().await.expect("free");
            book.row(&mut tx, 1).await;
            yield Ok("first");
            drop(tx);
            yield Err(std::io::Error::other("on purpose, in the body"));
        }
        .boxed(),
    )
}

/// Answers success, and has saved nothing.
async fn forgets(State((pool, book)): Context) {
    let mut tx = pool.begin().await.expect("free");
    book.row(&mut tx, 1).await;
}

async fn fine(State((pool, book)): Context) {
    let mut tx = pool.begin().await.expect("free");
    book.row(&mut tx, 1).await;
    tx.commit().await.expect("saved");
}

/// Whether that is said of `forgets`.
fn forgot(finding: &Finding) -> bool {
    finding.kind == Kind::LostWrites && finding.to_string().contains("POST /forgets")
}

struct Ground {
    bench: Bench,
    pool: SqlitePool,
    book: Book,
    addr: std::net::SocketAddr,
    _db: TestDb,
}

impl Ground {
    async fn new() -> Self {
        let bench = Bench::new(patient().detail(Detail::Backtrace));
        let db = sqlite_database().await;
        let pool = bench.open_pool::<Sqlite>(&db, 1, PATIENCE).await;
        let book = Book::new(&pool).await;
        let app = Router::new()
            .route("/upload", post(upload))
            .route("/panics", post(panics))
            .route("/panics-in-its-body", post(panics_in_its_body))
            .route("/fails-in-its-body", post(fails_in_its_body))
            .route("/forgets", post(forgets))
            .route("/fine", post(fine))
            .layer(bench.monitor.layer())
            .layer(CatchPanicLayer::new())
            .with_state((pool.clone(), book.clone()));
        let addr = serve(app).await;
        Self {
            bench,
            pool,
            book,
            addr,
            _db: db,
        }
    }

    /// A finding that must not come has no moment. So somebody else does what is one: it is all that
    /// is said, and whatever was to be said of the requests before it was said before it.
    async fn tells_of_nobody_but_who_forgets(&self) {
        let answer = ask(self.addr, "POST /forgets").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let findings = &self.bench.findings;
        findings
            .wait_for("the lost writes", PATIENCE, |said| {
                said.iter().find(|said| forgot(said)).map(drop)
            })
            .await;
        let said = findings.all();
        assert!(said.iter().all(forgot), "{said:#?}");
    }

    /// The one request ended, everything is back, and so many rows were saved.
    async fn ends_with(&self, rows: i64) -> leaktrace::RequestCounts {
        let counts = eventually("ended", PATIENCE, async || {
            let counts = self.bench.monitor.requests();
            let ended = counts.completed + counts.cancelled + counts.panicked + counts.errored;
            (ended == 1).then_some(counts)
        })
        .await;
        back_and_silent(&self.bench, &self.pool).await;
        assert_eq!(self.book.rows(&self.pool).await, rows);
        counts
    }
}

/// Over HTTP/1.1 the handler is not dropped: it reads an error, and decides.
#[tokio::test]
async fn an_upload_that_breaks_off_midway_is_rolled_back() {
    let ground = Ground::new().await;
    let client = Client::upload(ground.addr, "POST /upload", 1_000, "half of it").await;
    ground.book.has_written(1).await;
    assert_eq!(ground.pool.status().held, 1);
    client.leave().await;
    ground.ends_with(0).await;
}

#[tokio::test]
async fn an_upload_that_ends_is_saved() {
    let ground = Ground::new().await;
    let client = Client::upload(ground.addr, "POST /upload", 9, "all of it").await;
    assert!(client.answer().await.starts_with("HTTP/1.1 200"));
    assert_eq!(ground.ends_with(1).await.completed, 1);
}

#[tokio::test]
async fn a_handler_that_panics_is_rolled_back_and_nobody_is_told_of_a_leak() {
    let ground = Ground::new().await;
    let answer = ask(ground.addr, "POST /panics").await;
    assert!(answer.starts_with("HTTP/1.1 500"), "{answer}");
    assert_eq!(ground.ends_with(0).await.panicked, 1);
    ground.tells_of_nobody_but_who_forgets().await;
}

#[tokio::test]
async fn a_body_that_panics_is_rolled_back_and_nobody_is_told_of_a_leak() {
    let ground = Ground::new().await;
    // Whether the head is sent before the panic breaks the connection is not certain.
    let client = Client::send(ground.addr, "POST /panics-in-its-body").await;
    assert_eq!(ground.ends_with(0).await.panicked, 1);
    drop(client);
    ground.tells_of_nobody_but_who_forgets().await;
}

#[tokio::test]
async fn a_body_that_fails_is_rolled_back_and_nobody_is_told_of_a_leak() {
    let ground = Ground::new().await;
    let client = Client::send(ground.addr, "POST /fails-in-its-body").await;
    assert_eq!(ground.ends_with(0).await.errored, 1);
    drop(client);
    ground.tells_of_nobody_but_who_forgets().await;
}

#[tokio::test]
async fn a_handler_that_does_not_panic_is_saved() {
    let ground = Ground::new().await;
    let answer = ask(ground.addr, "POST /fine").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(ground.ends_with(1).await.completed, 1);
}
