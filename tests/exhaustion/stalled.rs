//! `stalled`: the runtime does not run what it is given, and no holder is to blame.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use leaktrace::{CauseKind, Detail, Kind, Scope, SqlitePool};
use sqlx::Sqlite;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

use crate::bench::{Bench, PATIENCE, assert_names, quick};
use crate::support::db::{TestDb, sqlite_database};
use crate::support::eventually::eventually_blocking;

/// As many as the runtime has workers.
const WORKERS: usize = 2;
/// Far beyond the threshold, which is long enough for the probe to be late by then.
const WORK: Duration = Duration::from_secs(8);

#[derive(Clone)]
struct Context {
    pool: SqlitePool,
    /// Opened when everybody has arrived.
    gate: Arc<Semaphore>,
    blocks: bool,
}

/// Holds a connection while it renders, on the worker itself or as it should.
async fn pdf(State(context): State<Context>) {
    let _conn = context.pool.acquire().await.expect("in time");
    context.gate.acquire().await.expect("open").forget();
    match context.blocks {
        true => std::thread::sleep(WORK),
        false => tokio::time::sleep(WORK).await,
    }
}

async fn orders(State(context): State<Context>) {
    context.pool.acquire().await.expect("in time");
}

/// A service on a runtime of its own, with a request for `/pdf` on each worker.
struct Service {
    bench: Bench,
    pool: SqlitePool,
    gate: Arc<Semaphore>,
    addr: SocketAddr,
    clients: Vec<std::thread::JoinHandle<()>>,
    runtime: Runtime,
    _db: TestDb,
}

impl Service {
    fn start(blocks: bool, bench: Bench) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .enable_all()
            .build()
            .expect("a runtime");
        let (db, pool, gate, addr) = runtime.block_on(async {
            let db = sqlite_database().await;
            let pool = bench.pool::<Sqlite>(&db, WORKERS as u32, PATIENCE);
            let gate = Arc::new(Semaphore::new(0));
            let app = Router::new()
                .route("/pdf", post(pdf))
                .route("/orders", get(orders))
                .layer(bench.monitor.layer())
                .with_state(Context {
                    pool: pool.clone(),
                    gate: gate.clone(),
                    blocks,
                });
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
            let listener = listener.expect("a port");
            let addr = listener.local_addr().expect("bound");
            tokio::spawn(async move { axum::serve(listener, app).await });
            (db, pool, gate, addr)
        });
        let mut service = Self {
            bench,
            pool,
            gate,
            addr,
            clients: Vec::new(),
            runtime,
            _db: db,
        };
        for _ in 0..WORKERS {
            service.ask("POST /pdf");
        }
        eventually_blocking("both hold one", PATIENCE, || {
            service.pool.status().held == WORKERS as u32
        });
        service
    }

    fn ask(&mut self, line: &'static str) {
        let addr = self.addr;
        self.clients.push(std::thread::spawn(move || {
            let mut socket = TcpStream::connect(addr).expect("the server listens");
            let head = format!(
                "{line} HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            );
            socket.write_all(head.as_bytes()).expect("sent");
            let mut answer = String::new();
            socket.read_to_string(&mut answer).expect("an answer");
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }));
    }

    fn open_the_gate(&self) {
        self.gate.add_permits(WORKERS);
    }

    fn end(self) {
        for client in self.clients {
            client.join().expect("an answer");
        }
        self.runtime.shutdown_background();
    }
}

fn overdue() -> Bench {
    Bench::new(
        quick()
            .detail(Detail::Backtrace)
            .threshold(Duration::from_secs(2)),
    )
}

#[test]
fn an_overdue_holder_is_reported_with_the_blocking_call_and_without_advice() {
    let service = Service::start(true, overdue());
    service.open_the_gate();
    let finding = service
        .bench
        .findings
        .wait_for_blocking("overdue", PATIENCE, |findings| {
            findings
                .iter()
                .find(|finding| finding.kind == Kind::HeldTooLong)
                .cloned()
        });
    let words = [
        "no worker ran our probe for",
        "POST /pdf has been inside one poll for",
        "(blocking call)",
    ];
    assert!(finding.headline.starts_with("no worker ran"), "{finding}");
    assert_names(&finding.headline, &words);
    assert_names(finding.runtime.as_deref().unwrap_or_default(), &words);
    assert_eq!(finding.remedy, None);
    assert!(!finding.to_string().contains("likely"), "{finding}");
    let report = service.bench.monitor.report();
    assert_names(report.runtime.as_deref().unwrap_or_default(), &words);
    let text = report.to_string();
    assert!(text.starts_with("leaktrace: runtime no worker"), "{text}");
    service.end();
}

#[test]
fn whoever_waits_learns_that_the_runtime_is_blocked() {
    let mut service = Service::start(true, Bench::quick());
    service.ask("GET /orders");
    eventually_blocking("one waits", PATIENCE, || service.pool.status().waiting == 1);
    service.open_the_gate();
    let finding = service
        .bench
        .findings
        .wait_for_blocking("stalled", PATIENCE, |findings| {
            findings
                .iter()
                .find(|finding| finding.kind == Kind::Exhausted)
                .cloned()
        });
    assert_eq!(finding.causes[0].kind, CauseKind::Stalled, "{finding}");
    assert_names(
        &finding.headline,
        &[
            "stalled 2",
            "no worker ran our probe",
            "POST /pdf has been inside one poll",
        ],
    );
    assert!(!finding.to_string().contains("likely"), "{finding}");
    service.end();
}

#[test]
fn the_same_work_that_yields_is_no_stall() {
    let mut service = Service::start(false, overdue());
    service.ask("GET /orders");
    service.open_the_gate();
    let findings = service.bench.findings.clone();
    for kind in [Kind::HeldTooLong, Kind::Exhausted] {
        let finding = findings.wait_for_blocking("both", PATIENCE, |findings| {
            findings
                .iter()
                .find(|finding| finding.kind == kind)
                .cloned()
        });
        assert_eq!(finding.runtime, None, "{finding}");
    }
    service.bench.never_said(&[CauseKind::Stalled]);
    service.end();
}

#[test]
fn one_blocked_worker_of_two_is_no_stall() {
    let service = Service::start(
        true,
        Bench::new(
            quick()
                .detail(Detail::Backtrace)
                .threshold(Duration::from_secs(1)),
        ),
    );
    // One goes on and blocks, the other waits at the gate, as it should.
    service.gate.add_permits(1);
    let finding = service
        .bench
        .findings
        .wait_for_blocking("overdue", PATIENCE, |findings| {
            findings
                .iter()
                .find(|finding| finding.kind == Kind::HeldTooLong)
                .cloned()
        });
    assert_eq!(finding.runtime, None, "{finding}");
    service.gate.add_permits(1);
    service.end();
}

/// A job that blocks the only worker, while a checkout becomes overdue: what the report says of the
/// runtime.
fn blocked_by(job: impl FnOnce(Scope) -> tokio::task::JoinHandle<()>) -> String {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let bench = overdue();
    let _entered = runtime.enter();
    let (_db, held) = runtime.block_on(async {
        let db = sqlite_database().await;
        let pool = bench.pool::<Sqlite>(&db, 1, PATIENCE);
        let held = pool.acquire().await.expect("free");
        (db, held)
    });
    let job = job(Scope::new("nightly invoices"));
    let finding = bench
        .findings
        .wait_for_blocking("overdue", PATIENCE, |findings| {
            findings
                .iter()
                .find(|finding| finding.kind == Kind::HeldTooLong)
                .cloned()
        });
    runtime.block_on(job).expect("no panic");
    drop(held);
    finding.headline
}

#[test]
fn a_job_that_blocks_is_named_as_a_request_is() {
    let headline = blocked_by(|scope| {
        tokio::spawn(async move { scope.run(async { std::thread::sleep(WORK) }).await })
    });
    assert_names(
        &headline,
        &[
            "nightly invoices has been inside one poll for",
            "(blocking call)",
        ],
    );
}

#[test]
fn a_task_that_carries_a_scope_and_blocks_is_named_too() {
    let headline = blocked_by(|scope| {
        tokio::spawn(async move {
            let carried = scope.run(async { Scope::current().expect("a scope") });
            let carried = carried.await;
            carried.run(async { std::thread::sleep(WORK) }).await;
        })
    });
    assert_names(
        &headline,
        &["nightly invoices has been inside one poll for"],
    );
}

#[test]
fn a_job_that_waits_is_not_named_when_somebody_else_blocks() {
    let headline = blocked_by(|scope| {
        tokio::spawn(scope.run(tokio::time::sleep(WORK)));
        tokio::spawn(async {
            // The other one is inside of no poll by now.
            tokio::task::yield_now().await;
            std::thread::sleep(WORK);
        })
    });
    assert_names(&headline, &["no worker ran our probe for"]);
    assert!(!headline.contains("nightly invoices"), "{headline}");
}

/// Several runtimes in one process are common: one for requests, one for heavy work.
#[test]
fn a_job_that_blocks_another_runtime_is_not_named() {
    let elsewhere = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .expect("a runtime");
    let (begun, begins) = std::sync::mpsc::channel();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let job = elsewhere.spawn(async move {
        let job = Scope::new("monthly balance");
        job.run(async move {
            begun.send(()).expect("the test waits");
            released.recv().expect("the test ends");
        })
        .await;
    });
    begins.recv_timeout(PATIENCE).expect("it runs");
    let headline = blocked_by(|_| tokio::spawn(async { std::thread::sleep(WORK) }));
    assert!(!job.is_finished(), "inside of one poll all along");
    release.send(()).expect("it waits");
    elsewhere.block_on(job).expect("no panic");
    assert_names(&headline, &["no worker ran our probe for"]);
    assert!(!headline.contains("monthly balance"), "{headline}");
}
