//! What a request was doing on its connection when its client left: counted, and not a word said.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use leaktrace::{Activity, CancelCounts, Cut, Detail, Finding, Kind, PgPool, Phase, Scope};
use tokio::sync::Semaphore;

use crate::bench::{Bench, PATIENCE, assert_names, millis, quick};
use crate::support::db::postgres_database;
use crate::support::observer::PgObserver;
use crate::support::{Proxy, TestDb, eventually};
use crate::web::{Client, GRACE, ask, serve};

#[derive(Clone)]
struct Context {
    pool: PgPool,
    gate: Arc<Semaphore>,
}

async fn idle(State(context): State<Context>) {
    let _conn = context.pool.acquire().await.expect("free");
    context.gate.acquire().await.expect("open").forget();
}

async fn begins(State(context): State<Context>) {
    context.pool.begin().await.expect("begun");
}

async fn statement(State(context): State<Context>) {
    let slow = sqlx::query("SELECT pg_sleep(1)").execute(&context.pool);
    slow.await.expect("a row");
}

async fn commits(State(context): State<Context>) {
    let mut tx = context.pool.begin().await.expect("begun");
    let query = sqlx::query("SELECT 1");
    query.execute(&mut *tx).await.expect("a row");
    context.gate.acquire().await.expect("open").forget();
    tx.commit().await.expect("saved");
}

/// Runs until the server is told to end it: [`Service::is_back`].
const ENDLESS: &str = "SELECT pg_sleep(600)";

async fn endless(State(context): State<Context>) {
    let slow = sqlx::query(ENDLESS).execute(&context.pool);
    slow.await.expect("a row");
}

async fn raw(State(context): State<Context>) {
    let mut conn = context.pool.acquire().await.expect("free");
    let lent: &mut sqlx::PgConnection = &mut conn;
    let slow = sqlx::query(ENDLESS).execute(lent);
    slow.await.expect("a row");
}

/// A task takes the connection along, and its request waits for it.
async fn spawns(State(context): State<Context>) {
    let conn = context.pool.acquire().await.expect("free");
    let task = tokio::spawn(async move {
        context.gate.acquire().await.expect("open").forget();
        drop(conn);
    });
    task.await.expect("no panic");
}

async fn nothing(State(context): State<Context>) {
    context.gate.acquire().await.expect("open").forget();
}

struct Service {
    bench: Bench,
    pool: PgPool,
    gate: Arc<Semaphore>,
    proxy: Proxy,
    addr: std::net::SocketAddr,
    db: TestDb,
}

impl Service {
    async fn start() -> Option<Self> {
        let db = postgres_database().await?;
        // Waiting for a cut statement to end is no exhaustion here.
        let config = quick().wait(PATIENCE).grace(GRACE);
        let bench = Bench::new(config.detail(Detail::Backtrace));
        let proxy = Proxy::start(&db.url);
        let pool = leaktrace::PgPoolOptions::new()
            .monitor(&bench.monitor)
            .max_connections(1)
            // A ping would meet the silence first.
            .test_before_acquire(false)
            .connect(&proxy.url(&db.url))
            .await
            .expect("a server");
        let gate = Arc::new(Semaphore::new(0));
        let app = Router::new()
            .route("/idle", get(idle))
            .route("/begins", get(begins))
            .route("/statement", get(statement))
            .route("/endless", get(endless))
            .route("/commits", get(commits))
            .route("/raw", get(raw))
            .route("/nothing", get(nothing))
            .route("/spawns", get(spawns))
            .layer(bench.monitor.layer())
            .with_state(Context {
                pool: pool.clone(),
                gate: gate.clone(),
            });
        let addr = serve(app).await;
        Some(Self {
            bench,
            pool,
            gate,
            proxy,
            addr,
            db,
        })
    }

    /// Waits until the request holds a connection in that state.
    async fn until(&self, is_it: impl Fn(&Activity) -> bool) {
        eventually("in that state", PATIENCE, async || {
            let holders = self.bench.monitor.holders();
            holders
                .first()
                .is_some_and(|holder| is_it(&holder.activity))
        })
        .await;
    }

    /// The first finding of this kind.
    async fn said(&self, kind: Kind) -> Finding {
        let is_it = |finding: &&Finding| finding.kind == kind;
        let findings = &self.bench.findings;
        findings
            .wait_for(kind.as_str(), PATIENCE, |findings| {
                findings.iter().find(is_it).cloned()
            })
            .await
    }

    /// The server ends what it still runs, and the connection comes back.
    async fn is_back(&self) {
        let mut observer = PgObserver::watch(&self.db).await;
        let end_statements = async {
            loop {
                for backend in observer.backends().await {
                    // Whether it has begun by now, or was there at all, is not certain.
                    if backend.query == ENDLESS {
                        observer.cancel(backend.pid).await;
                    }
                }
                tokio::time::sleep(millis(20)).await;
            }
        };
        tokio::select! {
            back = self.pool.acquire() => drop(back.expect("back")),
            () = end_statements => {}
        }
    }

    async fn cut(&self, client: Client) -> CancelCounts {
        client.leave().await;
        eventually("cut", PATIENCE, async || {
            self.bench.monitor.requests().cancelled == 1
        })
        .await;
        self.proxy.resume();
        // And the pool is as good as new.
        self.is_back().await;
        assert!(
            self.bench.findings.is_empty(),
            "{:?}",
            self.bench.findings.all()
        );
        self.bench.monitor.cancelled()
    }
}

fn in_flight(activity: &Activity) -> bool {
    matches!(activity, Activity::InFlight { .. })
}

fn total(counts: &CancelCounts) -> u64 {
    counts.idle + counts.begin + counts.statement + counts.commit + counts.rollback + counts.lent
}

#[tokio::test]
async fn idle_with_a_connection() {
    let Some(service) = Service::start().await else {
        return;
    };
    let client = Client::send(service.addr, "GET /idle").await;
    service
        .until(|activity| matches!(activity, Activity::Idle { .. }))
        .await;
    let counts = service.cut(client).await;
    assert_eq!((counts.idle, total(&counts)), (1, 1));
}

#[tokio::test]
async fn in_begin() {
    let Some(service) = Service::start().await else {
        return;
    };
    service.proxy.stall();
    let client = Client::send(service.addr, "GET /begins").await;
    service.until(in_flight).await;
    let counts = service.cut(client).await;
    assert_eq!((counts.begin, total(&counts)), (1, 1));
}

#[tokio::test]
async fn in_a_statement() {
    let Some(service) = Service::start().await else {
        return;
    };
    let client = Client::send(service.addr, "GET /endless").await;
    service.until(in_flight).await;
    let counts = service.cut(client).await;
    assert_eq!((counts.statement, total(&counts)), (1, 1));
}

#[tokio::test]
async fn in_what_runs_on_a_raw_connection() {
    let Some(service) = Service::start().await else {
        return;
    };
    let client = Client::send(service.addr, "GET /raw").await;
    service
        .until(|activity| matches!(activity, Activity::Unknown { .. }))
        .await;
    let counts = service.cut(client).await;
    assert_eq!((counts.lent, total(&counts)), (1, 1));
}

#[tokio::test]
async fn in_commit() {
    let Some(service) = Service::start().await else {
        return;
    };
    let client = Client::send(service.addr, "GET /commits").await;
    eventually("its statement is done", PATIENCE, async || {
        let holders = service.bench.monitor.holders();
        holders.first().is_some_and(|holder| {
            holder.uses == 1 && matches!(holder.activity, Activity::Idle { .. })
        })
    })
    .await;
    service.proxy.stall();
    service.gate.add_permits(1);
    service.until(in_flight).await;
    client.leave().await;
    eventually("cut", PATIENCE, async || {
        service.bench.monitor.requests().cancelled == 1
    })
    .await;
    service.proxy.resume();
    let counts = service.bench.monitor.cancelled();
    assert_eq!((counts.commit, total(&counts)), (1, 1));
    service.pool.acquire().await.expect("back");
    let unknown = service.said(Kind::CommitUnknown).await;
    assert_eq!(unknown.holders[0].cut, Some(Cut::Commit), "{unknown}");
    assert_names(&unknown.headline, &["its request was cut while in COMMIT"]);
}

#[tokio::test]
async fn on_its_way_back_and_in_returned_late_it_says_in_what_it_was_cut() {
    let Some(service) = Service::start().await else {
        return;
    };
    service.bench.monitor.set_threshold(millis(200));
    let client = Client::send(service.addr, "GET /endless").await;
    let held = service.said(Kind::HeldTooLong).await;
    assert_eq!(held.holders[0].cut, None, "not yet: {held}");
    client.leave().await;
    let back = service.said(Kind::ReturnedLate).await;
    assert_eq!(back.id, held.id);
    assert_eq!(back.holders[0].cut, Some(Cut::Statement), "{back}");
    let words = "its request was cut while in a statement";
    assert_names(&back.headline, &[words]);
    assert_names(
        &back.to_string(),
        &["serving    GET /endless; cut while in a statement"],
    );
    // The server sleeps on: so does the connection, on its way back.
    if let Some(holder) = service.bench.monitor.holders().first() {
        assert_eq!(
            (holder.phase, holder.cut),
            (Phase::Returning, Some(Cut::Statement))
        );
    }
    service.is_back().await;
}

#[tokio::test]
async fn what_is_held_on_by_a_task_says_that_its_request_was_cut() {
    let Some(service) = Service::start().await else {
        return;
    };
    let client = Client::send(service.addr, "GET /spawns").await;
    service
        .until(|activity| matches!(activity, Activity::Idle { .. }))
        .await;
    client.leave().await;
    let outlived = service.said(Kind::OutlivedRequest).await;
    assert_eq!(outlived.holders[0].cut, Some(Cut::Idle), "{outlived}");
    assert_names(
        &outlived.headline,
        &["its request was cut while no statement ran"],
    );
    service.gate.add_permits(1);
}

#[tokio::test]
async fn what_comes_back_late_from_a_request_that_completes_was_not_cut() {
    let Some(service) = Service::start().await else {
        return;
    };
    service.bench.monitor.set_threshold(millis(200));
    let answer = ask(service.addr, "GET /statement").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let back = service.said(Kind::ReturnedLate).await;
    assert_eq!(back.holders[0].cut, None, "{back}");
    assert!(!back.to_string().contains("cut while"), "{back}");
}

#[tokio::test]
async fn a_request_that_holds_nothing_is_counted_as_cancelled_alone() {
    let Some(service) = Service::start().await else {
        return;
    };
    // Somebody else's connection is none of it.
    let other = Scope::new("other").run(service.pool.acquire()).await;
    let client = Client::send(service.addr, "GET /nothing").await;
    eventually("it is there", PATIENCE, async || {
        service.bench.monitor.requests() == leaktrace::RequestCounts::default()
    })
    .await;
    drop(other);
    let counts = service.cut(client).await;
    assert_eq!(total(&counts), 0);
}

#[tokio::test]
async fn a_request_that_completes_is_no_cut() {
    let Some(service) = Service::start().await else {
        return;
    };
    for path in ["begins", "statement"] {
        let answer = ask(service.addr, &format!("GET /{path}")).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    assert_eq!(service.bench.monitor.cancelled(), CancelCounts::default());
}
