//! The slots between the handler and the reader.
//!
//! A slot is free, being written, ready, or being read. The thread that moves it out of `FREE` or
//! `READY` by compare-and-swap owns its content until that thread stores the next state. So at most
//! one handler writes a slot, at most one reader reads it, and never both at the same time.
//!
//! Orderings: the store of `READY` releases what the handler wrote, and the reader's swap acquires
//! it. The reader's store of `FREE` releases its reading, and the next handler's swap acquires that.
//! Neither side waits for the other. A handler that interrupts a reader or another handler on the
//! same thread makes progress too, because it takes another slot.
//!
//! `tests/loom` compiles this file against loom and checks all interleavings.

use std::mem::MaybeUninit;

use super::sync::{AtomicU8, Ordering, UnsafeCell};

pub(super) const FREE: u8 = 0;
const WRITING: u8 = 1;
const READY: u8 = 2;
const READING: u8 = 3;

pub(super) struct Slots<T, const N: usize> {
    pub(super) states: [AtomicU8; N],
    /// Each is initialised in the states `READY` and `READING`.
    pub(super) contents: [UnsafeCell<MaybeUninit<T>>; N],
}

// SAFETY: the content of a slot is accessed only in `put` and `drain`, and only by the thread that
// owns the slot through its state, as the module's documentation explains. So `&Slots` may be shared
// between threads whenever a `T` may be sent from one to another.
unsafe impl<T: Send, const N: usize> Sync for Slots<T, N> {}

impl<T, const N: usize> Slots<T, N> {
    /// Claims a free slot, fills it with what `fill` returns, and publishes it. If no slot is free,
    /// returns `false` without calling `fill`. Async-signal-safe if `fill` is.
    pub(super) fn put(&self, fill: impl FnOnce() -> T) -> bool {
        let Some((state, content)) = self.slots().find(|(state, _)| moved(state, FREE, WRITING))
        else {
            return false;
        };
        let value = fill();
        // SAFETY: the swap to WRITING succeeded, so no other thread accesses the content until the
        // store below. Nothing is overwritten: a free slot's content was moved out, or never there.
        content.with_mut(|content| unsafe { (*content).write(value) });
        state.store(READY, Ordering::Release);
        true
    }

    /// Empties the published slots and passes each content to `each`, in no particular order.
    pub(super) fn drain(&self, mut each: impl FnMut(T)) {
        for (state, content) in self.slots().filter(|(state, _)| moved(state, READY, READING)) {
            // SAFETY: the swap from READY succeeded, so the content is initialised, and no other
            // thread accesses it until the store below. After that it counts as moved out.
            let value = content.with(|content| unsafe { (*content).assume_init_read() });
            state.store(FREE, Ordering::Release);
            each(value);
        }
    }

    fn slots(&self) -> impl Iterator<Item = (&AtomicU8, &UnsafeCell<MaybeUninit<T>>)> {
        self.states.iter().zip(&self.contents)
    }
}

fn moved(state: &AtomicU8, from: u8, to: u8) -> bool {
    state.compare_exchange(from, to, Ordering::Acquire, Ordering::Relaxed).is_ok()
}
