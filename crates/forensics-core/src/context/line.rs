//! The context line of the log: its facts, their names, and their order.
//!
//! Values are written by other programs, so each is escaped and quoted as needed: a value can neither
//! end the line nor look like another field.

use std::fmt::{self, Display};

use super::ShutdownContext;
use crate::capture::SnapshotError;
use crate::context::Trigger;
use crate::logfmt::{Key, Value};
use crate::process::ProcessSummary;

impl Display for ShutdownContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (key, value) in self.fields() {
            write!(f, "{separator}{}=", Key(&key))?;
            // A command line is always quoted, even if it is one word.
            if key.ends_with("_cmdline") {
                write!(f, "{:#}", Value(&value))?;
            } else {
                write!(f, "{}", Value(&value))?;
            }
            separator = " ";
        }
        Ok(())
    }
}

impl ShutdownContext {
    /// The facts of the line, in order, unescaped.
    #[doc(hidden)]
    pub fn fields(&self) -> Vec<(String, String)> {
        let mut fields = Fields(Vec::new());
        fields.add("signal", self.signal());
        fields.add("cause", self.decision.as_ref().map(|decision| decision.cause));
        match &self.trigger {
            Some(Trigger::Request { reason }) => fields.add("reason", Some(reason)),
            Some(Trigger::ServiceEnded { error }) => fields.add("error", error.as_ref()),
            _ => {}
        }
        fields.add("under_systemd", Some(if self.under_systemd { "yes" } else { "no" }));
        if let Some(sender) = &self.sender {
            let who = &sender.process;
            fields.add("sender_pid", Some(who.pid));
            fields.add("sender_name", Some(who.name_or_unknown()));
            match sender.absence {
                _ if !sender.is_verified() => fields.add("sender_unverified", Some("yes")),
                _ if who.name.is_some() => {}
                Some(SnapshotError::Gone) => fields.add("sender_gone", Some("yes")),
                Some(SnapshotError::Hidden) => fields.add("sender_hidden", Some("yes")),
                _ => {}
            }
            // Unknown if it is that of no single user; see `procfile::is_known_uid`.
            fields.add("sender_uid", Some(who.uid.map_or("?".to_owned(), |uid| uid.to_string())));
            fields.add("sender_parent", sender.parent().map(ProcessSummary::name_and_pid));
            fields.add("sender_forwards", sender.forwards.then_some("yes"));
        }
        if let Some(parent) = &self.parent {
            fields.add("parent_pid", Some(parent.pid));
            fields.add("parent_name", Some(parent.name_or_unknown()));
        }
        fields.add("pod", self.pod.as_ref());
        fields.add("platform", self.platform.as_ref());
        fields.add("loadavg_1m", self.load.map(|[one, ..]| format!("{one:.2}")));
        for marker in &self.markers {
            fields.add(&format!("{}_marker_present", marker.name), Some(marker.target.as_str()));
        }
        fields.add("tracer_pid", self.process.tracer_pid);
        let cmdline = |process: &ProcessSummary| process.cmdline.clone();
        fields.add("sender_cmdline", self.sender.as_ref().and_then(|s| cmdline(&s.process)));
        fields.add("parent_cmdline", self.parent.as_ref().and_then(cmdline));
        fields.0
    }
}

struct Fields(Vec<(String, String)>);

impl Fields {
    fn add(&mut self, key: &str, value: Option<impl Display>) {
        self.0.extend(value.map(|value| (key.to_owned(), value.to_string())));
    }
}
