//! Time spans as systemd writes them.

/// A span of time: a number of microseconds, or forever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timespan {
    /// So many microseconds.
    Finite(u64),
    /// systemd's `infinity`: no limit at all.
    Infinite,
}
