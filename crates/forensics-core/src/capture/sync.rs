//! The atomics and the cell that [`Slots`] uses.
//!
//! They are in a separate module so that `tests/loom` can compile `slots.rs` with the types of the
//! model checker loom instead. The cell has loom's interface for this reason.

pub(super) use std::sync::atomic::{AtomicU8, Ordering};

use std::mem::MaybeUninit;

use super::slots::{FREE, Slots};

/// [`std::cell::UnsafeCell`] with the interface of `loom::cell::UnsafeCell`.
pub(super) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

impl<T> UnsafeCell<T> {
    const fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    pub(super) fn with<R>(&self, read: impl FnOnce(*const T) -> R) -> R {
        read(self.0.get())
    }

    pub(super) fn with_mut<R>(&self, write: impl FnOnce(*mut T) -> R) -> R {
        write(self.0.get())
    }
}

impl<T, const N: usize> Slots<T, N> {
    /// A `const fn`, because the table is a static. Loom's types cannot be constructed in a `const
    /// fn`.
    pub(super) const fn new() -> Self {
        Self {
            states: [const { AtomicU8::new(FREE) }; N],
            contents: [const { UnsafeCell::new(MaybeUninit::uninit()) }; N],
        }
    }
}
