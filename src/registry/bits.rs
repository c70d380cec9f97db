//! Which of so many things is taken: one bit each.
//!
//! Responsible for taking and giving back without a lock. Not responsible for the things. Uses
//! nothing but `sync`, so that `models` can run it in every order there is.

use crate::sync::atomic::{AtomicU64, Ordering};

/// A bit for each of them: set while it is taken.
///
/// Nobody but its owner clears a bit, so a thing has one owner at a time, and what one owner did to
/// it is seen by the next.
pub(crate) struct Bits(Box<[AtomicU64]>);

impl Bits {
    const WORD: usize = 64;

    pub(crate) fn new(count: usize) -> Self {
        let words = count.div_ceil(Self::WORD);
        let word = |index: usize| {
            // The bits beyond the end are taken for good.
            let left = count - index * Self::WORD;
            AtomicU64::new(if left < Self::WORD { !0 << left } else { 0 })
        };
        Self((0..words).map(word).collect())
    }

    /// Takes the first one that is free.
    pub(crate) fn take(&self) -> Option<usize> {
        for (index, word) in self.0.iter().enumerate() {
            let mut seen = word.load(Ordering::Relaxed);
            while seen != !0 {
                let bit = (!seen).trailing_zeros() as usize;
                // Acquire: what its last owner did is over.
                let before = word.fetch_or(1 << bit, Ordering::Acquire);
                if before & (1 << bit) == 0 {
                    return Some(index * Self::WORD + bit);
                }
                seen = before;
            }
        }
        None
    }

    /// Gives one back that [`Bits::take`] answered.
    pub(crate) fn give_back(&self, index: usize) {
        let bit = 1_u64 << (index % Self::WORD);
        self.0[index / Self::WORD].fetch_and(!bit, Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn each_index_is_taken_once_and_can_be_taken_again() {
        let bits = Bits::new(70);
        let mut taken: Vec<_> = std::iter::from_fn(|| bits.take()).collect();
        assert_eq!(taken.len(), 70);
        taken.sort_unstable();
        taken.dedup();
        assert_eq!(taken, (0..70).collect::<Vec<_>>());
        bits.give_back(69);
        bits.give_back(3);
        assert_eq!(bits.take(), Some(3));
        assert_eq!(bits.take(), Some(69));
        assert_eq!(bits.take(), None);
    }
}
