//! Tests run in parallel: a monitor each, and each sees only its own.

use leaktrace::assert_no_leaks;

use crate::ground::*;

#[test]
fn eight_tests_at_once_see_only_their_own() {
    let threads: Vec<_> = (0..8)
        .map(|number| {
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("a runtime");
                runtime.block_on(async {
                    let w = sqlite(silent(), 2).await;
                    for round in 0..20 {
                        let _check = w.monitor.leak_check();
                        let conn = w.pool.acquire().await.expect("a connection");
                        assert_eq!(w.monitor.holders().len(), 1, "{number} in round {round}");
                        drop(conn);
                        assert_no_leaks!(w.monitor);
                    }
                    let kept = w.pool.acquire().await.expect("a connection");
                    let leaks = w.monitor.find_leaks(SECOND).await.expect_err("its own one");
                    assert_eq!(leaks.holders().len(), 1);
                    drop(kept);
                    assert_no_leaks!(w.monitor);
                });
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("a test among others");
    }
}
