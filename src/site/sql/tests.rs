//! What masking and classification answer, text by text. The property tests are in `canary`.

use super::*;

const DIALECTS: [Dialect; 4] = [
    Dialect::Unknown,
    Dialect::Postgres,
    Dialect::MySql,
    Dialect::Sqlite,
];

#[track_caller]
fn masks(sql: &str, shown: &str) {
    assert_eq!(mask_sql(sql), shown, "{sql:?}");
}

#[test]
fn what_is_no_value_is_shown() {
    for sql in [
        "SELECT * FROM orders WHERE id = $1 AND state = ? AND a = ?2 AND b = :name AND c = @name",
        "SELECT größe, 表.t1 FROM `my table` WHERE a IS NULL OR b = TRUE",
        "UPDATE orders SET state = ? WHERE id = ?",
        "SELECT a::text, b->c, $1::int FROM [order items] FOR UPDATE",
        "INSERT INTO t (a, b) VALUES (?, ?) ON CONFLICT DO NOTHING",
        "COMMIT",
        "",
    ] {
        masks(sql, sql);
    }
}

#[test]
fn every_literal_becomes_a_question_mark() {
    for literal in [
        "'a'",
        "''",
        "'it''s'",
        r"'it\'s'",
        r"E'it\'s'",
        "N'a'",
        "b'01'",
        "X'4D'",
        "U&'d\\0061'",
        "_latin1'a'",
        "\"a\"",
        "$$a$$",
        "$t$a $$ b$t$",
        "7",
        "-7",
        "1.5",
        ".5",
        "1.",
        "1e10",
        "1.5E-7",
        "0xFF",
        "0b01",
        "0o17",
        "1_000",
        "1abc",
        "$1234567",
        "?1234567",
        "'unterminated",
        "$$unterminated",
        "\"unterminated",
        "1e",
        "@7",
        ":7",
        "/* c */ 7 -- 9",
        "7 # c",
        "7 /* /* */ */",
    ] {
        let shown = mask_sql(&format!("SELECT {literal}"));
        let bare = shown
            .replace(['-', '@', ':', '*', '/'], "")
            .replace("SELECT", "");
        assert_eq!(bare.trim(), "?", "{literal} -> {shown}");
    }
    masks(
        "SELECT a[1], DATE '2020-01-01', -5, 'a''b', b.5, a->>'k'",
        "SELECT a[?], DATE ?, -?, ?, b.?, a->>?",
    );
    masks(
        "SELECT DATE'2020' FROM t1 WHERE x=INTERVAL 5 DAY",
        "SELECT DATE ? FROM t1 WHERE x=INTERVAL ? DAY",
    );
    // SQLite takes the parentheses for a part of the parameter's name, up to a blank.
    masks("SELECT $1::numeric(10, 2)", "SELECT $1::numeric(? ?)");
}

#[test]
fn a_backslash_before_a_quote_hides_both_readings() {
    masks(r"SELECT 'a\' , b, 'c', d", "SELECT ?");
    masks(r"SELECT 'a\\', b, 'c\'d', e", r"SELECT ?, b, ?");
}

#[test]
fn a_string_on_the_next_line_may_go_on_with_the_escapes_of_the_first() {
    for sql in [
        r"SELECT E'a' ~ 'b\'secret'",
        r"SELECT E'a' -- c ~ 'b\'secret'",
        r"SELECT E'a' ~ '\' 'secret'",
    ] {
        let sql = sql.replace('~', "\n");
        for dialect in DIALECTS {
            // Only PostgreSQL has such strings.
            let shown = mask_sql_for(&sql, dialect);
            let known = matches!(dialect, Dialect::Unknown | Dialect::Postgres);
            assert!(!known || !shown.contains("secret"), "{sql:?} -> {shown}");
        }
    }
}

#[test]
fn a_statement_behind_a_continued_string_is_seen() {
    // Read as separate strings, the second one ends early and `--` hides the rest.
    let sql = "SELECT '\\x\\' E'x'\n '--\\'y--\\'', ; COMMIT";
    assert_eq!(classify_for(sql, Dialect::Postgres), Verb::Unknown);
    assert_eq!(classify(sql), Verb::Unknown);
}

#[test]
fn a_doubled_quote_does_not_end_an_escape_string() {
    let sql = r"SELECT 'x', E'a''b\'secret', d";
    assert!(!mask_sql_for(sql, Dialect::Postgres).contains("secret"));
    let sql = r"SELECT E'a''b\'c', d";
    assert_eq!(mask_sql_for(sql, Dialect::Postgres), "SELECT ?, d");
}

#[test]
fn double_quotes_are_shown_only_where_they_surely_name_something() {
    let sql = r#"SELECT "id", "Bob Secret" FROM "shop"."orders" WHERE a = "x"#;
    masks(sql, "SELECT ?, ? FROM ?.? WHERE a = ?");
    let shown = mask_sql_for(sql, Dialect::Postgres);
    assert_eq!(shown, r#"SELECT "id", ? FROM "shop"."orders" WHERE a = ?"#);
    for dialect in [Dialect::MySql, Dialect::Sqlite] {
        assert_eq!(
            mask_sql_for(sql, dialect),
            "SELECT ?, ? FROM ?.? WHERE a = ?"
        );
    }
}

#[test]
fn a_known_database_shows_more() {
    let json = "SELECT data #>> '{a,b}' FROM t WHERE id = $1";
    masks(json, "SELECT data");
    assert_eq!(
        mask_sql_for(json, Dialect::Postgres),
        "SELECT data #>> ? FROM t WHERE id = $1"
    );
    let path = r"SELECT 'C:\', a, 'b' FROM t";
    assert_eq!(mask_sql_for(path, Dialect::Sqlite), "SELECT ?, a, ? FROM t");
}

#[test]
fn comments_and_white_space_fold_to_one_blank() {
    masks(
        "  SELECT\t1 -- a 'b\n\r\n , /* x /* y */ z */\u{b} c ",
        "SELECT ? , c",
    );
    masks("SELECT a -- it's\n, b /* c */ , d", "SELECT a , b , d");
    masks("/*! SELECT 1 */ SELECT /*+ hint('x') */ a", "SELECT a");
}

#[test]
fn lists_of_placeholders_fold() {
    masks(
        "SELECT a FROM t WHERE b IN (1, 2,3) AND c",
        "SELECT a FROM t WHERE b IN (?, …) AND c",
    );
    masks(
        "SELECT a FROM t WHERE b in($1,$2)",
        "SELECT a FROM t WHERE b in($1, …)",
    );
    masks(
        "SELECT a FROM t WHERE b IN (1)",
        "SELECT a FROM t WHERE b IN (?)",
    );
    masks(
        "SELECT a FROM t WHERE b IN (1, c)",
        "SELECT a FROM t WHERE b IN (?, c)",
    );
    masks(
        "INSERT INTO t (a, b) VALUES ($1, $2), ($3, $4),($5, $6) RETURNING a",
        "INSERT INTO t (a, b) VALUES ($1, $2), … RETURNING a",
    );
    masks("SELECT f(?, ?, ?)", "SELECT f(?, ?, ?)");
    let long = format!("SELECT a FROM t WHERE b IN ({}0)", "?, ".repeat(60_000));
    masks(&long, "SELECT a FROM t WHERE b IN (?, …");
}

#[test]
fn a_text_is_cut_after_masking() {
    let shown = mask_sql(&format!(
        "SELECT '{}', {}",
        "x".repeat(500),
        "ä, ".repeat(300)
    ));
    assert!(shown.starts_with("SELECT ?, ä, ä"), "{shown}");
    assert!(
        shown.ends_with('…') && shown.chars().count() == 201,
        "{shown}"
    );
}

#[test]
fn control_and_bidi_characters_are_escaped() {
    masks(
        "SELECT a\u{202e}b, c\u{1b}[2J",
        "SELECT a\\u{202e}b, c\\u{1b}?",
    );
}

#[test]
fn statements_about_access_show_their_keywords_only() {
    for (sql, shown) in [
        ("CREATE USER bob PASSWORD 'x'", "CREATE USER …"),
        (
            "create or replace user bob identified by secret",
            "create or replace user …",
        ),
        ("ALTER ROLE bob WITH PASSWORD x", "ALTER ROLE …"),
        ("ALTER /* c */ USER bob IDENTIFIED BY 'x'", "ALTER USER …"),
        ("DROP USER bob", "DROP USER …"),
        (
            "CREATE SERVER s FOREIGN DATA WRAPPER w OPTIONS (host 'x')",
            "CREATE SERVER …",
        ),
        (
            "CREATE USER MAPPING FOR bob SERVER s OPTIONS (password 'x')",
            "CREATE USER …",
        ),
        (
            "CREATE SUBSCRIPTION s CONNECTION 'password=x'",
            "CREATE SUBSCRIPTION …",
        ),
        (
            "CREATE DEFINER=`bob` PROCEDURE p() SELECT 1",
            "CREATE DEFINER …",
        ),
        ("ALTER SYSTEM SET a TO secret", "ALTER SYSTEM …"),
        ("GRANT ALL ON t TO bob IDENTIFIED BY 'x'", "GRANT …"),
        ("SET PASSWORD = secret", "SET PASSWORD …"),
        ("SET PASSWORD FOR bob = PASSWORD('x')", "SET PASSWORD …"),
        (
            "SET SESSION AUTHORIZATION bob",
            "SET SESSION AUTHORIZATION …",
        ),
        ("SET ROLE bob", "SET ROLE …"),
        ("SET LOCAL app.user TO secret", "SET LOCAL app.user …"),
        ("SET @@session.x = secret", "SET @@session.x …"),
        ("SET @x = secret", "SET @x …"),
        ("PRAGMA key = secret", "PRAGMA key …"),
        ("PRAGMA main.rekey('x')", "PRAGMA main.rekey …"),
        ("PRAGMA foreign_keys", "PRAGMA foreign_keys"),
        ("ATTACH DATABASE f AS a KEY secret", "ATTACH …"),
        ("CHANGE MASTER TO MASTER_PASSWORD=x", "CHANGE …"),
        ("START REPLICA PASSWORD=x", "START REPLICA …"),
        (
            "SELECT 1; SET PASSWORD = secret; SELECT 2",
            "SELECT ?; SET PASSWORD …",
        ),
        (
            "COPY t (a) FROM STDIN;\n1\tsecret\n\\.\n",
            "COPY t (a) FROM STDIN …",
        ),
        (
            "SELECT dblink_connect('password=x')",
            "SELECT dblink_connect(?)",
        ),
    ] {
        masks(sql, shown);
    }
    // The innocent twins.
    for sql in [
        "SELECT password, identified FROM users",
        "CREATE TABLE user (a int)",
        "CREATE UNIQUE INDEX IF NOT EXISTS i ON t (a)",
        "START TRANSACTION READ ONLY",
        "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "UPDATE t SET role = ?",
        "COPY t TO STDOUT",
    ] {
        masks(sql, sql);
    }
}

#[test]
fn a_megabyte_is_masked_and_classified() {
    let size = 1 << 20;
    for piece in [
        "'", "''", "(", "$a", "$a$", "/*", "*/", "\\'", "[", "\"`'", "1e", "--\n", ";", "ä",
        "IN (?,", "x ",
    ] {
        let text = piece.repeat(size / piece.len());
        for dialect in DIALECTS {
            assert!(mask_sql_for(&text, dialect).chars().count() <= 201);
            classify_for(&text, dialect);
            // The limits of the two, gone around: the tokenizer itself must not be quadratic.
            for reading in super::reading::readings(&text, dialect) {
                assert!(super::lexer::Lexer::new(&text, reading).count() > 0);
            }
        }
    }
}

#[test]
fn a_verb_says_what_happens_to_the_transaction() {
    use Verb::*;
    for (sql, verb) in [
        ("SELECT 1", Plain),
        (
            "  -- c\n select a from b where c = 'd;e' for update ; -- x",
            Plain,
        ),
        ("(SELECT 1) UNION (SELECT 2)", Plain),
        ("WITH x AS (SELECT 1) DELETE FROM t USING x", Plain),
        ("INSERT INTO t VALUES ($1)", Plain),
        ("EXPLAIN ANALYZE SELECT 1", Plain),
        ("EXPLAIN ANALYZE EXECUTE p", Unknown),
        ("BEGIN", Begin),
        ("begin immediate;", Begin),
        (
            "BEGIN TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE",
            Begin,
        ),
        ("BEGIN ISOLATION LEVEL SERIALIZABLE NOT DEFERRABLE", Begin),
        ("START TRANSACTION WITH CONSISTENT SNAPSHOT", Begin),
        ("BEGIN NOT ATOMIC SELECT a", Unknown),
        ("START REPLICA", Unknown),
        ("COMMIT", Commit),
        ("END TRANSACTION", Commit),
        ("COMMIT WORK AND NO CHAIN", Commit),
        ("COMMIT AND CHAIN", Unknown),
        ("COMMIT PREPARED 'x'", Unknown),
        ("COMMIT RELEASE", Unknown),
        ("ROLLBACK", Rollback),
        ("ABORT", Rollback),
        ("ROLLBACK WORK", Rollback),
        ("ROLLBACK AND CHAIN", Unknown),
        ("ROLLBACK TO a", Savepoint),
        ("ROLLBACK TRANSACTION TO SAVEPOINT a", Savepoint),
        ("SAVEPOINT a", Savepoint),
        ("RELEASE SAVEPOINT a", Savepoint),
        ("SELECT 1; SELECT 2", Script),
        ("BEGIN; COMMIT", Script),
        ("SELECT 1; /* c */ ; -- d", Plain),
        ("", Unknown),
        (" ; ", Unknown),
        ("-- c", Unknown),
        ("SET a = b", Unknown),
        ("CALL p()", Unknown),
        ("CREATE TABLE t (a int)", Unknown),
        ("PRAGMA user_version", Unknown),
        ("COPY t FROM STDIN", Unknown),
        ("SELECT 'a", Unknown),
        ("SELECT 1 /*", Unknown),
        ("\"SELECT\" 1", Unknown),
        ("SELECTED", Unknown),
        // One thing to one server, another thing to the next.
        (r"SELECT 'a\'; COMMIT; -- '", Unknown),
        ("SELECT 1 /*! ; COMMIT */", Unknown),
        ("/*! COMMIT */", Unknown),
        ("SELECT a # ; COMMIT", Unknown),
        ("SELECT $$;$$", Unknown),
        ("SELECT 1 --; COMMIT\n", Unknown),
        ("SELECT 1 --1; COMMIT\n", Unknown),
    ] {
        assert_eq!(classify(sql), verb, "{sql:?}");
    }
    assert_eq!(classify_for("SELECT $$;$$", Dialect::Postgres), Plain);
    assert_eq!(
        classify_for("SELECT 1 --; COMMIT\n", Dialect::Postgres),
        Plain
    );
    assert_eq!(
        classify_for("SELECT 1 --; COMMIT\n", Dialect::MySql),
        Script
    );
    assert_eq!(
        classify(&format!("SELECT {}", "1,".repeat(64 * 1024))),
        Unknown
    );
}
