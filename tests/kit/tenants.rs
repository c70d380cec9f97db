//! Tenants on real row-level security: each sees its own rows, and nobody sees any without a tenant.
//!
//! First in each test stands a control: without `TenantPool` the same question shows foreign rows.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use leaktrace::kit::{PoolSettings, TenantError, TenantPool, VoidPolicies};
use leaktrace::{Config, DoomedTransaction, Monitor, PgPool};
use reqwest::Url;
use sqlx::{AssertSqlSafe, Connection, Error, PgConnection};

use crate::roles::Roles;
use crate::support::db::{Db, TestDb, postgres_database};
use crate::support::{Events, Proxy};

const VARIABLE: &str = "app.tenant";
const LONG: Duration = Duration::from_secs(60);

/// A database with orders of two tenants, a policy, and a role for which it holds.
struct Stage {
    monitor: Monitor,
    /// Dropped before the roles, whose tables are in it.
    test: TestDb,
    roles: Roles,
}

impl Stage {
    async fn set() -> Option<Self> {
        let test = postgres_database().await?;
        let roles = Roles {
            server: Db::Postgres.server_url()?,
            names: Vec::new(),
        };
        let mut stage = Self {
            monitor: Monitor::new(Config::default()),
            test,
            roles,
        };
        let app = stage.role("app", "").await;
        stage
            .execute(&format!(
                "CREATE TABLE orders (id bigint, tenant text NOT NULL);
                 INSERT INTO orders VALUES (1, 'acme'), (2, 'globex');
                 ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
                 CREATE POLICY of_tenant ON orders
                     USING (tenant = current_setting('app.tenant', true));
                 GRANT SELECT, INSERT, UPDATE, DELETE ON orders TO {app}"
            ))
            .await;
        Some(stage)
    }

    /// As the owner of everything.
    async fn execute(&self, sql: &str) {
        let mut conn = PgConnection::connect(&self.test.url)
            .await
            .expect("a session");
        let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut conn).await;
        done.expect("a statement");
        conn.close().await.expect("a close");
    }

    /// Makes a role that can log in; its whole name.
    async fn role(&mut self, name: &str, attributes: &str) -> String {
        let role = self.name_of(name);
        self.roles.names.push(role.clone());
        let make = format!("CREATE ROLE {role} LOGIN PASSWORD 'word' {attributes}");
        self.execute(&make).await;
        role
    }

    fn name_of(&self, role: &str) -> String {
        format!("{}_{role}", self.test.name())
    }

    /// Settings for that role, with one connection: everybody gets the same.
    fn settings(&self, role: &str) -> PoolSettings {
        let mut url = Url::parse(&self.test.url).expect("a URL");
        url.set_username(&self.name_of(role)).expect("a user");
        url.set_password(Some("word")).expect("a password");
        self.settings_of(url.as_str())
    }

    fn settings_of(&self, url: &str) -> PoolSettings {
        PoolSettings::default()
            .service("orders")
            .max_connections(1)
            .acquire_timeout(LONG)
            .url(url)
            .expect("a URL")
    }

    async fn open(&self, settings: &PoolSettings) -> PgPool {
        let options = settings.options().monitor(&self.monitor);
        settings.connect_with(options).await.expect("a pool")
    }

    /// A pool of `app` that is not watched for what is left behind.
    async fn plain(&self) -> PgPool {
        self.open(&self.settings("app")).await
    }

    /// The same, behind a network so slow that each answer takes a poll of its own.
    async fn distant(&self) -> (Proxy, PgPool) {
        let proxy = Proxy::start(&self.test.url);
        proxy.delay(Duration::from_millis(3));
        let mut url = Url::parse(&proxy.url(&self.test.url)).expect("a URL");
        url.set_username(&self.name_of("app")).expect("a user");
        url.set_password(Some("word")).expect("a password");
        let pool = self.open(&self.settings_of(url.as_str())).await;
        (proxy, pool)
    }

    /// One that is.
    async fn guarded(&self) -> PgPool {
        self.open(&self.settings("app").tenant_variable(VARIABLE))
            .await
    }

    /// A pool of the superuser.
    async fn superuser(&self) -> PgPool {
        self.open(&self.settings_of(&self.test.url)).await
    }
}

/// Whose orders are seen.
async fn seen<'e>(by: impl sqlx::PgExecutor<'e>) -> Vec<String> {
    let tenants = sqlx::query_scalar("SELECT tenant FROM orders ORDER BY id");
    tenants.fetch_all(by).await.expect("orders")
}

async fn orders(pool: &PgPool) -> TenantPool {
    let orders = TenantPool::new(pool.clone(), VARIABLE).await;
    orders.expect("a role that policies hold for")
}

/// Nobody's rows without a tenant, and the other one's alone with it.
async fn nothing_is_left(pool: &PgPool, orders: &TenantPool) {
    leaktrace::assert_no_leaks!(pool);
    assert!(seen(pool).await.is_empty(), "foreign rows");
    let mut tx = orders.begin("globex").await.expect("a transaction");
    assert_eq!(seen(&mut *tx).await, ["globex"]);
    tx.rollback().await.expect("a rollback");
}

/// What a wrapper does that sets the variable for the session.
async fn naive(pool: &PgPool, tenant: &str) -> Result<(), Error> {
    let mut conn = pool.acquire().await?;
    sqlx::query("SELECT set_config('app.tenant', $1, false)")
        .bind(tenant)
        .execute(&mut *conn)
        .await?;
    sqlx::query("SELECT pg_sleep(0.01)")
        .execute(&mut *conn)
        .await?;
    sqlx::query("RESET app.tenant").execute(&mut *conn).await?;
    conn.release().await;
    Ok(())
}

/// A future that is dropped when it wants its poll after this many.
struct Cut<'a, T> {
    future: Pin<&'a mut dyn Future<Output = T>>,
    left: usize,
}

impl<T> Future for Cut<'_, T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        self.future.as_mut().poll(cx).map(Some)
    }
}

/// Drops that work at each of its polls, one after the other, and looks after each. Answers whether
/// foreign rows were seen after any cut.
async fn cut_at_each_poll<T>(
    pool: &PgPool,
    work: impl AsyncFn() -> T,
    mut look: impl AsyncFnMut(),
) -> bool {
    let mut foreign = false;
    for polls in 0..200 {
        let done = {
            let future = pin!(work());
            Cut {
                future,
                left: polls,
            }
            .await
        };
        let is_done = done.is_some();
        drop(done);
        leaktrace::assert_no_leaks!(pool);
        foreign |= !seen(pool).await.is_empty();
        look().await;
        if is_done {
            assert!(polls >= 3, "cut {polls} times");
            return foreign;
        }
    }
    panic!("never done");
}

#[tokio::test]
async fn each_tenant_sees_its_own_rows_and_without_one_there_are_none() {
    let Some(stage) = Stage::set().await else {
        return;
    };
    let all = seen(&stage.superuser().await).await;
    assert_eq!(all, ["acme", "globex"], "the control");

    let pool = stage.guarded().await;
    let orders = orders(&pool).await;
    for tenant in ["acme", "globex"] {
        let mut tx = orders.begin(tenant).await.expect("a transaction");
        assert_eq!(seen(&mut *tx).await, [tenant]);
        tx.commit().await.expect("a commit");
        assert!(seen(&pool).await.is_empty());
    }
    let mut tx = orders.begin("acme").await.expect("a transaction");
    let error = sqlx::query("INSERT INTO orders VALUES (3, 'globex')")
        .execute(&mut *tx)
        .await
        .expect_err("not its row");
    assert!(error.to_string().contains("row-level security"), "{error}");
    tx.rollback().await.expect("a rollback");
    nothing_is_left(&pool, &orders).await;
}

#[tokio::test]
async fn a_begin_that_is_cut_anywhere_leaves_no_tenant() {
    let Some(stage) = Stage::set().await else {
        return;
    };
    let (_proxy, pool) = stage.distant().await;
    let foreign = cut_at_each_poll(
        &pool,
        async || naive(&pool, "acme").await,
        async || {
            // As it was, for the next cut.
            let reset = sqlx::query("RESET app.tenant").execute(&pool).await;
            reset.expect("a reset");
        },
    )
    .await;
    assert!(foreign, "the control sees no foreign rows");

    let orders = orders(&pool).await;
    let begin = async || orders.begin("acme").await.map(drop);
    let look = async || nothing_is_left(&pool, &orders).await;
    assert!(!cut_at_each_poll(&pool, begin, look).await);
}

#[tokio::test]
async fn a_statement_that_is_cut_leaves_no_tenant() {
    let Some(stage) = Stage::set().await else {
        return;
    };
    let (_proxy, pool) = stage.distant().await;
    let orders = orders(&pool).await;
    let work = async || {
        let mut tx = orders.begin("acme").await?;
        sqlx::query("UPDATE orders SET id = id + 10")
            .execute(&mut *tx)
            .await?;
        sqlx::query("SELECT pg_sleep(0.01)")
            .execute(&mut *tx)
            .await?;
        assert_eq!(seen(&mut *tx).await, ["acme"], "the control");
        tx.commit().await
    };
    let look = async || nothing_is_left(&pool, &orders).await;
    assert!(!cut_at_each_poll(&pool, work, look).await);
}

#[tokio::test]
async fn work_that_ends_in_any_way_leaves_no_tenant() {
    let Some(stage) = Stage::set().await else {
        return;
    };
    let control = stage.plain().await;
    let panicked = async {
        let mut conn = control.acquire().await.expect("a connection");
        let set = sqlx::query("SET app.tenant = 'acme'");
        set.execute(&mut *conn).await.expect("set");
        std::panic::resume_unwind(Box::new("the work fails"))
    };
    let panicked: Result<(), _> = std::panic::AssertUnwindSafe(panicked).catch_unwind().await;
    panicked.expect_err("its panic");
    leaktrace::assert_no_leaks!(control);
    assert_eq!(seen(&control).await, ["acme"], "the control");

    let pool = stage.plain().await;
    let orders = orders(&pool).await;
    let panics = orders.transaction("acme", async |tx| {
        assert_eq!(seen(&mut **tx).await, ["acme"]);
        if true {
            std::panic::resume_unwind(Box::new("the work fails"));
        }
        Ok::<_, Error>(())
    });
    let panicked = std::panic::AssertUnwindSafe(panics).catch_unwind().await;
    panicked.expect_err("its panic");
    nothing_is_left(&pool, &orders).await;

    let fails = orders.transaction("acme", async |tx| {
        sqlx::query("SELECT nonsense")
            .execute(&mut **tx)
            .await
            .map(drop)
    });
    fails.await.expect_err("the error of the statement");
    nothing_is_left(&pool, &orders).await;

    let works = orders.transaction("acme", async |tx| Ok::<_, Error>(seen(&mut **tx).await));
    assert_eq!(works.await.expect("a commit"), ["acme"]);
    nothing_is_left(&pool, &orders).await;

    drop(orders.begin("acme").await.expect("a transaction"));
    nothing_is_left(&pool, &orders).await;
}

#[tokio::test]
async fn a_savepoint_that_goes_back_takes_its_tenant_with_it() {
    let Some(stage) = Stage::set().await else {
        return;
    };
    let pool = stage.plain().await;
    let orders = orders(&pool).await;
    let mut tx = orders.begin("acme").await.expect("a transaction");
    let mut inner = tx.begin().await.expect("a savepoint");
    let set = sqlx::query("SET LOCAL app.tenant = 'globex'");
    set.execute(&mut *inner).await.expect("set");
    assert_eq!(seen(&mut *inner).await, ["globex"], "the control");
    inner.rollback().await.expect("a rollback");
    assert_eq!(seen(&mut *tx).await, ["acme"]);

    let inner = tx.begin().await.expect("a savepoint");
    inner.commit().await.expect("its commit");
    assert_eq!(seen(&mut *tx).await, ["acme"]);
    tx.commit().await.expect("a commit");
    nothing_is_left(&pool, &orders).await;
}

/// How often it was said that a tenant was left behind.
fn said(events: &Events, words: &str) -> usize {
    let events = events.all();
    let warns = |event: &&crate::support::events::Captured| {
        event.target == "leaktrace::kit"
            && event.level == tracing::Level::WARN
            && event.message.contains(words)
    };
    events.iter().filter(warns).count()
}

#[tokio::test]
async fn a_tenant_set_for_the_session_is_found_when_it_comes_back_and_reset() {
    let Some(stage) = Stage::set().await else {
        return;
    };
    let events = Events::new();
    let _subscriber = events.here();
    let set = || sqlx::query("SET app.tenant = 'acme'");
    let control = stage.plain().await;
    set().execute(&control).await.expect("set");
    leaktrace::assert_no_leaks!(control);
    assert_eq!(seen(&control).await, ["acme"], "the control");

    let pool = stage.guarded().await;
    let orders = orders(&pool).await;
    nothing_is_left(&pool, &orders).await;
    assert_eq!(said(&events, "came back"), 0, "nobody set it yet");
    set().execute(&pool).await.expect("set on the pool");
    nothing_is_left(&pool, &orders).await;
    assert_eq!(said(&events, "came back"), 1);

    let mut conn = pool.acquire().await.expect("a connection");
    set().execute(&mut *conn).await.expect("set on a guard");
    assert_eq!(seen(&mut *conn).await, ["acme"]);
    conn.release().await;
    nothing_is_left(&pool, &orders).await;
    assert_eq!(said(&events, "came back"), 2);

    let raw = pool.as_sqlx().clone();
    set().execute(&raw).await.expect("set on the raw pool");
    drop(raw);
    tokio::time::timeout(LONG, pool.acquire())
        .await
        .expect("in time")
        .expect("a connection")
        .release()
        .await;
    nothing_is_left(&pool, &orders).await;
    assert_eq!(said(&events, "came back"), 3);

    let mut tx = orders.begin("globex").await.expect("a transaction");
    set().execute(&mut *tx).await.expect("set in a transaction");
    assert_eq!(seen(&mut *tx).await, ["acme"], "what it asked for");
    tx.commit().await.expect("a commit");
    nothing_is_left(&pool, &orders).await;
    assert_eq!(said(&events, "came back"), 4);
    let shown = format!("{:?}", events.all());
    assert!(
        !shown.contains("acme"),
        "the customer is not named: {shown}"
    );
}

#[tokio::test]
async fn on_any_other_pool_a_begin_finds_it_and_its_commit_resets_it() {
    let Some(stage) = Stage::set().await else {
        return;
    };
    let events = Events::new();
    let _subscriber = events.here();
    let pool = stage.plain().await;
    let orders = orders(&pool).await;
    nothing_is_left(&pool, &orders).await;
    assert_eq!(said(&events, "was given out"), 0);
    let set = sqlx::query("SET app.tenant = 'acme'");
    set.execute(&pool).await.expect("set");
    leaktrace::assert_no_leaks!(pool);
    assert_eq!(seen(&pool).await, ["acme"], "the control");

    let mut tx = orders.begin("globex").await.expect("a transaction");
    assert_eq!(seen(&mut *tx).await, ["globex"]);
    tx.rollback().await.expect("a rollback");
    assert_eq!(seen(&pool).await, ["acme"], "a rollback takes it back");
    let mut tx = orders.begin("globex").await.expect("a transaction");
    assert_eq!(seen(&mut *tx).await, ["globex"]);
    tx.commit().await.expect("a commit");
    assert_eq!(said(&events, "was given out"), 2);
    nothing_is_left(&pool, &orders).await;
    assert_eq!(said(&events, "was given out"), 2);
}

#[tokio::test]
async fn whoever_sets_it_in_each_request_is_said_ten_times_and_counted() {
    let Some(stage) = Stage::set().await else {
        return;
    };
    let events = Events::new();
    let _subscriber = events.here();
    let (guarded, plain) = (stage.guarded().await, stage.plain().await);
    let orders = orders(&plain).await;
    for _ in 0..25 {
        for pool in [&guarded, &plain] {
            let set = sqlx::query("SET app.tenant = 'acme'");
            set.execute(pool).await.expect("set");
        }
        let tx = orders.begin("globex").await.expect("a transaction");
        tx.commit().await.expect("a commit");
    }
    let conn = guarded.acquire().await.expect("a connection");
    conn.release().await;
    for words in ["came back", "was given out"] {
        assert_eq!(said(&events, words), 10, "{words}");
    }
    assert_eq!(said(&events, "counted for a minute"), 2);
}

#[tokio::test]
async fn a_role_set_for_the_session_does_not_lift_a_tenant_above_policies() {
    let Some(mut stage) = Stage::set().await else {
        return;
    };
    let boss = stage.role("boss", "BYPASSRLS").await;
    let app = stage.name_of("app");
    stage
        .execute(&format!(
            "GRANT {boss} TO {app}; GRANT SELECT ON orders TO {boss}"
        ))
        .await;
    let pool = stage.guarded().await;
    let orders = orders(&pool).await;
    let set = sqlx::query(AssertSqlSafe(format!("SET ROLE {boss}")));
    set.execute(&pool).await.expect("a role");
    assert_eq!(seen(&pool).await, ["acme", "globex"], "the control");
    let mut tx = orders.begin("acme").await.expect("a transaction");
    assert_eq!(seen(&mut *tx).await, ["acme"]);
}

fn is_gone<T: std::fmt::Debug>(answer: Result<T, Error>) {
    match answer {
        Err(Error::AnyDriverError(error)) => assert!(error.is::<DoomedTransaction>(), "{error:?}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn behind_an_end_that_is_sent_as_text_nothing_runs_without_the_tenant() {
    let Some(stage) = Stage::set().await else {
        return;
    };
    let pool = stage.superuser().await;
    let app = stage.name_of("app");
    let orders = TenantPool::with_role(pool.clone(), VARIABLE, &app).await;
    let orders = orders.expect("a role that policies hold for");
    let count = || sqlx::query_scalar::<_, i64>("SELECT count(*) FROM orders");
    for end in ["COMMIT", "rollback", "END; -- of it", "ABORT"] {
        let end = || sqlx::raw_sql(AssertSqlSafe(end));
        let mut control = pool.begin().await.expect("a transaction");
        end().execute(&mut *control).await.expect("the end");
        let all = count().fetch_one(&mut *control).await;
        assert_eq!(all.expect("the control"), 2);
        control.commit().await.expect("as in sqlx");

        let mut tx = orders.begin("acme").await.expect("a transaction");
        end().execute(&mut *tx).await.expect("the end");
        is_gone(count().fetch_one(&mut *tx).await);
        is_gone(tx.begin().await.map(drop));
        is_gone(tx.commit().await);
        let work = orders.transaction("acme", async |tx| end().execute(&mut **tx).await.map(drop));
        is_gone(work.await);
    }
    // Not seen while it happens: the commit tells.
    for script in ["SELECT 1; COMMIT", "COMMIT; BEGIN; COMMIT"] {
        let mut tx = orders.begin("acme").await.expect("a transaction");
        let script = sqlx::raw_sql(AssertSqlSafe(script));
        script.execute(&mut *tx).await.expect("a script");
        is_gone(tx.commit().await);
    }
    let mut tx = orders.begin("acme").await.expect("a transaction");
    let raw: &mut PgConnection = &mut tx;
    sqlx::raw_sql("COMMIT").execute(raw).await.expect("the end");
    is_gone(tx.commit().await);

    // The twins: a script, a raw loan and savepoints that end nothing.
    let mut tx = orders.begin("acme").await.expect("a transaction");
    let plain = sqlx::raw_sql("SELECT 1; SELECT 2").execute(&mut *tx).await;
    plain.expect("a script");
    let raw: &mut PgConnection = &mut tx;
    count().fetch_one(raw).await.expect("a count");
    let point = sqlx::raw_sql("SAVEPOINT a").execute(&mut *tx).await;
    point.expect("a savepoint");
    let back = sqlx::raw_sql("ROLLBACK TO a").execute(&mut *tx).await;
    back.expect("back to it");
    let nested = tx.begin().await.expect("a savepoint");
    nested.commit().await.expect("its end");
    assert_eq!(count().fetch_one(&mut *tx).await.expect("a count"), 1);
    tx.commit().await.expect("a commit");
    // Also with the kill switch, and where no statement is prepared.
    stage.monitor.set_detail(leaktrace::Detail::Off);
    let unprepared = stage.settings("app").prepared_statements(false);
    let unprepared = TenantPool::new(stage.open(&unprepared).await, VARIABLE).await;
    for orders in [&orders, &unprepared.expect("a pool")] {
        let mut tx = orders.begin("acme").await.expect("a transaction");
        assert_eq!(count().fetch_one(&mut *tx).await.expect("a count"), 1);
        tx.commit().await.expect("a commit");
        let mut tx = orders.begin("acme").await.expect("a transaction");
        let end = sqlx::raw_sql("COMMIT").execute(&mut *tx).await;
        end.expect("the end");
        is_gone(count().fetch_one(&mut *tx).await);
    }
    // And who gets the connection next may begin.
    let mut tx = pool.begin().await.expect("a transaction");
    assert_eq!(count().fetch_one(&mut *tx).await.expect("a count"), 2);
}

async fn refused(pool: PgPool) -> (String, VoidPolicies, String) {
    let error = TenantPool::new(pool, VARIABLE)
        .await
        .expect_err("no policies");
    let text = error.to_string();
    match error {
        TenantError::Void { role, why } => (role, why, text),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_role_above_policies_is_refused_by_name_with_what_to_do() {
    let Some(mut stage) = Stage::set().await else {
        return;
    };
    let pool = stage.superuser().await;
    assert_eq!(seen(&pool).await, ["acme", "globex"], "the control");
    let (role, why, text) = refused(pool).await;
    assert_eq!((&*role, why), ("leaktrace", VoidPolicies::Superuser));
    assert!(
        text.contains("\"leaktrace\"") && text.contains("with_role"),
        "{text}"
    );

    let boss = stage.role("boss", "BYPASSRLS").await;
    stage
        .execute(&format!("GRANT SELECT ON orders TO {boss}"))
        .await;
    let pool = stage.open(&stage.settings("boss")).await;
    assert_eq!(seen(&pool).await, ["acme", "globex"], "the control");
    let (role, why, text) = refused(pool).await;
    assert_eq!((role, why), (boss, VoidPolicies::BypassRls));
    assert!(text.contains("NOBYPASSRLS"), "{text}");

    let owner = stage.role("owner", "").await;
    let member = stage.role("member", &format!("IN ROLE {owner}")).await;
    stage
        .execute(&format!("ALTER TABLE orders OWNER TO {owner}"))
        .await;
    for (name, whole) in [("owner", owner), ("member", member)] {
        let pool = stage.open(&stage.settings(name)).await;
        assert_eq!(seen(&pool).await, ["acme", "globex"], "the control");
        let (role, why, text) = refused(pool).await;
        let tables = vec!["orders".to_string()];
        assert_eq!((role, why), (whole, VoidPolicies::Owner { tables }));
        assert!(text.contains("orders: ALTER TABLE"), "{text}");
    }

    // The twin: forced, policies hold for the owner too.
    stage
        .execute("ALTER TABLE orders FORCE ROW LEVEL SECURITY")
        .await;
    for name in ["owner", "member", "app"] {
        let pool = stage.open(&stage.settings(name)).await;
        let orders = orders(&pool).await;
        assert_eq!(orders.role(), stage.name_of(name));
        nothing_is_left(&pool, &orders).await;
    }
}

#[tokio::test]
async fn a_superuser_may_take_a_role_for_each_transaction_and_that_one_is_checked() {
    let Some(mut stage) = Stage::set().await else {
        return;
    };
    let app = stage.name_of("app");
    let pool = stage.superuser().await;
    assert_eq!(seen(&pool).await, ["acme", "globex"], "the control");
    let orders = TenantPool::with_role(pool.clone(), VARIABLE, &app).await;
    let orders = orders.expect("a role that policies hold for");
    assert_eq!(orders.role(), app);
    let mut tx = orders.begin("acme").await.expect("a transaction");
    assert_eq!(seen(&mut *tx).await, ["acme"]);
    tx.commit().await.expect("a commit");
    let role: String = sqlx::query_scalar("SELECT current_user::text")
        .fetch_one(&pool)
        .await
        .expect("a role");
    assert_eq!(role, "leaktrace", "it ended with the transaction");

    let boss = stage.role("boss", "BYPASSRLS").await;
    let error = TenantPool::with_role(pool.clone(), VARIABLE, &boss).await;
    let error = error.expect_err("above policies");
    assert!(
        matches!(&error, TenantError::Void { role, .. } if *role == boss),
        "{error}"
    );
    for (name, pool) in [("nobody_at_all", pool), (&*boss, stage.plain().await)] {
        let error = TenantPool::with_role(pool.clone(), VARIABLE, name).await;
        let error = error.expect_err("a role that cannot be taken");
        assert!(matches!(error, TenantError::Role { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(name) && text.contains("GRANT"), "{text}");
        leaktrace::assert_no_leaks!(pool);
    }
}

#[tokio::test]
async fn the_bare_pool_has_its_reason_as_label_and_a_transaction_its_line() {
    let Some(stage) = Stage::set().await else {
        return;
    };
    let pool = stage.guarded().await;
    let orders = orders(&pool).await;
    let conn = orders.bypass_tenant("nightly statistics").acquire().await;
    let conn = conn.expect("a connection");
    let holder = pool.holders().remove(0);
    assert_eq!(holder.label.as_deref(), Some("nightly statistics"));
    let report = stage.monitor.report().to_string();
    assert!(report.contains("label \"nightly statistics\""), "{report}");
    drop(conn);

    let _tx = orders.begin("acme").await.expect("a transaction");
    let holder = pool.holders().remove(0);
    let line = holder.acquired_by.expect("a line").to_string();
    assert!(line.contains("tests/kit/tenants.rs"), "{line}");
    assert_eq!(holder.label, None);
}

#[tokio::test]
async fn no_tenant_no_variable_and_no_policy_are_told() {
    let Some(stage) = Stage::set().await else {
        return;
    };
    let events = Events::new();
    let _subscriber = events.here();
    let pool = stage.guarded().await;
    let orders = orders(&pool).await;
    let Err(Error::Encode(error)) = orders.begin("").await else {
        panic!("an empty text is no tenant");
    };
    let error = error.downcast_ref::<TenantError>();
    assert!(matches!(error, Some(TenantError::NoTenant)), "{error:?}");

    for name in ["tenant", "work_mem", "app.", "app.tenant'; --", ".a", "1.a"] {
        let error = TenantPool::new(pool.clone(), name).await;
        let error = error.expect_err(name);
        assert!(matches!(error, TenantError::Variable(_)), "{error:?}");
        assert!(error.to_string().contains("app.tenant"), "{error}");
        let error = stage.settings("app").tenant_variable(name).check();
        assert_eq!(error.expect_err(name).variable(), "tenant_variable");
    }
    let elsewhere = PoolSettings::default()
        .tenant_variable(VARIABLE)
        .url("sqlite::memory:")
        .expect("a URL");
    assert!(elsewhere.check().is_err(), "no row-level security there");

    assert_eq!(said(&events, "every tenant sees all rows"), 0);
    stage
        .execute("ALTER TABLE orders DISABLE ROW LEVEL SECURITY")
        .await;
    assert_eq!(seen(&pool).await, ["acme", "globex"], "the control");
    TenantPool::new(pool, VARIABLE)
        .await
        .expect("it may come later");
    assert_eq!(said(&events, "every tenant sees all rows"), 1);
}
