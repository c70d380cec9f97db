//! Rules by return address, shared by all threads without a lock.
//!
//! Responsible for keeping and finding them. Not responsible for whether they are still true: the
//! caller clears the table.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::arch::{Arch, Native};
use super::rule::Rule;

/// An address and its rule in one word, so that no reader can see half of an entry.
///
/// An address has 47 bits on x86_64, and 46 on aarch64, where the lowest two are zero. Twelve of
/// them follow from the set in which it is found: 35 remain, and a rule has 29.
const INDEX_BITS: u32 = 12;
const WAYS: usize = 4;
const KEY_BITS: u32 = 47;

#[repr(align(32))]
struct Set([AtomicU64; WAYS]);

/// 128 KiB of zeros, of which the system provides what is touched.
pub(super) struct Rules {
    sets: [Set; 1 << INDEX_BITS],
    next_victim: AtomicUsize,
}

const _: () = assert!(KEY_BITS - INDEX_BITS + Rule::BITS == 64);

impl Rules {
    pub(super) const fn new() -> Self {
        Self {
            sets: [const { Set([const { AtomicU64::new(0) }; WAYS]) }; 1 << INDEX_BITS],
            next_victim: AtomicUsize::new(0),
        }
    }

    /// The set and what an entry for this address starts with. From both, the address follows: the
    /// upper bits are the tag, and the lower are the set's number combined with bits of the tag.
    #[inline]
    fn place(address: usize) -> (usize, u64) {
        let key = (address as u64) >> Native::ALIGNED;
        let tag = key >> INDEX_BITS;
        let index = (key ^ tag ^ tag >> INDEX_BITS) & ((1 << INDEX_BITS) - 1);
        (index as usize, tag << Rule::BITS)
    }

    /// Whether it can have an entry at all. Nothing is mapped above.
    #[inline]
    fn fits(address: usize) -> bool {
        let key = (address as u64) >> Native::ALIGNED;
        key >> KEY_BITS == 0 && key << Native::ALIGNED == address as u64
    }

    #[inline]
    pub(super) fn get(&self, address: usize) -> Option<Rule> {
        if !Self::fits(address) {
            return Some(Rule::UNKNOWN);
        }
        let (index, tag) = Self::place(address);
        for way in &self.sets[index].0 {
            let entry = way.load(Ordering::Relaxed);
            if (entry ^ tag) >> Rule::BITS == 0 {
                // An empty entry has the tag of low addresses, and no rule.
                return Rule::from_bits(entry & ((1 << Rule::BITS) - 1));
            }
        }
        None
    }

    /// Replaces an older entry when the set is full.
    pub(super) fn insert(&self, address: usize, rule: Rule) {
        if !Self::fits(address) {
            return;
        }
        let (index, tag) = Self::place(address);
        let set = &self.sets[index].0;
        let way = set
            .iter()
            .find(|way| {
                let entry = way.load(Ordering::Relaxed);
                entry == 0 || (entry ^ tag) >> Rule::BITS == 0
            })
            .unwrap_or_else(|| &set[self.next_victim.fetch_add(1, Ordering::Relaxed) % WAYS]);
        way.store(tag | rule.bits(), Ordering::Relaxed);
    }

    pub(super) fn clear(&self) {
        for way in self.sets.iter().flat_map(|set| &set.0) {
            way.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rule(number: u64) -> Rule {
        Rule::from_bits(number % ((1 << Rule::BITS) - 1) + 1).expect("it is not zero")
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_rule_is_found_under_its_address_and_no_other(
            addresses in prop::collection::vec((any::<u64>(), any::<u64>()), 1..64),
            flipped in 0usize..47,
        ) {
            let rules = Box::new(Rules::new());
            for (address, number) in addresses {
                let address = (address >> 17) as usize;
                rules.insert(address, rule(number));
                prop_assert_eq!(rules.get(address), Some(rule(number)));
                rules.insert(address, Rule::END);
                prop_assert_eq!(rules.get(address), Some(Rule::END));
                prop_assert_eq!(rules.get(address ^ 1usize << flipped), None);
                rules.clear();
                prop_assert_eq!(rules.get(address), None);
            }
        }
    }

    #[test]
    fn a_full_set_forgets_an_older_rule_and_never_mixes_two() {
        const FIRST: usize = 0x5555_0000;
        let rules = Box::new(Rules::new());
        // Not a multiple of anything that the sets are.
        let addresses = || (0..200_000usize).map(|turn| FIRST + turn * 13);
        for address in addresses() {
            rules.insert(address, rule(address as u64));
        }
        let mut found = 0;
        for address in addresses() {
            if let Some(known) = rules.get(address) {
                assert_eq!(known, rule(address as u64));
                found += 1;
            }
        }
        assert!((10_000..=16_384).contains(&found), "{found}");
    }

    #[test]
    fn addresses_that_no_process_has_are_unknown() {
        let rules = Box::new(Rules::new());
        for address in [usize::MAX, 1 << 47, 1 << 63] {
            rules.insert(address, Rule::END);
            assert_eq!(rules.get(address), Some(Rule::UNKNOWN));
        }
        // An empty entry looks like the rule of a low address.
        assert_eq!(rules.get(0), None);
        assert_eq!(rules.get(1), None);
    }
}
