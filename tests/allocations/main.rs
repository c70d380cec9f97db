//! What a checkout allocates at `backtrace`, in a request of the layer, a span and a scope: nothing
//! that raw sqlx does not.
//!
//! Counted on this thread: the runtime has no other, and what other threads of leaktrace do is not
//! on anybody's path.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use allocation_counter::measure;
use futures::FutureExt;
use leaktrace::{Config, Detail, Monitor, Scope};
use sqlx::Sqlite;
use sqlx::sqlite::SqlitePoolOptions;
use tokio::runtime::{Builder, Runtime};
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
use tracing::Instrument;

fn one_thread() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

async fn raw_pool() -> sqlx::Pool<Sqlite> {
    SqlitePoolOptions::new()
        .max_connections(2)
        .test_before_acquire(false)
        .connect("sqlite::memory:")
        .await
        .expect("SQLite")
}

/// A pool, raw or watched.
#[derive(Clone)]
enum Subject {
    Raw(sqlx::Pool<Sqlite>),
    Watched(leaktrace::Pool<Sqlite>, sqlx::Pool<Sqlite>),
}

impl Subject {
    async fn raw() -> Self {
        Self::Raw(raw_pool().await)
    }

    async fn watched(detail: Detail) -> Self {
        let raw = raw_pool().await;
        let monitor = Monitor::new(Config::default().detail(detail));
        Self::Watched(monitor.watch("counted", raw.clone()), raw)
    }

    /// How often acquire and drop allocate.
    fn checkout(&self) -> u64 {
        let counted = measure(|| match self {
            Self::Raw(pool) => drop(pool.acquire().now_or_never().expect("one is idle")),
            Self::Watched(pool, _) => drop(pool.acquire().now_or_never().expect("one is idle")),
        });
        counted.count_total
    }

    async fn back(&self) {
        let (Self::Raw(raw) | Self::Watched(_, raw)) = self;
        while raw.num_idle() == 0 {
            tokio::task::yield_now().await;
        }
    }
}

/// How often the first, the 100th and the 1 000th checkout allocate, each in a request, a span and a
/// scope of its own.
fn in_requests(monitor: &Monitor, subject: &Subject) -> [u64; 3] {
    let mut counts = Vec::new();
    let subscriber = tracing_subscriber::registry();
    tracing::subscriber::with_default(subscriber, || {
        one_thread_of(async {
            for _ in 0..1_000 {
                let inner = subject.clone();
                let handler = service_fn(move |_: http::Request<()>| {
                    let subject = inner.clone();
                    async move {
                        assert!(Scope::current().is_some());
                        let count = subject.checkout();
                        subject.back().await;
                        Ok::<_, std::convert::Infallible>(http::Response::new(count.to_string()))
                    }
                    .instrument(tracing::info_span!("handler"))
                });
                let mut service = ServiceBuilder::new()
                    .layer(monitor.layer())
                    .service(handler);
                let service = service.ready().await.expect("always ready");
                let request = http::Request::new(());
                let answer = service.call(request).await.expect("never fails");
                let body = http_body_util::BodyExt::collect(answer.into_body());
                let bytes = body.await.expect("a body").to_bytes();
                let count = String::from_utf8_lossy(&bytes).parse().expect("a count");
                counts.push(count);
            }
        });
    });
    [counts[0], counts[99], counts[999]]
}

fn one_thread_of<T>(work: impl Future<Output = T>) -> T {
    RUNTIME.with(|runtime| runtime.block_on(work))
}

thread_local! {
    static RUNTIME: Runtime = one_thread();
}

#[test]
fn a_checkout_at_backtrace_allocates_what_raw_sqlx_does() {
    let monitor = Monitor::new(Config::default().detail(Detail::Backtrace));
    let (raw, watched) = one_thread_of(async {
        let raw = raw_pool().await;
        let watched = monitor.watch("counted", raw.clone());
        (Subject::raw().await, Subject::Watched(watched, raw))
    });
    let raw = in_requests(&monitor, &raw);
    let ours = in_requests(&monitor, &watched);
    println!(
        "allocations of the first, 100th and 1 000th checkout: raw {raw:?}, leaktrace {ours:?}"
    );
    assert!(
        ours[0] < raw[0] + 64,
        "the first makes its cell and keeps its stack"
    );
    assert_eq!(ours[1..], raw[1..]);
}

/// The same with the way back: from the acquire until the connection is idle again.
#[test]
fn the_way_back_allocates_what_that_of_raw_sqlx_does() {
    const TIMES: u64 = 100;
    let whole = |subject: &Subject| {
        let cycles = |times| {
            one_thread_of(async {
                for _ in 0..times {
                    let _ = subject.checkout();
                    subject.back().await;
                }
            });
        };
        cycles(10);
        measure(|| cycles(TIMES)).count_total
    };
    for detail in [Detail::Off, Detail::Location, Detail::Backtrace] {
        let (raw, watched) =
            one_thread_of(async { (Subject::raw().await, Subject::watched(detail).await) });
        let (raw, ours) = (whole(&raw), whole(&watched));
        println!("allocations of {TIMES} checkouts and returns: raw {raw}, {detail} {ours}");
        assert!(ours <= raw + TIMES / 10, "{detail}: {ours}, raw {raw}");
    }
}

#[test]
fn nothing_is_added_while_stacks_are_named() {
    let stop = Arc::new(AtomicBool::new(false));
    let until = Arc::clone(&stop);
    let naming = std::thread::spawn(move || {
        let mut named = 0;
        while !until.load(Ordering::Relaxed) || named == 0 {
            named += one_thread().block_on(name_a_stack());
        }
        named
    });
    let (raw, watched) = one_thread_of(async {
        (
            Subject::raw().await,
            Subject::watched(Detail::Backtrace).await,
        )
    });
    let mut counts = Vec::new();
    for subject in [&raw, &watched] {
        one_thread_of(async {
            for _ in 0..200 {
                counts.push(subject.checkout());
                subject.back().await;
            }
        });
    }
    stop.store(true, Ordering::Relaxed);
    assert!(naming.join().expect("naming does not panic") > 0);
    assert_eq!(counts[100..200], counts[300..400]);
}

async fn name_a_stack() -> usize {
    let Subject::Watched(pool, _) = Subject::watched(Detail::Backtrace).await else {
        return 0;
    };
    let conn = pool.acquire().await.expect("a connection");
    let named = pool
        .holders()
        .iter()
        .filter_map(|holder| Some(holder.stack.as_ref()?.frames().len()))
        .count();
    conn.release().await;
    named
}
