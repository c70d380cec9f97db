//! The operations. Each is a future that answers how many rows its caller was told are committed;
//! the number in front is how many there are if it was cut and took effect all the same.

/// What sqlx and leaktrace both have.
macro_rules! operations {
    ($pool:ident, $stage:ident, $table:ident, $insert:literal) => {{
        use futures::TryStreamExt as _;
        #[allow(unused_imports)]
        use sqlx::{Acquire as _, Connection as _, Executor as _};
        macro_rules! insert {
            ($to:expr) => {
                sqlx::query($insert).bind(7_i32).execute($to).await?
            };
        }
        cuts!($pool, $stage, $table, 0, "begin", {
            $pool.begin().await?;
            0
        });
        cuts!($pool, $stage, $table, 0, "begin_with", {
            $pool.begin_with("BEGIN").await?;
            0
        });
        cuts!($pool, $stage, $table, 0, "try_begin", {
            $pool.try_begin().await?;
            0
        });
        cuts!($pool, $stage, $table, 0, "try_begin_with", {
            $pool.try_begin_with("BEGIN").await?;
            0
        });
        cuts!($pool, $stage, $table, 0, "begin, write, drop", {
            let mut tx = $pool.begin().await?;
            insert!(&mut *tx);
            0
        });
        cuts!($pool, $stage, $table, 0, "begin, write, rollback", {
            let mut tx = $pool.begin().await?;
            insert!(&mut *tx);
            tx.rollback().await?;
            0
        });
        cuts!($pool, $stage, $table, 2, "begin, write, commit", {
            let mut tx = $pool.begin().await?;
            insert!(&mut *tx);
            insert!(&mut *tx);
            tx.commit().await?;
            2
        });
        cuts!($pool, $stage, $table, 2, "savepoint, commit, commit", {
            let mut tx = $pool.begin().await?;
            insert!(&mut *tx);
            let mut nested = tx.begin().await?;
            insert!(&mut *nested);
            nested.commit().await?;
            tx.commit().await?;
            2
        });
        cuts!($pool, $stage, $table, 1, "savepoint, rollback, commit", {
            let mut tx = $pool.begin().await?;
            insert!(&mut *tx);
            let mut nested = tx.begin().await?;
            insert!(&mut *nested);
            nested.rollback().await?;
            tx.commit().await?;
            1
        });
        cuts!($pool, $stage, $table, 1, "savepoint, drop, commit", {
            let mut tx = $pool.begin().await?;
            insert!(&mut *tx);
            let mut nested = tx.begin().await?;
            insert!(&mut *nested);
            drop(nested);
            tx.commit().await?;
            1
        });
        cuts!($pool, $stage, $table, 1, "begin on a connection, commit", {
            let mut conn = $pool.acquire().await?;
            let mut tx = conn.begin().await?;
            insert!(&mut *tx);
            tx.commit().await?;
            1
        });
        cuts!($pool, $stage, $table, 0, "begin on a connection, drop", {
            let mut conn = $pool.acquire().await?;
            let mut tx = conn.begin().await?;
            insert!(&mut *tx);
            drop(tx);
            sqlx::query("SELECT 1").execute(&mut *conn).await?;
            0
        });
        cuts!($pool, $stage, $table, 1, "Acquire::begin on the pool", {
            let mut tx = sqlx::Acquire::begin(&$pool).await?;
            insert!(&mut *tx);
            tx.commit().await?;
            1
        });
        cuts!(
            $pool,
            $stage,
            $table,
            1,
            "Acquire::begin on a connection",
            {
                let mut conn = $pool.acquire().await?;
                let mut tx = sqlx::Acquire::begin(&mut conn).await?;
                insert!(&mut *tx);
                tx.commit().await?;
                1
            }
        );
        cuts!($pool, $stage, $table, 1, "execute on the pool", {
            insert!(&$pool);
            1
        });
        cuts!($pool, $stage, $table, 1, "execute on a connection", {
            let mut conn = $pool.acquire().await?;
            insert!(&mut *conn);
            1
        });
        cuts!($pool, $stage, $table, 0, "a statement that fails", {
            let failed = sqlx::query("SELECT nothing FROM nowhere")
                .execute(&$pool)
                .await;
            assert!(failed.is_err());
            0
        });
        cuts!($pool, $stage, $table, 0, "fetch_one on the pool", {
            sqlx::query("SELECT count(*) FROM t")
                .fetch_one(&$pool)
                .await?;
            0
        });
        cuts!($pool, $stage, $table, 0, "fetch_all on a connection", {
            let mut conn = $pool.acquire().await?;
            sqlx::query("SELECT id FROM t")
                .fetch_all(&mut *conn)
                .await?;
            0
        });
        cuts!($pool, $stage, $table, 0, "half of a stream", {
            let mut rows = sqlx::query("SELECT id FROM t").fetch(&$pool);
            rows.try_next().await?;
            rows.try_next().await?;
            0
        });
        cuts!($pool, $stage, $table, 0, "prepare", {
            (&$pool)
                .prepare(sqlx::SqlSafeStr::into_sql_str(
                    "SELECT id FROM t WHERE id = 1",
                ))
                .await?;
            0
        });
        cuts!($pool, $stage, $table, 0, "describe", {
            let sql = sqlx::SqlSafeStr::into_sql_str("SELECT id FROM t WHERE id = 2");
            (&$pool).describe(sql).await?;
            0
        });
        cuts!($pool, $stage, $table, 2, "script with a transaction", {
            let script = "BEGIN; INSERT INTO t VALUES (5); INSERT INTO t VALUES (6); COMMIT";
            sqlx::raw_sql(script).execute(&$pool).await?;
            2
        });
        cuts!($pool, $stage, $table, 0, "BEGIN as text", {
            let mut conn = $pool.acquire().await?;
            sqlx::raw_sql("BEGIN").execute(&mut *conn).await?;
            insert!(&mut *conn);
            0
        });
        cuts!($pool, $stage, $table, 0, "detach", {
            let mut own = $pool.acquire().await?.detach();
            own.ping().await?;
            own.close().await?;
            0
        });
        cuts!($pool, $stage, $table, 0, "ping", {
            $pool.acquire().await?.ping().await?;
            0
        });
    }};
}

/// What has something in flight only where a connection is tested before it is given out.
macro_rules! operations_of_a_tested_pool {
    ($pool:ident, $stage:ident, $table:ident) => {{
        cuts!($pool, $stage, $table, 0, "acquire", {
            $pool.acquire().await?;
            0
        });
        cuts!($pool, $stage, $table, 0, "close a connection", {
            $pool.acquire().await?.close().await?;
            0
        });
    }};
}

/// What only leaktrace has.
macro_rules! operations_of_ours {
    ($pool:ident, $stage:ident, $table:ident, $insert:literal, $sqlx:ty) => {{
        macro_rules! insert {
            ($to:expr) => {
                sqlx::query($insert).bind(7_i32).execute($to).await?
            };
        }
        cuts!($pool, $stage, $table, 1, "transaction(f)", {
            $pool
                .transaction(async |tx| {
                    insert!(&mut **tx);
                    Ok::<_, sqlx::Error>(1)
                })
                .await?
        });
        cuts!($pool, $stage, $table, 0, "transaction(f) that fails", {
            let failed = $pool
                .transaction(async |tx| {
                    insert!(&mut **tx);
                    Err::<(), _>(sqlx::Error::RowNotFound)
                })
                .await;
            assert!(failed.is_err());
            0
        });
        cuts!($pool, $stage, $table, 0, "release", {
            let mut conn = $pool.acquire().await?;
            sqlx::query("SELECT 1").execute(&mut *conn).await?;
            conn.release().await;
            0
        });
        cuts!($pool, $stage, $table, 0, "raw loan, begin, write", {
            let mut conn = $pool.acquire().await?;
            let raw = &mut **conn;
            let mut tx = sqlx::Connection::begin(raw).await?;
            insert!(&mut *tx);
            0
        });
        let url = $stage.url.clone();
        let other = || {
            leaktrace::PoolOptions::<$sqlx>::new()
                .monitor($pool.monitor())
                .name("other")
                .max_connections(1)
                .connect_lazy(&url)
                .expect("a pool")
        };
        cuts!(
            $pool,
            $stage,
            $table,
            0,
            "close_within",
            {
                // In a task: a connect has hundreds of polls, and is not what is cut here.
                let other = other();
                let begun = tokio::spawn(async move {
                    let tx = other.begin().await?;
                    Ok::<_, sqlx::Error>((other, tx))
                });
                let (other, mut tx) = begun.await.expect("no panic")?;
                insert!(&mut *tx);
                let closed = other.close_within(std::time::Duration::from_millis(20));
                assert!(closed.await.is_err(), "its own transaction is open");
                0
            },
            after {
                crate::support::eventually("it is gone", crate::stage::LONG, async || {
                    let open = $stage.observer.connections().await.unwrap_or(0);
                    (open <= 1).then_some(()).ok_or(open)
                })
                .await;
            }
        );
    }};
}

/// What only PostgreSQL has.
macro_rules! operations_of_postgres {
    ($pool:ident, $stage:ident, $table:ident, $insert:literal) => {{
        cuts!($pool, $stage, $table, 2, "COPY in", {
            let mut conn = $pool.acquire().await?;
            let mut copy = conn.copy_in_raw("COPY t FROM STDIN").await?;
            copy.send(&b"8\n"[..]).await?;
            copy.send(&b"9\n"[..]).await?;
            copy.finish().await?;
            2
        });
        cuts!($pool, $stage, $table, 0, "COPY out", {
            use futures::TryStreamExt as _;
            let mut conn = $pool.acquire().await?;
            let mut rows = conn.copy_out_raw("COPY t TO STDOUT").await?;
            while rows.try_next().await?.is_some() {}
            0
        });
    }};
}

/// MariaDB, SQLite and `Any` have nothing that the others have not.
macro_rules! operations_of_no_other {
    ($($ignored:tt)*) => {};
}

/// Cuts one operation everywhere, and enters what was found. `after`: what is looked at besides.
macro_rules! cuts {
    ($pool:ident, $stage:ident, $table:ident, $full:expr, $name:literal, $body:block) => {
        cuts!($pool, $stage, $table, $full, $name, $body, after {})
    };
    ($pool:ident, $stage:ident, $table:ident, $full:expr, $name:literal, $body:block, after $after:block) => {{
        let mut row = crate::tables::Row {
            name: $name,
            ..Default::default()
        };
        macro_rules! operation {
            () => {
                async { Ok::<i64, sqlx::Error>($body) }
            };
        }
        macro_rules! look {
            ($before:expr, $told:expr) => {{
                // The pool's only connection: from here on nothing that was cut can take effect.
                let conn = $pool.acquire().await;
                let Ok(mut conn) = conn else {
                    assert!(!$table.thorough, "no permit is lost: {conn:?}");
                    // sqlx lost the only one; nothing more can be learned from this pool.
                    $table.lost_a_permit = true;
                    row.dirty += 1;
                    break;
                };
                let now = $stage.rows().await;
                let insert = sqlx::query("INSERT INTO t VALUES (1)");
                let written = insert.execute(&mut *conn).await;
                if written.is_err() || $stage.rows().await != now + 1 {
                    row.dirty += 1;
                }
                let there = now - $before;
                row.lies += usize::from(match $told {
                    Some(Ok(told)) => there != told,
                    _ => there != 0 && there != $full,
                });
                drop(conn);
                wipe!($pool);
                crate::support::eventually("it is back", crate::stage::LONG, async || {
                    $pool.num_idle() == 1 || $pool.size() == 0
                })
                .await;
                $after
            }};
        }
        // SQLite's thread may answer before the next poll: then there is nothing to cut this time.
        let rounds = $table.rounds();
        for round in 0..100 {
            if $table.lost_a_permit || (round >= rounds && row.polls > 0) {
                break;
            }
            for polls in 1..300 {
                let before = $stage.rows().await;
                let told = crate::stage::cut(operation!(), polls).await;
                let complete = told.is_some();
                look!(before, told);
                if complete {
                    break;
                }
                row.polls += 1;
            }
        }
        if $table.thorough {
            for _ in 0..20 {
                let before = $stage.rows().await;
                let time = std::time::Duration::from_micros($table.random(20_000));
                let told = tokio::time::timeout(time, operation!()).await.ok();
                row.times += usize::from(told.is_none());
                look!(before, told);
            }
        }
        $table.push(row);
    }};
}
