//! Witnesses: who else knows how a run ended.
//!
//! A process cannot record its own SIGKILL. systemd and container runtimes see how it ended. What
//! they say is kept in the record as an event of its own, [`Witness`](super::Witness), so that
//! later readers know it without further rights. This module has the typed forms of that event, and
//! the parsers of what the witnesses print. It reads no file and starts no process.

mod container;
mod journal;
mod unit;

pub use container::{ContainerEnd, InspectError, parse_inspect};
pub use journal::{journal_arguments, parse_journal};
pub use unit::{UnitAction, UnitEnd};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{SentSignal, Witness};
use crate::basis::Source;

impl Witness {
    fn of(source: Source, said: &impl Serialize) -> Self {
        let fields = match serde_json::to_value(said) {
            Ok(Value::Object(fields)) => fields,
            _ => serde_json::Map::new(),
        };
        Self { source, fields }
    }

    /// What it said, if it is of that source and its fields fit.
    fn said<T: DeserializeOwned>(&self, source: Source) -> Option<T> {
        let fields = Value::Object(self.fields.clone());
        (self.source == source).then(|| serde_json::from_value(fields).ok()).flatten()
    }

    /// What systemd said.
    pub(super) fn unit_end(&self) -> Option<UnitEnd> {
        self.said(Source::Systemd)
    }

    /// What a container runtime said.
    pub(super) fn container_end(&self) -> Option<ContainerEnd> {
        self.said(Source::ContainerRuntime)
    }

    /// What the audit log said.
    pub(super) fn sent_signal(&self) -> Option<SentSignal> {
        self.said(Source::AuditLog)
    }
}

impl From<&UnitEnd> for Witness {
    fn from(end: &UnitEnd) -> Self {
        Self::of(Source::Systemd, end)
    }
}

impl From<&SentSignal> for Witness {
    fn from(sent: &SentSignal) -> Self {
        Self::of(Source::AuditLog, sent)
    }
}

impl From<&ContainerEnd> for Witness {
    fn from(end: &ContainerEnd) -> Self {
        Self::of(Source::ContainerRuntime, end)
    }
}
