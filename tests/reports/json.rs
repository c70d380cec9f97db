//! The JSON that a program reads: its shape is a promise.

use leaktrace::Kind;
use serde_json::Value;

use crate::ground::*;

/// The names and types of a value, one line each.
fn shape(value: &Value) -> String {
    fn walk(value: &Value, path: &str, out: &mut Vec<String>) {
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(items) => {
                if let Some(first) = items.first() {
                    return walk(first, &format!("{path}[]"), out);
                }
                "[]"
            }
            Value::Object(fields) => {
                for (name, value) in fields {
                    walk(value, &format!("{path}.{name}"), out);
                }
                return;
            }
        };
        out.push(format!("{path}: {kind}"));
    }
    let mut out = Vec::new();
    walk(value, "", &mut out);
    out.sort();
    out.join("\n")
}

/// Everything promised is there, with its type. More may be added.
fn assert_keeps(json: &Value, promised: &str) {
    let shape = shape(json);
    let missing: Vec<&str> = promised
        .lines()
        .filter(|line| !shape.lines().any(|known| known == *line))
        .collect();
    assert!(missing.is_empty(), "{missing:?} not in\n{shape}");
}

#[tokio::test]
async fn the_shape_of_a_finding() {
    let w = sqlite(silent(), 2).await;
    let job = leaktrace::Scope::new("a job");
    let mut conn = job
        .run(async { w.pool.labeled("x").acquire().await })
        .await
        .expect("a connection");
    sqlx::query(QUICK)
        .execute(&mut *conn)
        .await
        .expect("a statement");
    aged(&w.pool, millis(20)).await;
    w.monitor.set_threshold(millis(10));
    let found = w.finding(Kind::HeldTooLong).await;
    let json = serde_json::to_value(&found).expect("JSON");
    assert_keeps(&json, include_str!("finding.shape"));
    assert_eq!(
        (&json["kind"], &json["severity"]),
        (&"held_too_long".into(), &"warn".into())
    );
    assert_eq!(json["id"], found.id.to_string());
    let holder = &json["holders"][0];
    assert_eq!(holder["phase"], "held");
    assert_eq!(holder["activity"], "idle");
    assert_eq!(holder["threshold_ms"], 10);
    let held = holder["held_ms"].as_u64().expect("a number");
    assert_eq!(u128::from(held), found.holders[0].held_for.as_millis());
    let place = holder["acquired_by"].as_str().expect("a place");
    assert!(place.starts_with("tests/reports/json.rs:"), "{place}");
    let when = holder["acquired_at"].as_str().expect("a time");
    assert!(
        when.ends_with('Z') && when.len() == "2026-01-01T00:00:00.000Z".len(),
        "{when}"
    );
}

#[tokio::test]
async fn the_shape_of_a_report() {
    let w = sqlite(silent(), 2).await;
    w.pool
        .acquire()
        .await
        .expect("a connection")
        .release()
        .await;
    let job = leaktrace::Scope::new("a job");
    let labeled = w.pool.labeled("x");
    let mut conn = job
        .run(async { labeled.acquire().await })
        .await
        .expect("a connection");
    sqlx::query(QUICK)
        .execute(&mut *conn)
        .await
        .expect("a statement");
    let _ = w.pool.as_sqlx().size();
    aged(&w.pool, millis(20)).await;
    w.monitor.set_threshold(millis(10));
    w.finding(Kind::HeldTooLong).await;
    let json = serde_json::to_value(w.monitor.report()).expect("JSON");
    assert_keeps(&json, include_str!("report.shape"));
    assert_eq!(
        json["groups"][0]["routes"][0],
        serde_json::json!(["a job", 1])
    );
}
