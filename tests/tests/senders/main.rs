//! Real senders signal a real guarded program. It must name the sender or say why it cannot, and
//! never give a wrong name.
//!
//! If a test needs the sender's name, the sender must remain: it waits for the end of its input, or
//! the test does not wait for it, so that it is a zombie, which still has its name. `sender_soak`
//! measures how often a sender that exits at once is named.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // Clippy allows it in `#[test]` functions, but not in their helpers.

mod limits;
mod names;
mod namespaces;
mod ourselves;
mod parents;
mod programs;
mod several;
mod subject;
mod terminal;
