//! Sorting in little code.
//!
//! `slice::sort` is made to be fast for millions, and is compiled for each type to 4 to 17 KiB. A heap
//! is a tenth of that. What is sorted here are some thousands at most, and not on the way of a signal.

use std::collections::BinaryHeap;

/// The items in their order. Among equal ones that is open.
pub(crate) fn sorted<T: Ord>(items: Vec<T>) -> Vec<T> {
    BinaryHeap::from(items).into_sorted_vec()
}
