//! User code: repositories behind traits, held as `dyn`, with pools in structs.

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::{PgConnection, Postgres};

use crate::db::{PgPool, PgPoolOptions, Transaction, all_back};
use crate::ground;
use crate::support::TestDb;

#[async_trait]
trait Notes: Send + Sync {
    async fn add(&self, body: &str) -> sqlx::Result<i64>;
    async fn add_in(&self, tx: &mut Transaction<'_, Postgres>, body: &str) -> sqlx::Result<i64>;
    async fn add_on(&self, conn: &mut PgConnection, body: &str) -> sqlx::Result<i64>;
    async fn all(&self) -> sqlx::Result<Vec<String>>;
    async fn begin(&self) -> sqlx::Result<Transaction<'static, Postgres>>;
}

#[derive(Clone, Debug)]
struct PgNotes {
    pool: PgPool,
}

#[async_trait]
impl Notes for PgNotes {
    async fn add(&self, body: &str) -> sqlx::Result<i64> {
        let mut conn = self.pool.acquire().await?;
        self.add_on(&mut conn, body).await
    }

    async fn add_in(&self, tx: &mut Transaction<'_, Postgres>, body: &str) -> sqlx::Result<i64> {
        sqlx::query_scalar("INSERT INTO notes (body) VALUES ($1) RETURNING id")
            .bind(body)
            .fetch_one(&mut **tx)
            .await
    }

    async fn add_on(&self, conn: &mut PgConnection, body: &str) -> sqlx::Result<i64> {
        sqlx::query_scalar("INSERT INTO notes (body) VALUES ($1) RETURNING id")
            .bind(body)
            .fetch_one(conn)
            .await
    }

    async fn all(&self) -> sqlx::Result<Vec<String>> {
        sqlx::query_scalar("SELECT body FROM notes ORDER BY id")
            .fetch_all(&self.pool)
            .await
    }

    async fn begin(&self) -> sqlx::Result<Transaction<'static, Postgres>> {
        self.pool.begin().await
    }
}

/// A service that knows the trait only.
struct Desk {
    notes: Arc<dyn Notes>,
}

impl Desk {
    async fn file(&self, bodies: &[&str]) -> sqlx::Result<()> {
        let mut tx = self.notes.begin().await?;
        for body in bodies {
            self.notes.add_in(&mut tx, body).await?;
            self.notes.add_on(&mut tx, body).await?;
        }
        tx.commit().await
    }
}

/// A unit of work that owns its transaction.
struct UnitOfWork<'a> {
    tx: Transaction<'a, Postgres>,
    notes: &'a dyn Notes,
}

impl UnitOfWork<'_> {
    async fn add(&mut self, body: &str) -> sqlx::Result<&mut Self> {
        self.notes.add_in(&mut self.tx, body).await?;
        sqlx::query("UPDATE notes SET stars = 1 WHERE body = $1")
            .bind(body)
            .execute(&mut *self.tx)
            .await?;
        Ok(self)
    }

    async fn done(self) -> sqlx::Result<()> {
        self.tx.commit().await
    }
}

async fn notes() -> Option<(TestDb, PgNotes)> {
    let (db, options) = ground::postgres().await?;
    let pool = PgPoolOptions::new().connect_with(options).await;
    let pool = pool.expect("the server answers");
    Some((db, PgNotes { pool }))
}

#[tokio::test]
async fn a_repository_behind_a_trait_uses_its_pool_and_its_callers_transaction() -> sqlx::Result<()>
{
    let Some((_db, notes)) = notes().await else {
        return Ok(());
    };
    let desk = Desk {
        notes: Arc::new(notes.clone()),
    };
    notes.add("first").await?;
    desk.file(&["a", "b"]).await?;
    assert_eq!(desk.notes.all().await?, ["first", "a", "a", "b", "b"]);
    all_back(&notes.pool).await;
    Ok(())
}

#[tokio::test]
async fn a_unit_of_work_owns_its_transaction() -> sqlx::Result<()> {
    let Some((_db, notes)) = notes().await else {
        return Ok(());
    };
    let mut unit = UnitOfWork {
        tx: notes.begin().await?,
        notes: &notes,
    };
    unit.add("a").await?.add("b").await?;
    unit.done().await?;

    let mut unit = UnitOfWork {
        tx: notes.begin().await?,
        notes: &notes,
    };
    unit.add("dropped").await?;
    drop(unit);
    assert_eq!(notes.all().await?, ["a", "b"]);
    all_back(&notes.pool).await;
    Ok(())
}
