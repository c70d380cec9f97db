//! What leaktrace costs beside raw sqlx, measured side by side in one run.
//!
//! Run it with `scripts/bench`, which brings a PostgreSQL server. Rounds of all rows of a table are
//! interleaved, so that a noisy machine disturbs them alike. Only what stands in one table can be
//! compared.

mod figure;
mod findings;
mod groups;
mod instructions;
mod publish;
mod service;
mod subject;
mod table;
mod targets;

use std::str::FromStr;

use leaktrace::Detail;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection, Postgres, Sqlite};

use self::groups::{Around, Effort};
use self::subject::{Design, Setting};
use self::table::Table;
use self::targets::Target;

/// What was asked for on the command line.
#[derive(Debug, Default)]
struct Wishes {
    quick: bool,
    self_check: bool,
    write: bool,
    /// `--count DESIGN`: checkouts for callgrind, and nothing else.
    count: Option<String>,
}

const USAGE: &str = "usage: checkout [--quick] [--self-check] [--write] [--count DESIGN]";

fn wishes() -> Result<Wishes, String> {
    let mut wishes = Wishes::default();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--quick" => wishes.quick = true,
            "--self-check" => wishes.self_check = true,
            "--write" => wishes.write = true,
            "--count" => wishes.count = Some(words.next().ok_or(USAGE)?),
            _ => return Err(USAGE.to_string()),
        }
    }
    Ok(wishes)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let wishes = wishes()?;
    if let Some(design) = &wishes.count {
        return instructions::run(design);
    }
    if wishes.self_check {
        return self_check();
    }
    let (tables, targets) = measure(wishes.quick)?;
    println!();
    for target in &targets {
        println!("{}", target.line());
    }
    if wishes.write {
        publish::write(&tables, &targets)?;
    }
    Ok(())
}

/// What the server of the tests is called; `scripts/bench` sets it.
fn postgres_url() -> Option<String> {
    std::env::var("LEAKTRACE_TEST_POSTGRES_URL")
        .ok()
        .filter(|url| !url.is_empty())
}

/// The same server by TCP and, where it has one, by its unix socket.
fn postgres() -> Result<Vec<(&'static str, PgConnectOptions)>, sqlx::Error> {
    let Some(url) = postgres_url() else {
        println!("PostgreSQL: not measured, LEAKTRACE_TEST_POSTGRES_URL is not set\n");
        return Ok(Vec::new());
    };
    let tcp = PgConnectOptions::from_str(&url)?;
    let directories: String = groups::one_thread().block_on(async {
        let mut conn = PgConnection::connect_with(&tcp).await?;
        sqlx::query_scalar("SHOW unix_socket_directories")
            .fetch_one(&mut conn)
            .await
    })?;
    let mut ways = Vec::new();
    match directories
        .split(',')
        .find(|directory| !directory.trim().is_empty())
    {
        Some(directory) => ways.push((
            "PostgreSQL, unix socket",
            tcp.clone().socket(directory.trim().trim_matches('"')),
        )),
        None => println!("PostgreSQL, unix socket: not measured, the server has none\n"),
    }
    ways.push(("PostgreSQL, TCP", tcp));
    Ok(ways)
}

struct Run {
    tables: Vec<Table>,
    targets: Vec<Target>,
}

impl Run {
    fn add(&mut self, table: Table, targets: impl IntoIterator<Item = Target>) {
        println!("{}", table.text());
        self.tables.push(table);
        self.targets.extend(targets);
    }
}

fn measure(quick: bool) -> Result<(Vec<Table>, Vec<Target>), Box<dyn std::error::Error>> {
    println!("rows of one table were measured in interleaved rounds; compare nothing else");
    println!("stacks: the default capture of this target; `portable capture` is the system's\n");
    let effort = |rounds, count| match quick {
        true => Effort {
            rounds: 7,
            count: count / 10,
        },
        false => Effort { rounds, count },
    };
    let mut run = Run {
        tables: Vec::new(),
        targets: Vec::new(),
    };
    let settings = groups::settings();
    let sqlite = subject::sqlite()?;
    // The single task, warm and without a statement, is what S1 is about.
    for statement in [false, true] {
        let table = groups::single::<Sqlite>(
            "SQLite",
            &sqlite,
            &settings,
            statement,
            Around::Nothing,
            effort(31, 1_000),
        )?;
        let mut targets = targets::warm(&table);
        if !statement {
            targets.extend(targets::bypass(&table));
        }
        run.add(table, targets);
    }
    let few = [
        Setting::new(Design::Raw, false),
        Setting::new(Design::Watched(Detail::Location), false),
        Setting::new(Design::Watched(Detail::Backtrace), false),
    ];
    let around = groups::single::<Sqlite>(
        "SQLite",
        &sqlite,
        &few,
        false,
        Around::Request,
        effort(31, 1_000),
    )?;
    let targets = targets::warm(&around);
    run.add(around, targets);
    let cold = groups::single::<Sqlite>(
        "SQLite",
        &sqlite,
        &few,
        false,
        Around::ColdCache,
        effort(15, 200),
    )?;
    let targets = targets::cold(&cold);
    run.add(cold, targets);
    for statement in [false, true] {
        let table =
            groups::many::<Sqlite>("SQLite", &sqlite, &settings, statement, effort(15, 6_400))?;
        let targets = targets::throughput(&table);
        run.add(table, targets);
    }
    for (way, options) in postgres()? {
        for statement in [false, true] {
            let table = groups::single::<Postgres>(
                way,
                &options,
                &settings,
                statement,
                Around::Nothing,
                effort(15, 500),
            )?;
            let mut targets = targets::warm(&table);
            if !statement {
                targets.extend(targets::bypass(&table));
            }
            run.add(table, targets);
            let table =
                groups::many::<Postgres>(way, &options, &settings, statement, effort(9, 6_400))?;
            let targets = targets::throughput(&table);
            run.add(table, targets);
        }
    }
    let table = service::layer(effort(31, 2_000));
    let targets = targets::layer(&table);
    run.add(table, targets);
    run.add(service::load(effort(15, 6_400))?, None);
    let table = findings::lateness(if quick { 5 } else { 20 })?;
    let targets = targets::late(&table);
    run.add(table, targets);
    let table = findings::copies(if quick { 15 } else { 101 })?;
    let target = targets::copies(&table);
    run.add(table, target);
    let (rounds, count) = if quick { (5, 500) } else { (15, 3_000) };
    let table = findings::naming(rounds, count)?;
    let target = targets::naming(&table);
    run.add(table, Some(target));
    Ok((run.tables, run.targets))
}

/// How often the self-check measures at most: what else a machine does may hide 200 ns once.
const TRIES: u32 = 3;

/// A measurement that does not see 200 ns measures nothing.
fn self_check() -> Result<(), Box<dyn std::error::Error>> {
    let settings = [
        Setting::new(Design::Raw, false),
        Setting::new(Design::Watched(Detail::Backtrace), false),
        Setting::new(Design::Delayed, false),
    ];
    // Many short ones: on a busy machine most of them still run without being interrupted.
    let effort = Effort {
        rounds: 150,
        count: 100,
    };
    for _ in 0..TRIES {
        let table = groups::single::<Sqlite>(
            "SQLite",
            &subject::sqlite()?,
            &settings,
            false,
            Around::Nothing,
            effort,
        )?;
        println!("{}", table.text());
        let target = targets::delayed(&table).ok_or("the slowed row is missing")?;
        println!("{}", target.line());
        if target.met {
            return Err("200 ns were added to acquire, and S1 is said to be met".into());
        }
        // By the rounds that were disturbed least: on a busy machine more than half of them may be, and
        // that only ever adds.
        let [plain, delayed] = [&table.rows[1], &table.rows[2]].map(|row| row.quantile(0.1));
        let seen = delayed - plain;
        println!("of the 200 ns that were added, {seen:.0} ns were seen");
        if (150.0..450.0).contains(&seen) {
            return Ok(());
        }
    }
    Err("200 ns were added to acquire, and something else was seen".into())
}
