//! Roles of a test, and the setup of roles that docs/pools.md gives.

use sqlx::{AssertSqlSafe, Connection, Error, PgConnection};

use crate::support::db::{Db, postgres_database};

/// Roles of one test, which live beside its database. Dropped after it.
pub(crate) struct Roles {
    pub(crate) server: String,
    pub(crate) names: Vec<String>,
}

impl Drop for Roles {
    fn drop(&mut self) {
        let (server, names) = (self.server.clone(), self.names.clone());
        // A runtime of its own: the test's may be gone.
        let dropper = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let Ok(mut conn) = PgConnection::connect(&server).await else {
                    return;
                };
                for name in names {
                    let sql = AssertSqlSafe(format!("DROP ROLE IF EXISTS {name}"));
                    let _ = sqlx::raw_sql(sql).execute(&mut conn).await;
                }
            });
            std::io::Result::Ok(())
        });
        let _ = dropper.join();
    }
}

/// The words of docs/pools.md, with the names of roles made unique.
fn setup(unique: &str) -> String {
    let page = include_str!("../../docs/pools.md");
    let blocks = page.split("```sql\n").skip(1);
    let mut blocks = blocks.filter_map(|rest| rest.split("```").next());
    let block = blocks.find(|block| block.starts_with("CREATE ROLE orders_owner"));
    let block = block.expect("the page has the setup");
    block
        .split_inclusive(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .map(|word| match word.strip_prefix("orders") {
            Some(rest) => format!("{unique}{rest}"),
            None => word.to_string(),
        })
        .collect()
}

async fn as_role(conn: &mut PgConnection, role: &str, sql: &str) -> Result<(), Error> {
    let whole = format!("SET ROLE {role}; {sql}");
    let done = sqlx::raw_sql(AssertSqlSafe(whole))
        .execute(&mut *conn)
        .await;
    sqlx::raw_sql("RESET ROLE").execute(conn).await?;
    done.map(drop)
}

#[tokio::test]
async fn the_three_roles_of_the_page_may_what_it_says_and_no_more() {
    let Some(test) = postgres_database().await else {
        return;
    };
    let name = test.name().to_string();
    let roles = ["owner", "migrate", "readonly"].map(|role| format!("{name}_{role}"));
    let names = [name.clone()].into_iter().chain(roles.clone()).collect();
    let server = Db::Postgres.server_url().expect("a server");
    // Dropped in this order: roles own what is in the database.
    let (test, _roles) = &(test, Roles { server, names });
    let name = &*name;
    let [owner, migrate, readonly] = &roles;
    let mut conn = PgConnection::connect(&test.url).await.expect("a session");
    let page = sqlx::raw_sql(AssertSqlSafe(setup(name)));
    page.execute(&mut conn)
        .await
        .expect("the setup of the page");
    // What a page leaves to the reader: who may create in the schema.
    as_role(
        &mut conn,
        "NONE",
        &format!("GRANT CREATE ON SCHEMA public TO {owner}"),
    )
    .await
    .expect("a grant");

    // A table of later.
    let make = format!("SET ROLE {owner}; CREATE TABLE items (id bigserial, name text)");
    as_role(&mut conn, migrate, &make).await.expect("a table");
    for (role, sql, may) in [
        (name, "INSERT INTO items (name) VALUES ('pear')", true),
        (name, "UPDATE items SET name = 'plum'", true),
        (name, "SELECT * FROM items", true),
        (name, "CREATE TABLE others (id bigint)", false),
        (name, "DROP TABLE items", false),
        (name, "ALTER TABLE items ADD more text", false),
        (readonly, "SELECT * FROM items", true),
        (readonly, "INSERT INTO items (name) VALUES ('fig')", false),
        (readonly, "DELETE FROM items", false),
    ] {
        let done = as_role(&mut conn, role, sql).await;
        assert_eq!(done.is_ok(), may, "{role}: {sql}: {done:?}");
        if let Err(error) = done {
            let code = error.as_database_error().and_then(|error| error.code());
            assert_eq!(code.as_deref(), Some("42501"), "{error}");
        }
    }
    conn.close().await.expect("a close");
}
