//! Checkouts: one task, many tasks, warm and cold.
//!
//! Responsible for interleaving: in each round every row of a table is measured once, so that a
//! noisy machine disturbs them alike.

use std::hint::black_box;
use std::time::{Duration, Instant};

use leaktrace::{Detail, Scope};
use sqlx::{Connection, Database};
use tokio::runtime::{Builder, Runtime};
use tracing::Instrument;

use super::subject::{Backend, Design, POOL, Setting, Subject};
use super::table::{Row, Table};

type Options<DB> = <<DB as Database>::Connection as Connection>::Options;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    pub(crate) rounds: u32,
    pub(crate) count: u32,
}

/// The designs of every table of checkouts. The first is what the others are compared with.
pub(crate) fn settings() -> Vec<Setting> {
    vec![
        Setting::new(Design::Raw, false),
        Setting::new(Design::Raw, true),
        Setting::new(Design::Watched(Detail::Off), false),
        Setting::new(Design::Watched(Detail::Location), false),
        Setting::new(Design::Watched(Detail::Backtrace), false),
        Setting::new(Design::Portable, false),
        Setting::new(Design::Measured, false),
        Setting::new(Design::Own(Detail::Location), true),
        Setting::new(Design::Own(Detail::Backtrace), true),
        Setting::new(Design::Naive, false),
    ]
}

fn empty(settings: &[Setting]) -> Vec<Row> {
    settings
        .iter()
        .map(|setting| Row {
            test_before_acquire: Some(setting.test_before_acquire),
            detail: setting.detail(),
            ..Row::new(setting.name())
        })
        .collect()
}

pub(crate) fn one_thread() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// What surrounds each checkout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Around {
    Nothing,
    /// 4 MiB are written between two checkouts.
    ColdCache,
    /// A scope, a span and a subscriber that takes it.
    Request,
}

/// One task, one checkout after the other.
pub(crate) fn single<DB: Backend>(
    database: &str,
    options: &Options<DB>,
    settings: &[Setting],
    statement: bool,
    around: Around,
    effort: Effort,
) -> Result<Table, sqlx::Error> {
    let runtime = one_thread();
    let mut rows = empty(settings);
    let work = async {
        let mut subjects = Vec::new();
        for setting in settings {
            // The pool of the row before it: where a pool lies in memory makes 200 ns too.
            let delayed = match (setting.design, subjects.last()) {
                (Design::Delayed, Some(plain)) => Some(Subject::<DB>::clone(plain)),
                _ => None,
            };
            subjects.push(match delayed {
                Some(same) => Subject {
                    setting: *setting,
                    ..same
                },
                None => Subject::<DB>::open(*setting, options).await?,
            });
        }
        let mut wash = vec![
            0_u8;
            if around == Around::ColdCache {
                4 << 20
            } else {
                0
            }
        ];
        for round in 0..=effort.rounds {
            for (subject, row) in subjects.iter().zip(&mut rows) {
                let mut spent = Duration::ZERO;
                for _ in 0..effort.count {
                    for line in wash.iter_mut().step_by(64) {
                        *line = line.wrapping_add(1);
                    }
                    black_box(&mut wash);
                    spent += subject.checkout(statement).await?;
                    subject.settle().await;
                }
                // The first round warms up.
                if round > 0 {
                    row.add(spent, effort.count);
                }
            }
        }
        for subject in subjects {
            subject.close().await;
        }
        Ok::<_, sqlx::Error>(())
    };
    let subscriber = if around == Around::Request {
        let subscriber = tracing_subscriber::registry();
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("request");
            runtime.block_on(Scope::new("bench").run(work.instrument(span)))
        })?;
        "subscriber registry, in a scope and a span"
    } else {
        runtime.block_on(work)?;
        "subscriber none"
    };
    let cold = match around {
        Around::ColdCache => ", 4 MiB written before each",
        _ => "",
    };
    Ok(Table {
        title: format!("{database}, one task: {}{cold}", what(statement)),
        settings: format!("{subscriber}, threads 1, pool {POOL}"),
        rows,
    })
}

/// 64 tasks on a pool of 10: time for each checkout, all included.
pub(crate) fn many<DB: Backend>(
    database: &str,
    options: &Options<DB>,
    settings: &[Setting],
    statement: bool,
    effort: Effort,
) -> Result<Table, sqlx::Error> {
    const TASKS: u32 = 64;
    const THREADS: usize = 2;
    let runtime = Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()
        .expect("a runtime");
    let mut rows = empty(settings);
    let each = (effort.count / TASKS).max(1);
    runtime.block_on(async {
        let mut subjects = Vec::new();
        for setting in settings {
            subjects.push(Subject::<DB>::open(*setting, options).await?);
        }
        for round in 0..=effort.rounds {
            for (subject, row) in subjects.iter().zip(&mut rows) {
                let start = Instant::now();
                let mut tasks = tokio::task::JoinSet::new();
                for _ in 0..TASKS {
                    tasks.spawn(hammer(subject.clone(), each, statement));
                }
                while let Some(done) = tasks.join_next().await {
                    done.expect("no task panics")?;
                }
                if round > 0 {
                    row.add(start.elapsed(), TASKS * each);
                }
            }
        }
        for subject in subjects {
            subject.close().await;
        }
        Ok::<_, sqlx::Error>(())
    })?;
    Ok(Table {
        title: format!("{database}, {TASKS} tasks: {}, whole time", what(statement)),
        settings: format!("subscriber none, threads {THREADS}, pool {POOL}"),
        rows,
    })
}

async fn hammer<DB: Backend>(
    subject: Subject<DB>,
    times: u32,
    statement: bool,
) -> Result<(), sqlx::Error> {
    for _ in 0..times {
        subject.checkout(statement).await?;
    }
    Ok(())
}

fn what(statement: bool) -> &'static str {
    match statement {
        true => "acquire, SELECT 1, drop",
        false => "acquire and drop",
    }
}
