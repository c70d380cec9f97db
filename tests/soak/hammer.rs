//! A service on axum, hammered over loopback by clients that leave: before the answer, in its
//! middle, in the middle of their own upload. Some read to the end.
//!
//! At the end nothing is out, all places of the pool can be had and are clean, whoever was told 200
//! has both of their rows, nobody has one of them, and the server never had more backends of this
//! pool than it has places.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use futures::{StreamExt, TryStreamExt};
use leaktrace::{CauseKind, Config, Detail, Finding, Kind, Monitor};
use sqlx::{Connection, Row};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::stage::{LONG, Stage};
use crate::support::{Capture, Db, Observer, eventually};
use crate::{Random, figures, set};

const PLACES: u32 = 10;
const CLIENTS: u64 = 12;

/// Of one upload, in bytes.
const UPLOAD: usize = 40_000;

/// How long a connection above the pool's number may be seen: one that the client has closed is on
/// the server until that has read so.
const CLOSING: Duration = Duration::from_secs(1);

fn length() -> Duration {
    Duration::from_secs(set("LEAKTRACE_SOAK_SECONDS").unwrap_or(15))
}

#[derive(Default)]
struct Seen {
    /// Who was told 200.
    told: Mutex<Vec<i64>>,
    next_id: AtomicI64,
    whole: AtomicU64,
    before: AtomicU64,
    during: AtomicU64,
    uploading: AtomicU64,
}

/// How a client leaves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leaves {
    Never,
    BeforeTheAnswer,
    DuringTheAnswer,
    DuringTheUpload,
}

/// Asks once, and leaves as it was told to. Fails when a whole answer is not what it must be.
async fn ask(addr: SocketAddr, seen: &Seen, random: &mut Random) -> std::io::Result<()> {
    let id = seen.next_id.fetch_add(1, Ordering::Relaxed);
    let (route, writes) = match random.below(14) {
        0..=4 => ("order", true),
        5..=6 => ("nested", true),
        7 => ("text", true),
        8 => ("lent", true),
        9 => ("pooled", false),
        10..=11 => ("rows", false),
        _ => ("upload", true),
    };
    let leaves = match random.below(10) {
        0..=2 => Leaves::Never,
        _ if route == "rows" => Leaves::DuringTheAnswer,
        _ if route == "upload" => Leaves::DuringTheUpload,
        _ => Leaves::BeforeTheAnswer,
    };
    let mut socket = TcpStream::connect(addr).await?;
    let length = if route == "upload" { UPLOAD } else { 0 };
    let head = format!(
        "POST /{route}/{id} HTTP/1.1\r\nhost: test\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await?;
    let mut body = vec![b'x'; length];
    if leaves == Leaves::DuringTheUpload {
        body.truncate(random.below(UPLOAD as u64) as usize);
    }
    socket.write_all(&body).await?;
    let wait = Duration::from_micros(random.below(60_000));
    match leaves {
        Leaves::Never => {
            let mut answer = Vec::new();
            socket.read_to_end(&mut answer).await?;
            let answer = String::from_utf8_lossy(&answer);
            assert!(answer.starts_with("HTTP/1.1 200"), "{route}: {answer:.200}");
            if route == "rows" {
                assert!(answer.ends_with("\r\n0\r\n\r\n"), "the whole of it");
            }
            seen.whole.fetch_add(1, Ordering::Relaxed);
            if writes {
                seen.told.lock().expect("no panic").push(id);
            }
            return Ok(());
        }
        Leaves::BeforeTheAnswer => {
            tokio::time::sleep(wait).await;
            seen.before.fetch_add(1, Ordering::Relaxed);
        }
        Leaves::DuringTheAnswer => {
            let mut piece = vec![0; 4096];
            let read = socket.read(&mut piece).await?;
            assert!(piece[..read].starts_with(b"HTTP/1.1 200"));
            tokio::time::sleep(wait).await;
            seen.during.fetch_add(1, Ordering::Relaxed);
        }
        Leaves::DuringTheUpload => {
            tokio::time::sleep(wait).await;
            seen.uploading.fetch_add(1, Ordering::Relaxed);
        }
    }
    if random.below(2) == 0 {
        // A reset in place of an end.
        socket.set_zero_linger()?;
    }
    Ok(())
}

/// What the server said of its backends while it was hammered.
#[derive(Debug, Default)]
struct Backends {
    /// Those that the pool opened.
    most: usize,
    /// With those that ask about others, or are just being opened.
    most_of_all: usize,
    samples: usize,
    /// How many samples had more than the pool has places, and for how long without a break.
    above: usize,
    above_since: Option<Instant>,
    longest_above: Duration,
}

impl Backends {
    async fn look(&mut self, observer: &mut Observer, of_pool: &Mutex<HashSet<i64>>) {
        let ids: Vec<i64> = match observer {
            Observer::Postgres(observer) => {
                let backends = observer.backends().await;
                backends.iter().map(|each| i64::from(each.pid)).collect()
            }
            Observer::MySql(observer) => {
                let threads = observer.threads().await;
                threads.iter().map(|each| each.id).collect()
            }
            Observer::Sqlite(_) => unreachable!("it has no server"),
        };
        let of_pool = of_pool.lock().expect("no panic");
        let own = ids.iter().filter(|id| of_pool.contains(id)).count();
        drop(of_pool);
        self.samples += 1;
        self.most = self.most.max(own);
        self.most_of_all = self.most_of_all.max(ids.len());
        if own > PLACES as usize {
            self.above += 1;
            let since = *self.above_since.get_or_insert_with(Instant::now);
            self.longest_above = self.longest_above.max(since.elapsed());
        } else {
            self.above_since = None;
        }
    }
}

/// The service on one database.
macro_rules! service {
    ($name:ident, $db:ident, $sqlx:ty, pid: $pid:literal, sleep: $sleep:literal, insert: $insert:literal, rows: $rows:literal) => {
        mod $name {
            use super::*;

            pub(super) type Pool = leaktrace::Pool<$sqlx>;

            macro_rules! insert {
                ($id:expr, $part:literal, $to:expr) => {
                    sqlx::query($insert)
                        .bind($id)
                        .bind($part)
                        .execute($to)
                        .await?
                };
            }

            async fn order(pool: Pool, id: i64) -> Result<(), sqlx::Error> {
                let mut tx = pool.begin().await?;
                insert!(id, 1, &mut *tx);
                sqlx::query($sleep).execute(&mut *tx).await?;
                insert!(id, 2, &mut *tx);
                tx.commit().await
            }

            async fn nested(pool: Pool, id: i64) -> Result<(), sqlx::Error> {
                let mut tx = pool.begin().await?;
                insert!(id, 1, &mut *tx);
                let mut inner = tx.begin().await?;
                insert!(id, 2, &mut *inner);
                inner.commit().await?;
                tx.commit().await
            }

            async fn text(pool: Pool, id: i64) -> Result<(), sqlx::Error> {
                let mut conn = pool.acquire().await?;
                sqlx::raw_sql("BEGIN").execute(&mut *conn).await?;
                insert!(id, 1, &mut *conn);
                sqlx::query($sleep).execute(&mut *conn).await?;
                insert!(id, 2, &mut *conn);
                sqlx::raw_sql("COMMIT").execute(&mut *conn).await?;
                Ok(())
            }

            async fn lent(pool: Pool, id: i64) -> Result<(), sqlx::Error> {
                let mut conn = pool.acquire().await?;
                let raw = &mut **conn;
                let mut tx = raw.begin().await?;
                insert!(id, 1, &mut *tx);
                insert!(id, 2, &mut *tx);
                tx.commit().await
            }

            async fn pooled(pool: Pool, _: i64) -> Result<(), sqlx::Error> {
                sqlx::query($sleep).execute(&pool).await.map(drop)
            }

            async fn upload(
                State(pool): State<Pool>,
                Path(id): Path<i64>,
                body: Body,
            ) -> StatusCode {
                let work = async {
                    let mut tx = pool.begin().await?;
                    insert!(id, 1, &mut *tx);
                    let mut body = body.into_data_stream();
                    while let Some(piece) = body.next().await {
                        if piece.is_err() {
                            return Ok(StatusCode::BAD_REQUEST);
                        }
                    }
                    insert!(id, 2, &mut *tx);
                    tx.commit().await?;
                    Ok::<_, sqlx::Error>(StatusCode::OK)
                };
                work.await.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            }

            async fn rows(State(pool): State<Pool>) -> Body {
                let rows = async_stream::try_stream! {
                    let mut rows = sqlx::query($rows).fetch(&pool);
                    while let Some(row) = rows.try_next().await? {
                        yield row.get::<String, _>(0);
                    }
                };
                Body::from_stream(rows.map_err(|error: sqlx::Error| error))
            }

            macro_rules! route {
                ($work:ident) => {
                    post(|State(pool): State<Pool>, Path(id): Path<i64>| async move {
                        match $work(pool, id).await {
                            Ok(()) => (StatusCode::OK, String::new()),
                            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
                        }
                    })
                };
            }

            pub(super) fn app(pool: Pool, monitor: &Monitor) -> Router {
                Router::new()
                    .route("/order/{id}", route!(order))
                    .route("/nested/{id}", route!(nested))
                    .route("/text/{id}", route!(text))
                    .route("/lent/{id}", route!(lent))
                    .route("/pooled/{id}", route!(pooled))
                    .route("/upload/{id}", post(upload))
                    .route("/rows/{id}", get(rows).post(rows))
                    .layer(monitor.layer())
                    .with_state(pool)
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn clients_that_leave_at_random_leave_the_pool_clean_and_full_sized() {
                let Some(mut stage) = Stage::set(Db::$db).await else {
                    return;
                };
                // Slow enough to be cut in a begin or commit, which are over in no time on loopback.
                let network = stage.proxy.as_ref().expect("a network");
                network.delay(Duration::from_millis(1));
                let table = "CREATE TABLE parts (id BIGINT NOT NULL, part INT NOT NULL)";
                stage.observer.execute(table).await;
                let hammered = Hammered::new();
                let ids = Arc::clone(&hammered.ids);
                let pool: Pool = leaktrace::PoolOptions::new()
                    .monitor(&hammered.monitor)
                    .name("orders")
                    .max_connections(PLACES)
                    .acquire_timeout(LONG)
                    .return_limit(Duration::from_secs(1))
                    .after_connect(move |conn, _| {
                        let ids = Arc::clone(&ids);
                        Box::pin(async move {
                            let id: i64 = sqlx::query_scalar($pid).fetch_one(conn).await?;
                            ids.lock().expect("no panic").insert(id);
                            Ok(())
                        })
                    })
                    .connect(&stage.url)
                    .await
                    .expect("our pool");
                let app = app(pool.clone(), &hammered.monitor);
                let backends = hammered.run(app, &mut stage.observer).await;

                leaktrace::assert_no_leaks!(pool);
                let status = pool.status();
                assert_eq!(
                    (status.held, status.returning, status.waiting),
                    (0, 0, 0),
                    "{status:?}"
                );
                assert_eq!((status.orphaned, status.untracked), (0, 0));
                assert!(hammered.monitor.holders().is_empty());
                assert!(hammered.monitor.waiters().is_empty());
                let before = stage.rows().await;
                let mut all = Vec::new();
                for place in 0..PLACES {
                    let mut conn = pool.acquire().await.expect("no permit is lost");
                    let insert = sqlx::query("INSERT INTO t VALUES (1)");
                    insert.execute(&mut *conn).await.expect("a row");
                    assert_eq!(
                        stage.rows().await,
                        before + i64::from(place) + 1,
                        "clean: everybody sees it at once"
                    );
                    all.push(conn);
                }
                assert_eq!(pool.size(), PLACES);
                drop(all);
                let parts: Vec<(i64, i64)> =
                    sqlx::query_as("SELECT id, count(*) FROM parts GROUP BY id")
                        .fetch_all(&pool)
                        .await
                        .expect("the rows");
                leaktrace::assert_no_leaks!(pool);
                hammered.judge(Db::$db, parts.into_iter().collect(), &backends);
            }
        }
    };
}

/// What is the same on every database.
struct Hammered {
    monitor: Monitor,
    findings: Capture<Finding>,
    seen: Arc<Seen>,
    /// The backends that the pool has opened, by the server's name of them.
    ids: Arc<Mutex<HashSet<i64>>>,
}

impl Hammered {
    fn new() -> Self {
        let config = Config::default()
            .detail(Detail::Backtrace)
            // A busy machine, and more clients than connections: long waits are honest.
            .threshold(Duration::from_secs(30))
            .idle_in_transaction(Some(Duration::from_secs(30)))
            .wait(LONG);
        let monitor = Monitor::new(config);
        let findings = Capture::new();
        let sink = findings.clone();
        monitor.add_sink(move |finding: &Finding| sink.push(finding.clone()));
        Self {
            monitor,
            findings,
            seen: Arc::default(),
            ids: Arc::default(),
        }
    }

    async fn run(&self, app: Router, observer: &mut Observer) -> Backends {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("bound");
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serve = axum::serve(listener, app).with_graceful_shutdown(async {
            let _ = stopped.await;
        });
        let server = tokio::spawn(async move { serve.await });
        let until = Instant::now() + length();
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let seen = Arc::clone(&self.seen);
                tokio::spawn(async move {
                    let mut random = Random::new(client);
                    while Instant::now() < until {
                        let asked = ask(addr, &seen, &mut random).await;
                        asked.expect("the service is there");
                    }
                })
            })
            .collect();
        let mut backends = Backends::default();
        while Instant::now() < until {
            backends.look(observer, &self.ids).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for client in clients {
            client.await.expect("nobody is failed");
        }
        // Who left last may not have been noticed yet, or not even have been asked what it wants.
        drop(stop);
        let served = tokio::time::timeout(LONG, server).await;
        served
            .expect("every request ends")
            .expect("no panic")
            .expect("the service ended well");
        eventually("all is back", LONG, async || {
            let (open, waiting) = (self.monitor.holders(), self.monitor.waiters());
            (open.is_empty() && waiting.is_empty())
                .then_some(())
                .ok_or((open, waiting))
        })
        .await;
        backends
    }

    fn judge(&self, db: Db, parts: BTreeMap<i64, i64>, backends: &Backends) {
        let halves: Vec<_> = parts.iter().filter(|(_, count)| **count != 2).collect();
        assert!(halves.is_empty(), "not whole: {halves:?}");
        let told = self.seen.told.lock().expect("no panic").clone();
        let lost: Vec<_> = told.iter().filter(|id| !parts.contains_key(id)).collect();
        assert!(lost.is_empty(), "told 200, and not there: {lost:?}");

        let mut said: BTreeMap<&str, u64> = BTreeMap::new();
        for finding in self.findings.all() {
            *said.entry(finding.kind.as_str()).or_default() += finding.count;
            let line = finding
                .holders
                .first()
                .map(|holder| holder.acquired_by.clone());
            let provoked = match finding.kind {
                // A request that was cut in its commit, or between a BEGIN and a COMMIT of text.
                Kind::CommitUnknown | Kind::DirtyReturn => true,
                // MariaDB's driver, on a raw loan that was cut (docs/guarantees.md).
                Kind::StuckReturn => db == Db::MySql,
                Kind::Exhausted => finding.causes.iter().all(|cause| {
                    matches!(
                        cause.kind,
                        CauseKind::Saturated | CauseKind::Returning | CauseKind::Connecting
                    )
                }),
                _ => false,
            };
            assert!(provoked, "{line:?}: {finding}");
        }
        let seen = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let cuts = self.monitor.cancelled();
        let [before, during, uploading] =
            [&self.seen.before, &self.seen.during, &self.seen.uploading].map(seen);
        assert!(
            before
                .min(during)
                .min(uploading)
                .min(cuts.statement)
                .min(cuts.begin)
                > 0,
            "not hammered: {before} {during} {uploading} {cuts:?}"
        );
        figures(
            "hammer",
            db,
            &format!(
                "{} s; read to the end {}, left before the answer {before}, in it {during}, \
                 in the upload {uploading}; {} requests cut, in begin {}, statement {}, commit {}, raw loan {}; \
                 most backends {} of {PLACES} in {} samples, {} above, longest {} ms \
                 (with side connections {}); {} opened; said {said:?}",
                length().as_secs(),
                seen(&self.seen.whole),
                self.monitor.requests().cancelled,
                cuts.begin,
                cuts.statement,
                cuts.commit,
                cuts.lent,
                backends.most,
                backends.samples,
                backends.above,
                backends.longest_above.as_millis(),
                backends.most_of_all,
                self.ids.lock().expect("no panic").len(),
            ),
        );
        assert!(backends.samples > 10, "{backends:?}");
        assert!(backends.longest_above < CLOSING, "{backends:?}");
    }
}

service!(
    postgres,
    Postgres,
    sqlx::Postgres,
    pid: "SELECT pg_backend_pid()::int8",
    sleep: "SELECT pg_sleep(0.02)",
    insert: "INSERT INTO parts VALUES ($1, $2)",
    rows: "SELECT repeat('x', 1000), pg_sleep(0.0005) FROM generate_series(1, 60)"
);
service!(
    mariadb,
    MySql,
    sqlx::MySql,
    pid: "SELECT CAST(CONNECTION_ID() AS SIGNED)",
    sleep: "SELECT SLEEP(0.02)",
    insert: "INSERT INTO parts VALUES (?, ?)",
    rows: "SELECT REPEAT('x', 1000), SLEEP(0.0005) FROM seq_1_to_60"
);
