//! The only place atomics come from: the processor's, or loom's under `--cfg loom`.
//!
//! Each type is a transparent wrapper, so that a test can stop a writer after any chosen store
//! ([`kill_after`]) exactly as `SIGKILL` would, with real atomics and under loom alike. Outside
//! tests the wrapper is the bare instruction.

#[cfg(not(loom))]
use core::sync::atomic as raw;
#[cfg(loom)]
use loom::sync::atomic as raw;

pub use raw::Ordering;

macro_rules! atomic {
    ($(#[$doc:meta])* $name:ident, $value:ty) => {
        $(#[$doc])*
        #[repr(transparent)]
        #[allow(clippy::disallowed_types)]
        pub struct $name(raw::$name);

        #[allow(clippy::disallowed_types)]
        impl $name {
            /// A word holding `value`.
            #[cfg(not(loom))]
            pub const fn new(value: $value) -> Self {
                Self(raw::$name::new(value))
            }

            /// A word holding `value`.
            #[cfg(loom)]
            pub fn new(value: $value) -> Self {
                Self(raw::$name::new(value))
            }

            /// Reads the word. On a read-only mapping only `Relaxed` is allowed; see
            /// [`Self::load_acquire`].
            #[inline(always)]
            pub fn load(&self, order: Ordering) -> $value {
                self.0.load(order)
            }

            /// Reads the word with acquire ordering in the form that the language also allows on
            /// read-only memory: a relaxed load and a fence (`core::sync::atomic`, "Atomic accesses
            /// to read-only memory").
            #[inline(always)]
            pub fn load_acquire(&self) -> $value {
                let value = self.0.load(Ordering::Relaxed);
                fence(Ordering::Acquire);
                value
            }

            /// Writes the word.
            #[inline(always)]
            pub fn store(&self, value: $value, order: Ordering) {
                #[cfg(any(loom, test, feature = "kill-points"))]
                kill::before_store();
                self.0.store(value, order);
            }

            /// Writes the word and returns what it held.
            #[inline(always)]
            pub fn swap(&self, value: $value, order: Ordering) -> $value {
                #[cfg(any(loom, test, feature = "kill-points"))]
                kill::before_store();
                self.0.swap(value, order)
            }

            /// Adds, wrapping, and returns what the word held. Needed only where several threads
            /// write one word; a single writer uses a load and a store.
            #[inline(always)]
            pub fn fetch_add(&self, value: $value, order: Ordering) -> $value {
                #[cfg(any(loom, test, feature = "kill-points"))]
                kill::before_store();
                self.0.fetch_add(value, order)
            }

            /// Writes `new` if the word holds `current`; returns what it held.
            #[inline(always)]
            pub fn compare_exchange(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                #[cfg(any(loom, test, feature = "kill-points"))]
                kill::before_store();
                self.0.compare_exchange(current, new, success, failure)
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new(0)
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                self.load(Ordering::Relaxed).fmt(f)
            }
        }
    };
}

atomic!(
    /// One byte.
    AtomicU8,
    u8
);
atomic!(
    /// Four bytes.
    AtomicU32,
    u32
);
atomic!(
    /// Eight bytes, the word of shared memory.
    AtomicU64,
    u64
);

/// A memory fence.
#[inline(always)]
#[allow(clippy::disallowed_methods)]
pub fn fence(order: Ordering) {
    raw::fence(order);
}

/// Tells the processor that this is a wait loop (and loom that another thread has to move).
#[inline(always)]
pub fn spin_loop() {
    #[cfg(not(loom))]
    core::hint::spin_loop();
    #[cfg(loom)]
    loom::thread::yield_now();
}

#[cfg(all(any(test, feature = "kill-points"), not(loom)))]
pub use kill::watch_stores;
#[cfg(any(loom, test, feature = "kill-points"))]
pub use kill::{Outcome, kill_after};

/// Stopping a writer after a chosen store.
#[cfg(any(loom, test, feature = "kill-points"))]
mod kill {
    use std::cell::Cell;
    #[cfg(not(loom))]
    use std::cell::RefCell;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

    /// What became of the closure given to [`kill_after`].
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Outcome<T> {
        /// It made no more stores than allowed.
        Finished(T),
        /// It was stopped at the store after the last allowed one.
        Killed,
    }

    struct Killed;

    #[cfg(not(loom))]
    std::thread_local! {
        static STORES_LEFT: Cell<Option<u64>> = const { Cell::new(None) };
    }
    #[cfg(loom)]
    loom::thread_local! {
        static STORES_LEFT: Cell<Option<u64>> = Cell::new(None);
    }

    /// Runs `body`, letting `stores` stores of this thread through and stopping it at the next one,
    /// as a kill at that instruction would: what was stored stays, nothing later happens.
    pub fn kill_after<T>(stores: u64, body: impl FnOnce() -> T) -> Outcome<T> {
        STORES_LEFT.with(|left| left.set(Some(stores)));
        let result = catch_unwind(AssertUnwindSafe(body));
        STORES_LEFT.with(|left| left.set(None));
        match result {
            Ok(value) => Outcome::Finished(value),
            Err(payload) if payload.is::<Killed>() => Outcome::Killed,
            Err(payload) => resume_unwind(payload),
        }
    }

    #[cfg(not(loom))]
    type Watch = Box<dyn FnMut() -> bool>;

    #[cfg(not(loom))]
    std::thread_local! {
        static WATCH: RefCell<Option<Watch>> = const { RefCell::new(None) };
    }

    /// Runs `body`, calling `watch` before every store of this thread; true stops it there, as
    /// [`kill_after`] does. Stores that `watch` makes itself are not watched.
    #[cfg(not(loom))]
    pub fn watch_stores<T>(
        watch: impl FnMut() -> bool + 'static,
        body: impl FnOnce() -> T,
    ) -> Outcome<T> {
        WATCH.set(Some(Box::new(watch)));
        let result = catch_unwind(AssertUnwindSafe(body));
        WATCH.set(None);
        match result {
            Ok(value) => Outcome::Finished(value),
            Err(payload) if payload.is::<Killed>() => Outcome::Killed,
            Err(payload) => resume_unwind(payload),
        }
    }

    pub(super) fn before_store() {
        #[cfg(not(loom))]
        if let Some(mut watch) = WATCH.take() {
            if watch() {
                resume_unwind(Box::new(Killed));
            }
            WATCH.set(Some(watch));
        }
        STORES_LEFT.with(|left| match left.get() {
            None => {}
            Some(0) => resume_unwind(Box::new(Killed)),
            Some(stores) => left.set(Some(stores - 1)),
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_watch_sees_every_store_and_may_stop_the_writer() {
        use std::sync::Arc;
        let words: Arc<[AtomicU64; 4]> = Arc::default();
        let (seen, own) = (words.clone(), Arc::new(AtomicU64::new(0)));
        let calls = own.clone();
        let watch = move || {
            let stored = seen.iter().filter(|word| word.load(Ordering::Relaxed) != 0).count();
            assert_eq!(calls.fetch_add(1, Ordering::Relaxed), stored as u64);
            stored == 3
        };
        let outcome = watch_stores(watch, || {
            words.iter().for_each(|word| word.store(1, Ordering::Relaxed));
        });
        assert_eq!((outcome, own.load(Ordering::Relaxed)), (Outcome::Killed, 4));
        assert_eq!(words[3].load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_writer_stops_at_the_store_it_was_told() {
        for stores in 0..5 {
            let words = [const { AtomicU64::new(0) }; 4];
            let outcome = kill_after(stores, || {
                for (index, word) in words.iter().enumerate() {
                    word.store(index as u64 + 1, Ordering::Relaxed);
                }
            });
            assert_eq!(outcome == Outcome::Killed, stores < 4);
            let stored = words.iter().filter(|word| word.load(Ordering::Relaxed) != 0).count();
            assert_eq!(stored as u64, stores.min(4));
        }
    }
}
