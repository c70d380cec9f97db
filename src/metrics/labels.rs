//! Label values that the code of a service decides: bounded, whatever it does.
//!
//! Responsible for the bound. Not responsible for which labels there are.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// The value that stands for all that are too many.
const OTHER: &str = "other";

/// The first so many distinct values are kept for good; every further one is `other`.
///
/// For good, because a series that was once published is kept by whoever stores it anyway.
pub(super) struct Capped {
    most: usize,
    known: Mutex<HashSet<String>>,
}

impl Capped {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            known: Mutex::default(),
        }
    }

    /// The value to show for `value`.
    pub(super) fn shown(&self, value: String) -> String {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.contains(&value) {
            return value;
        }
        if known.len() >= self.most {
            return OTHER.to_string();
        }
        known.insert(value.clone());
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_stays_and_what_is_too_much_is_other() {
        let capped = Capped::new(2);
        let shown = |value: &str| capped.shown(value.to_string());
        assert_eq!((shown("a").as_str(), shown("b").as_str()), ("a", "b"));
        assert_eq!(shown("c"), "other");
        assert_eq!((shown("a").as_str(), shown("b").as_str()), ("a", "b"));
        assert_eq!(Capped::new(0).shown("a".into()), "other");
    }
}
