//! Lines and statements of holders at the same time are never mixed up.

use crate::ground::*;

const ROUNDS: usize = 300;

/// Two tasks, two lines, one pool: each sees its own line and statement on its own holder.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_tasks_at_two_lines_never_swap_them() {
    let w = sqlite(silent(), 2).await;
    macro_rules! task {
        ($sql:literal, $shown:literal) => {{
            let pool = w.pool.clone();
            tokio::spawn(async move {
                for round in 0..ROUNDS {
                    let mut conn = pool.acquire().await.expect("a connection");
                    let taken = line!();
                    sqlx::query($sql)
                        .execute(&mut *conn)
                        .await
                        .expect("a statement");
                    let used = line!();
                    let me = tokio::task::id().to_string();
                    let mine: Vec<_> = pool
                        .holders()
                        .into_iter()
                        .filter(|holder| holder.task_id.as_ref() == Some(&me))
                        .filter(|holder| holder.phase == leaktrace::Phase::Held)
                        .collect();
                    assert_eq!(mine.len(), 1, "round {round}");
                    let line = |place: &Option<leaktrace::Location>| {
                        place.as_ref().map(|p| (p.line(), p.column()))
                    };
                    assert_eq!(line(&mine[0].acquired_by).map(|at| at.0), Some(taken));
                    assert_eq!(line(&mine[0].last_used_by).map(|at| at.0), Some(used));
                    assert_eq!(mine[0].last_sql.as_deref(), Some($shown));
                    assert_eq!(mine[0].uses, 1);
                }
            })
        }};
    }
    let one = task!("SELECT 1 AS one", "SELECT ? AS one");
    let two = task!("SELECT 2 AS two", "SELECT ? AS two");
    one.await.expect("the first task");
    two.await.expect("the second task");
    assert_eq!(
        w.monitor
            .report()
            .totals
            .iter()
            .map(|site| site.count)
            .sum::<u64>(),
        2 * ROUNDS as u64
    );
}
