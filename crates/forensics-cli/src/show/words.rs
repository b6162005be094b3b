//! How things are put into words, on a terminal as on a page. Foreign text in them is as the
//! record has it: whoever shows the words escapes them.

use std::fmt::{self, Display};

use forensics_core::record::{Diag, Signal, Wedged, WedgedWhat};
use serde_json::Value;

use crate::timeline::Phase;

/// A duration, short: `1.20s`, and `0.3ms` where that would be no more than `0.00s`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Short(pub(crate) u64);

impl Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.0 {
            0 => "0s".to_owned(),
            us @ ..10_000 => format!("{}.{}ms", us / 1000, us / 100 % 10),
            us => format!("{}.{:02}s", us / 1_000_000, us / 10_000 % 100),
        };
        f.pad(&text)
    }
}

/// An instant since zero: `+1.20s`.
pub(crate) fn offset(us: u64) -> String {
    format!("+{}.{:02}s", us / 1_000_000, us / 10_000 % 100)
}

/// `1.20s of 30.00s`.
pub(crate) fn used(phase: &Phase<'_>) -> String {
    match phase.budget_us {
        Some(budget_us) => format!("{} of {}", Short(phase.used_us()), Short(budget_us)),
        None => Short(phase.used_us()).to_string(),
    }
}

/// `SIGTERM from kill(4242), uid 1000, cause operator`.
pub(crate) fn signal(signal: &Signal) -> String {
    let mut words = signal.signal.clone().unwrap_or_else(|| signal.kind.as_str().to_owned());
    if let Some(pid) = signal.sender_pid {
        words += &format!(" from {}({pid})", signal.sender_name.as_deref().unwrap_or("?"));
    }
    if let Some(uid) = signal.sender_uid {
        words += &format!(", uid {uid}");
    }
    words + &format!(", cause {}", signal.cause)
}

/// `phase drain wedged for 1.20s: ...`.
pub(crate) fn wedged(wedged: &Wedged) -> String {
    let what = match (&wedged.phase, wedged.what) {
        (Some(phase), WedgedWhat::Phase) => format!("phase {phase}"),
        (Some(phase), what) => format!("{what} (in {phase})"),
        (None, what) => what.to_string(),
    };
    format!("{what} wedged for {}: {}", Short(wedged.for_us), wedged.detail)
}

/// `diagnostic finished: /var/log/...`.
pub(crate) fn diag(diag: &Diag) -> String {
    let more = [&diag.path, &diag.error].into_iter().flatten();
    let more = more.map(String::as_str).collect::<Vec<_>>().join(", ");
    let colon = if more.is_empty() { "" } else { ": " };
    format!("diagnostic {}{colon}{more}", diag.state)
}

/// A JSON value as its reader would write it: a text without quotes.
pub(crate) fn value(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}
