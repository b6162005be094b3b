//! The slots between the handler and its reader.
//!
//! A slot is free, being written, ready, or being read. Whoever moves it out of `FREE` or `READY`
//! by compare-and-swap owns its content until it stores the next state: at most one handler writes
//! a slot, at most one reader reads it, and never both at once.
//!
//! Orderings: the store of `READY` releases what the handler wrote, and the reader's swap acquires
//! it; the reader's store of `FREE` releases its reading, and the next handler's swap acquires that.
//! Neither side ever waits for the other. A handler that interrupts a reader on the reader's own
//! thread makes progress too: it takes another slot.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU8, Ordering};

const FREE: u8 = 0;
const WRITING: u8 = 1;
const READY: u8 = 2;
const READING: u8 = 3;

pub(super) struct Slots<T, const N: usize> {
    /// Apart from the contents, so that a look at all of them touches one page of memory.
    states: [AtomicU8; N],
    /// Each initialised in the states `READY` and `READING`.
    contents: [UnsafeCell<MaybeUninit<T>>; N],
}

// SAFETY: the content of a slot is reached only in `put` and `take`, and only by the one that
// owns the slot through its state, as the module's documentation argues; so `&Slots` may be shared
// between threads wherever a `T` may be sent from one to another.
unsafe impl<T: Send, const N: usize> Sync for Slots<T, N> {}

impl<T: Copy, const N: usize> Slots<T, N> {
    pub(super) const fn new() -> Self {
        Self {
            states: [const { AtomicU8::new(FREE) }; N],
            contents: [const { UnsafeCell::new(MaybeUninit::uninit()) }; N],
        }
    }

    /// Claims a free slot, fills it with what `fill` returns, and publishes it. `false`, and
    /// `fill` not called, where no slot is free. Async-signal-safe where `fill` is.
    pub(super) fn put(&self, fill: impl FnOnce() -> T) -> bool {
        let Some((state, content)) = self.slots().find(|(state, _)| moved(state, FREE, WRITING))
        else {
            return false;
        };
        // SAFETY: the swap to WRITING succeeded, so nobody else touches the content until the
        // store below; nothing is lost by overwriting it, since a `T: Copy` needs no drop.
        unsafe { (*content.get()).write(fill()) };
        state.store(READY, Ordering::Release);
        true
    }

    /// Empties the published slots, handing each content to `each`, in no particular order.
    pub(super) fn take(&self, mut each: impl FnMut(T)) {
        for (state, content) in self.slots().filter(|(state, _)| moved(state, READY, READING)) {
            // SAFETY: the swap from READY succeeded, so the content is initialised, and nobody
            // else touches it until the store below.
            let content = unsafe { (*content.get()).assume_init() };
            state.store(FREE, Ordering::Release);
            each(content);
        }
    }

    fn slots(&self) -> impl Iterator<Item = (&AtomicU8, &UnsafeCell<MaybeUninit<T>>)> {
        self.states.iter().zip(&self.contents)
    }
}

fn moved(state: &AtomicU8, from: u8, to: u8) -> bool {
    state.compare_exchange(from, to, Ordering::Acquire, Ordering::Relaxed).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn a_full_table_refuses_and_an_emptied_one_takes_again() {
        let slots = Slots::<u32, 3>::new();
        for round in 0..3 {
            assert!((0..3).all(|i| slots.put(|| round * 10 + i)));
            assert!(!slots.put(|| unreachable!("there is no slot to fill")));
            let mut taken = Vec::new();
            slots.take(|content| taken.push(content));
            taken.sort_unstable();
            assert_eq!(taken, [round * 10, round * 10 + 1, round * 10 + 2]);
        }
    }

    #[test]
    fn a_handler_that_interrupts_a_writer_takes_another_slot() {
        let slots = Slots::<u32, 2>::new();
        assert!(slots.put(|| {
            assert!(slots.put(|| 2));
            let mut seen = Vec::new();
            slots.take(|content| seen.push(content));
            assert_eq!(seen, [2], "the outer one is not published yet");
            1
        }));
        let mut seen = Vec::new();
        slots.take(|content| seen.push(content));
        assert_eq!(seen, [1]);
    }

    #[test]
    fn concurrent_writers_and_readers_lose_nothing_and_tear_nothing() {
        const WRITERS: u64 = 4;
        const EACH: u64 = if cfg!(miri) { 50 } else { 20_000 };
        let slots = Slots::<[u64; 32], 16>::new();
        let writing = AtomicUsize::new(WRITERS as usize);
        let taken = std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                let (slots, writing) = (&slots, &writing);
                scope.spawn(move || {
                    for i in 0..EACH {
                        while !slots.put(|| [writer * EACH + i; 32]) {
                            std::thread::yield_now();
                        }
                    }
                    writing.fetch_sub(1, Ordering::SeqCst);
                });
            }
            let readers: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        let mut taken = Vec::new();
                        loop {
                            let last_round = writing.load(Ordering::SeqCst) == 0;
                            slots.take(|content| {
                                assert!(content.iter().all(|&word| word == content[0]));
                                taken.push(content[0]);
                            });
                            if last_round {
                                return taken;
                            }
                            std::thread::yield_now();
                        }
                    })
                })
                .collect();
            let mut all: Vec<u64> =
                readers.into_iter().flat_map(|reader| reader.join().unwrap()).collect();
            all.sort_unstable();
            all
        });
        assert_eq!(taken, (0..WRITERS * EACH).collect::<Vec<_>>());
    }
}
