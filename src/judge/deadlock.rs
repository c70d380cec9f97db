//! Pools whose every connection waits for a connection.
//!
//! Responsible for the question whether users of pools can go on at all, as a graph of plain
//! numbers, and for putting it about a snapshot. Not responsible for how long that has been so:
//! only what nothing moves in for a while is a deadlock, and a snapshot is an instant.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use crate::registry::{Activity, Holder, Owner, Phase, Snapshot};

/// The pools in which nobody can go on, as one snapshot shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stuck {
    /// For certain, if nothing moves.
    pub(crate) certain: HashSet<u64>,
    /// If also nothing runs on the connections that were lent raw. Without those of `certain`.
    pub(crate) suspected: HashSet<u64>,
}

/// Which pools are stuck in this snapshot.
pub(crate) fn stuck(snapshot: &Snapshot) -> Stuck {
    let mut full = HashSet::new();
    for pool in &snapshot.pools {
        // Counted from the list: at detail `off` holders are not listed, and nothing can be said.
        // What was leaked on purpose never comes back: the pool is that much smaller.
        let of_pool = |holder: &&Holder| {
            holder.pool_id == pool.id
                && matches!(holder.phase, Phase::Held | Phase::LeakedOnPurpose)
        };
        if snapshot.holders.iter().filter(of_pool).count() >= pool.status.max as usize {
            full.insert(pool.id);
        }
    }
    let waits: Vec<(Owner, u64)> = snapshot
        .waiters
        .iter()
        // One that was woken has been granted what it waits for, or has given up.
        .filter(|waiter| waiter.woken_ago.is_none())
        .filter_map(|waiter| Some((waiter.owner?, waiter.pool_id)))
        .collect();
    if full.is_empty() || waits.is_empty() {
        return Stuck::default();
    }
    let out = |unknown_is_blocked: bool| -> Vec<Out<u64, Owner>> {
        let held = |holder: &&Holder| holder.phase == Phase::Held;
        let is_unknown = |holder: &Holder| matches!(holder.activity, Activity::Unknown { .. });
        snapshot
            .holders
            .iter()
            .filter(held)
            .filter_map(|holder| {
                Some(Out {
                    pool: holder.pool_id,
                    user: holder.owner?,
                    blocked: holder.waits_for_its_owner()
                        || (unknown_is_blocked && is_unknown(holder) && !holder.was_at_work()),
                })
            })
            .collect()
    };
    let certain = deadlocked(&full, &out(false), &waits);
    let suspected = deadlocked(&full, &out(true), &waits)
        .difference(&certain)
        .copied()
        .collect();
    Stuck { certain, suspected }
}

/// One connection that is out.
#[derive(Clone, Copy, Debug)]
struct Out<P, U> {
    pool: P,
    user: U,
    /// No statement runs on it: only its user can bring it back.
    blocked: bool,
}

/// The pools in which nobody can go on: all their connections are out, none works, and each one's
/// user waits for a pool of the same set. `full`: pools with every permit in use by `out`.
///
/// The greatest such set: it starts with every full pool and drops those with a way out until
/// nothing changes.
fn deadlocked<P, U>(full: &HashSet<P>, out: &[Out<P, U>], waits: &[(U, P)]) -> HashSet<P>
where
    P: Copy + Eq + Hash,
    U: Copy + Eq + Hash,
{
    let mut waiting: HashMap<U, Vec<P>> = HashMap::new();
    for (user, pool) in waits {
        waiting.entry(*user).or_default().push(*pool);
    }
    let wanted: HashSet<P> = waits.iter().map(|(_, pool)| *pool).collect();
    let mut stuck: HashSet<P> = full.intersection(&wanted).copied().collect();
    loop {
        let ways_out: HashSet<P> = out
            .iter()
            .filter(|one| {
                let waits_inside = waiting
                    .get(&one.user)
                    .is_some_and(|pools| pools.iter().any(|pool| stuck.contains(pool)));
                !(one.blocked && waits_inside)
            })
            .map(|one| one.pool)
            .collect();
        let before = stuck.len();
        stuck.retain(|pool| !ways_out.contains(pool));
        if stuck.len() == before {
            return stuck;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASKS: usize = 4;

    /// What one task does next: hold some connections of each pool and, when `wants`, wait for one
    /// more of that pool before it gives all of them back.
    #[derive(Clone, Copy, Debug)]
    struct Task {
        holds: [usize; 2],
        wants: Option<usize>,
    }

    /// Whether some order of grants lets every task finish, by trying all of them.
    fn someone_is_stuck(tasks: &[Task], sizes: [usize; 2]) -> Vec<bool> {
        // A task that wants nothing finishes by itself and gives back what it holds. Finishing only
        // ever frees connections, so the order does not matter: run until nothing changes.
        let mut done = vec![false; tasks.len()];
        loop {
            let mut changed = false;
            for (index, task) in tasks.iter().enumerate() {
                if done[index] {
                    continue;
                }
                let can_go_on = task.wants.is_none_or(|pool| {
                    let out: usize = tasks
                        .iter()
                        .zip(&done)
                        .filter(|(_, done)| !**done)
                        .map(|(task, _)| task.holds[pool])
                        .sum();
                    out < sizes[pool]
                });
                if can_go_on {
                    done[index] = true;
                    changed = true;
                }
            }
            if !changed {
                return done.iter().map(|done| !done).collect();
            }
        }
    }

    fn verdict(tasks: &[Task], sizes: [usize; 2]) -> HashSet<usize> {
        let mut out = Vec::new();
        let mut waits = Vec::new();
        for (user, task) in tasks.iter().enumerate() {
            for (pool, count) in task.holds.iter().enumerate() {
                out.extend((0..*count).map(|_| Out {
                    pool,
                    user,
                    blocked: task.wants.is_some(),
                }));
            }
            waits.extend(task.wants.map(|pool| (user, pool)));
        }
        let full = (0..2)
            .filter(|pool| out.iter().filter(|one| one.pool == *pool).count() >= sizes[*pool])
            .collect();
        deadlocked(&full, &out, &waits)
    }

    #[test]
    fn it_agrees_with_brute_force_on_every_situation_of_four_tasks_and_three_connections() {
        let mut choices = Vec::new();
        for first in 0..=2 {
            for second in 0..=1 {
                for wants in [None, Some(0), Some(1)] {
                    choices.push(Task {
                        holds: [first, second],
                        wants,
                    });
                }
            }
        }
        let mut situations = 0_u32;
        let mut deadlocks = 0_u32;
        for sizes in [[1, 1], [2, 1], [3, 1], [1, 2]] {
            for code in 0..choices.len().pow(TASKS as u32) {
                let tasks: Vec<Task> = (0..TASKS as u32)
                    .map(|task| choices[code / choices.len().pow(task) % choices.len()])
                    .collect();
                let out = |pool: usize| tasks.iter().map(|task| task.holds[pool]).sum::<usize>();
                if out(0) > sizes[0] || out(1) > sizes[1] {
                    continue;
                }
                situations += 1;
                let stuck = someone_is_stuck(&tasks, sizes);
                // A pool is deadlocked when somebody waits for it who can never be served.
                let truth: HashSet<usize> = tasks
                    .iter()
                    .zip(&stuck)
                    .filter(|(_, stuck)| **stuck)
                    .filter_map(|(task, _)| task.wants)
                    .collect();
                deadlocks += u32::from(!truth.is_empty());
                assert_eq!(verdict(&tasks, sizes), truth, "{tasks:?} {sizes:?}");
            }
        }
        assert!(
            situations > 2_000 && deadlocks > 100,
            "{situations} {deadlocks}"
        );
    }

    #[test]
    fn a_connection_on_which_a_statement_runs_is_a_way_out() {
        let full = HashSet::from([0]);
        let mut out = [Out {
            pool: 0,
            user: 1,
            blocked: true,
        }];
        assert_eq!(deadlocked(&full, &out, &[(1, 0)]), full);
        out[0].blocked = false;
        assert_eq!(deadlocked(&full, &out, &[(1, 0)]), HashSet::new());
    }
}
