//! A timeline, drawn.

pub(crate) mod text;
mod words;
