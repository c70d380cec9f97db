//! What a stack costs, by each way to get it, measured side by side in one run.
//!
//! Run it with `cargo bench --bench capture`, a few seconds. Rounds are interleaved; each row is the
//! median of its rounds. The stack is as deep as that of a handler under a few layers of middleware.

#[cfg(all(
    target_os = "linux",
    target_env = "gnu",
    target_arch = "x86_64",
    target_pointer_width = "64"
))]
#[allow(dead_code, unused_imports)] // What only the crate and its tests need.
#[path = "../src/site/capture/unwind/mod.rs"]
mod unwind;

#[cfg(all(
    target_os = "linux",
    target_env = "gnu",
    target_arch = "x86_64",
    target_pointer_width = "64"
))]
mod fast {
    use std::hint::black_box;
    use std::sync::OnceLock;
    use std::time::Instant;

    use crate::unwind::Unwinder;

    type Kept = Vec<usize>;

    static UNWINDER: Unwinder<Kept> = Unwinder::new();

    /// One row: how it is called, and what one capture took in each round.
    struct Row {
        name: &'static str,
        nanos: Vec<f64>,
    }

    impl Row {
        fn quantile(&self, part: f64) -> f64 {
            let mut sorted = self.nanos.clone();
            sorted.sort_by(f64::total_cmp);
            sorted[((sorted.len() - 1) as f64 * part) as usize]
        }
    }

    fn keep(addresses: &[usize]) -> Option<&'static Kept> {
        static ONE: OnceLock<Kept> = OnceLock::new();
        Some(ONE.get_or_init(|| addresses.to_vec()))
    }

    #[inline(never)]
    fn template() {
        black_box(UNWINDER.capture(1, keep).expect("rules for every frame"));
    }

    #[inline(never)]
    fn rules() {
        UNWINDER
            .addresses(|addresses| {
                black_box(addresses);
            })
            .expect("rules for every frame");
    }

    #[inline(never)]
    fn portable() {
        let mut addresses = [0usize; 64];
        let mut len = 0;
        backtrace::trace(|frame| {
            addresses[len] = frame.ip().addr();
            len += 1;
            len < addresses.len()
        });
        black_box(&addresses);
    }

    #[inline(never)]
    fn unresolved() {
        black_box(backtrace::Backtrace::new_unresolved());
    }

    #[inline(never)]
    fn forced() {
        let _ = black_box(std::backtrace::Backtrace::force_capture());
    }

    type Way = (&'static str, fn(), u32);

    const WAYS: &[Way] = &[
        ("template: a stack seen before", template, 20_000),
        ("walk over known rules", rules, 20_000),
        ("portable: backtrace::trace", portable, 300),
        ("backtrace::Backtrace::new_unresolved", unresolved, 300),
        ("std::backtrace::Backtrace::force_capture", forced, 300),
    ];

    /// Frames of different sizes, as real ones are.
    #[inline(never)]
    fn descend<const SIZE: usize>(depth: usize, run: &mut dyn FnMut()) {
        let room = [0u8; SIZE];
        black_box(&room);
        match depth {
            0 => run(),
            _ if SIZE > 100 => descend::<40>(depth - 1, run),
            _ => descend::<200>(depth - 1, run),
        }
        black_box(&room);
    }

    pub(crate) fn main() {
        let quick = std::env::args().any(|word| word == "--quick");
        let rounds = if quick { 9 } else { 41 };
        // The first capture of the process, with everything that it has to learn.
        let start = Instant::now();
        descend::<40>(34, &mut template);
        println!("first capture of the process: {:?}", start.elapsed());

        let mut rows: Vec<Row> = WAYS
            .iter()
            .map(|&(name, ..)| Row {
                name,
                nanos: Vec::new(),
            })
            .collect();
        let mut frames = 0;
        for round in 0..=rounds {
            for (row, &(_, way, count)) in rows.iter_mut().zip(WAYS) {
                descend::<40>(34, &mut || {
                    UNWINDER
                        .addresses(|addresses| frames = addresses.len())
                        .expect("rules for every frame");
                    way();
                    let start = Instant::now();
                    for _ in 0..count {
                        way();
                    }
                    let nanos = start.elapsed().as_nanos() as f64 / f64::from(count);
                    // The first round warms up.
                    if round > 0 {
                        row.nanos.push(nanos);
                    }
                });
            }
        }
        println!("{frames} frames, {rounds} rounds, interleaved\n");
        println!("{:<45} {:>10} {:>20}", "", "median", "p10 .. p90");
        for row in &rows {
            println!(
                "{:<45} {:>7.1} ns {:>8.1} .. {:>6.1} ns",
                row.name,
                row.quantile(0.5),
                row.quantile(0.1),
                row.quantile(0.9)
            );
        }
    }
}

fn main() {
    #[cfg(all(
        target_os = "linux",
        target_env = "gnu",
        target_arch = "x86_64",
        target_pointer_width = "64"
    ))]
    fast::main();
    #[cfg(not(all(
        target_os = "linux",
        target_env = "gnu",
        target_arch = "x86_64",
        target_pointer_width = "64"
    )))]
    println!("there is no fast capture on this target");
}
