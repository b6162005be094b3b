//! The enums of the record are shown in text by the same words as in JSON.

use std::fmt;

use serde::Serialize;

use super::event::{DiagState, ExitKind, ForcedBy, SignalKind, WedgedWhat};
use super::phase::PhaseOutcome;
use super::post_mortem::{Reason, RunOutcome};

macro_rules! display_as_in_json {
    ($($word:ty),*) => { $(
        impl fmt::Display for $word {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // A formatter is a `Serializer` that writes the name of the variant.
                self.serialize(f)
            }
        }
    )* };
}

display_as_in_json!(DiagState, ExitKind, ForcedBy, PhaseOutcome, SignalKind, WedgedWhat);
display_as_in_json!(Reason, RunOutcome);
