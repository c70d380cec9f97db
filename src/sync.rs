//! Locks and atomics, from one place: std in real life, loom's in models.
//!
//! Responsible for one policy: a poisoned lock is entered all the same. Every value kept behind
//! these locks is valid after each single assignment, and a detector must not add panics to a
//! service that is already failing. Not responsible for what is locked, or in which order: see
//! `registry`.

#[cfg(loom)]
pub(crate) use loom::sync::atomic;
#[cfg(not(loom))]
pub(crate) use std::sync::atomic;

#[cfg(loom)]
use loom::sync as imp;
#[cfg(not(loom))]
use std::sync as imp;

use std::sync::PoisonError;

pub(crate) type Guard<'a, T> = imp::MutexGuard<'a, T>;

/// A mutex whose `lock` cannot fail.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(imp::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(imp::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> Guard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
