//! record
mod entry;
mod event;
mod words;
pub use entry::*;
pub use event::*;
