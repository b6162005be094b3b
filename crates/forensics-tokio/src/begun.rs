//! A stop that has begun, and why its lead is over: what others than the stop itself speak of.

use std::time::Duration;

use forensics_core::context::ShutdownContext;
use tokio::time::Instant;

/// Why a lead is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeadEnd {
    /// It has lasted as long as it was to.
    Over,
    /// A second signal asked for haste.
    Haste,
    /// The service has ended.
    Service,
    /// The token was cancelled.
    Token,
}

/// A stop that has begun.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) context: ShutdownContext,
    /// When it was asked for, by [`Stop::now`](crate::stop::Stop::now).
    pub(crate) at: Instant,
    /// How long it may take from then on, as it was decided at that time.
    pub(crate) allowed: Duration,
    /// Why so long.
    pub(crate) why: String,
    /// How long the service goes on as before, at most.
    pub(crate) lead: Duration,
}
