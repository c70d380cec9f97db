//! The requests under way, for whatever blocks the runtime without holding anything.
//!
//! Responsible for a list that a request enters and leaves without an allocation and without a lock
//! that two requests share. Not responsible for how requests end: see `requests`.

use dashmap::DashMap;

use crate::registry::Bits;
use crate::scope::Scope;
use crate::sync::Mutex;

/// As `registry` keeps its cells: a bit says whose a place is, and readers take its lock.
pub(super) struct UnderWay {
    taken: Bits,
    places: Box<[Mutex<Option<Scope>>]>,
    /// By the scope's id, when more are under way than there are places.
    overflow: DashMap<u64, Scope>,
}

/// Where a request is listed; in the overflow without an index.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listed(Option<usize>);

impl UnderWay {
    /// As many are listed without a lock; more than most services have at a time.
    const PLACES: usize = 256;

    pub(super) fn new() -> Self {
        Self {
            taken: Bits::new(Self::PLACES),
            places: (0..Self::PLACES).map(|_| Mutex::new(None)).collect(),
            overflow: DashMap::new(),
        }
    }

    pub(super) fn enter(&self, scope: &Scope) -> Listed {
        let index = self.taken.take();
        match index {
            Some(index) => *self.places[index].lock() = Some(scope.clone()),
            None => {
                self.overflow.insert(scope.id(), scope.clone());
            }
        }
        Listed(index)
    }

    /// To be called once, with what [`UnderWay::enter`] answered for that scope.
    pub(super) fn leave(&self, listed: Listed, scope: &Scope) {
        match listed.0 {
            Some(index) => {
                let left = self.places[index].lock().take();
                self.taken.give_back(index);
                // Outside of the lock.
                drop(left);
            }
            None => drop(self.overflow.remove(&scope.id())),
        }
    }

    /// Copies of all.
    pub(super) fn list(&self) -> Vec<Scope> {
        let placed = self.places.iter().filter_map(|place| place.lock().clone());
        let others = self.overflow.iter().map(|scope| scope.clone());
        placed.chain(others).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_is_listed_from_its_begin_to_its_end() {
        let under_way = UnderWay::new();
        let scopes: Vec<_> = (0..UnderWay::PLACES + 3)
            .map(|_| Scope::new("request"))
            .collect();
        let places: Vec<_> = scopes.iter().map(|scope| under_way.enter(scope)).collect();
        let ids = || {
            let mut ids: Vec<_> = under_way.list().iter().map(Scope::id).collect();
            ids.sort_unstable();
            ids
        };
        assert_eq!(ids(), scopes.iter().map(Scope::id).collect::<Vec<_>>());
        // One with a place and one without.
        for index in [0, UnderWay::PLACES] {
            under_way.leave(places[index], &scopes[index]);
            assert!(!ids().contains(&scopes[index].id()));
        }
        assert_eq!(ids().len(), UnderWay::PLACES + 1);
        let next = Scope::new("next");
        assert!(under_way.enter(&next).0.is_some(), "a place is used again");
        assert!(ids().contains(&next.id()));
    }
}
