//! Real senders signal a real guarded program, which must say who it was, or why it cannot tell;
//! never a wrong name.
//!
//! Where a test needs the sender's name for sure, the sender stays: it waits for its input to end,
//! or is not waited for by us and so remains a zombie, which still has its name. How often one
//! that goes at once is caught is the business of the soak (`sender_soak`).

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // Clippy spares `#[test]` functions, and not what they share.

mod limits;
mod namespaces;
mod ourselves;
mod parents;
mod programs;
mod several;
mod subject;
mod terminal;
