//! All interleavings of the handler's slots, checked with loom.
//!
//! The file under test is the published one: `slots.rs` of `forensics-core`. Here it is compiled
//! with loom's atomics and cell instead of those of `sync.rs`. Loom runs each model once for every
//! order in which its threads can act, up to a bound on preemptions, and with every value that the
//! memory orderings let a load return. If there is a data race on the content of a slot, loom fails
//! the test.

#![allow(unsafe_code)] // In slots.rs, which this file includes.
#![allow(clippy::unwrap_used)] // A test's unwrap is an assertion.

use loom::model::Builder;
use loom::sync::Arc;
use loom::sync::atomic::AtomicUsize;
use loom::thread;

use crate::slots::Slots;
use crate::sync::Ordering;

#[path = "../../crates/forensics-core/src/capture/slots.rs"]
mod slots;

/// What slots.rs imports, from loom.
mod sync {
    use std::array;
    use std::mem::MaybeUninit;

    pub(super) use loom::cell::UnsafeCell;
    pub(super) use loom::sync::atomic::{AtomicU8, Ordering};

    use super::slots::{FREE, Slots};

    impl<T, const N: usize> Slots<T, N> {
        pub(super) fn new() -> Self {
            Self {
                states: array::from_fn(|_| AtomicU8::new(FREE)),
                contents: array::from_fn(|_| UnsafeCell::new(MaybeUninit::uninit())),
            }
        }
    }
}

/// Two words. They differ only if a content was read while it was written.
type Content = [usize; 2];

/// The slots with the count of signals that found none free, as in the handler.
struct Table<const N: usize> {
    slots: Slots<Content, N>,
    overflow: AtomicUsize,
}

impl<const N: usize> Table<N> {
    fn new() -> Arc<Self> {
        Arc::new(Self { slots: Slots::new(), overflow: AtomicUsize::new(0) })
    }

    /// What the handler does. `interrupted` runs between the claim of the slot and its publication.
    fn handle(&self, signal: usize, interrupted: impl FnOnce()) {
        let put = self.slots.put(|| {
            interrupted();
            [signal; 2]
        });
        if !put {
            self.overflow.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn drain_into(&self, drained: &mut Vec<usize>) {
        self.slots.drain(|[first, second]| {
            assert_eq!(first, second, "torn");
            drained.push(first);
        });
    }

    /// Checks that each of `signals` signals was drained once or counted as overflow. Called when
    /// the handlers have returned.
    fn assert_complete(&self, mut drained: Vec<usize>, signals: usize) -> usize {
        self.drain_into(&mut drained);
        drained.sort_unstable();
        let all = drained.len();
        drained.dedup();
        assert_eq!(drained.len(), all, "a signal was drained twice");
        assert!(drained.iter().all(|signal| (1..=signals).contains(signal)), "{drained:?}");
        let overflow = self.overflow.load(Ordering::Relaxed);
        assert_eq!(all + overflow, signals, "{drained:?} drained, {overflow} counted");
        overflow
    }
}

/// Explores `model` with up to three preemptions. Loom's authors found that two or three suffice for
/// nearly all faults, and the number of orders grows exponentially.
fn explore(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

fn spawn<const N: usize>(
    table: &Arc<Table<N>>,
    work: impl FnOnce(&Table<N>) + 'static,
) -> thread::JoinHandle<()> {
    let table = table.clone();
    thread::spawn(move || work(&table))
}

#[test]
fn while_a_slot_is_free_no_signal_is_lost_or_torn() {
    explore(|| {
        let table = Table::<3>::new();
        let handlers = [1, 2, 3].map(|n| spawn(&table, move |table| table.handle(n, || {})));
        let mut drained = Vec::new();
        table.drain_into(&mut drained);
        handlers.into_iter().for_each(|handler| handler.join().unwrap());
        assert_eq!(table.assert_complete(drained, 3), 0);
    });
}

#[test]
fn with_too_few_slots_each_signal_is_drained_once_or_counted() {
    explore(|| {
        let table = Table::<1>::new();
        let handlers = [1, 3].map(|n| {
            spawn(&table, move |table| {
                table.handle(n, || {});
                table.handle(n + 1, || {});
            })
        });
        let mut drained = Vec::new();
        table.drain_into(&mut drained);
        table.drain_into(&mut drained);
        handlers.into_iter().for_each(|handler| handler.join().unwrap());
        let overflow = table.assert_complete(drained, 4);
        assert!(overflow <= 3, "a slot was free for the first one");
    });
}

#[test]
fn an_unread_slot_is_never_overwritten() {
    explore(|| {
        let table = Table::<1>::new();
        table.handle(1, || {});
        let handlers = [2, 3].map(|n| spawn(&table, move |table| table.handle(n, || {})));
        handlers.into_iter().for_each(|handler| handler.join().unwrap());
        let mut drained = Vec::new();
        table.drain_into(&mut drained);
        assert_eq!(drained, [1]);
        assert_eq!(table.assert_complete(drained, 3), 2);
    });
}

#[test]
fn a_handler_that_interrupts_a_handler_uses_another_slot() {
    explore(|| {
        let table = Table::<2>::new();
        let nested = spawn(&table, |table| table.handle(1, || table.handle(2, || {})));
        let single = spawn(&table, |table| table.handle(3, || {}));
        let mut drained = Vec::new();
        table.drain_into(&mut drained);
        nested.join().unwrap();
        single.join().unwrap();
        assert!(table.assert_complete(drained, 3) <= 1, "there are two slots");
    });
}

#[test]
fn two_readers_never_get_the_same_signal() {
    explore(|| {
        let table = Table::<2>::new();
        let handler = spawn(&table, |table| {
            table.handle(1, || {});
            table.handle(2, || {});
        });
        let other = {
            let table = table.clone();
            thread::spawn(move || {
                let mut drained = Vec::new();
                table.drain_into(&mut drained);
                drained
            })
        };
        let mut drained = Vec::new();
        table.drain_into(&mut drained);
        handler.join().unwrap();
        drained.extend(other.join().unwrap());
        assert_eq!(table.assert_complete(drained, 2), 0);
    });
}
