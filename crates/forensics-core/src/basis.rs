//! What a statement rests on.

use std::fmt::{self, Display};

use serde::{Deserialize, Serialize};

/// What reported a fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Source {
    /// The kernel: the sender of a signal, `/proc`, a lock, or the kernel log.
    Kernel,
    /// systemd.
    Systemd,
    /// podman, docker or the kubelet.
    ContainerRuntime,
    /// The kernel's audit log.
    AuditLog,
    /// The program itself, in its record.
    Program,
    /// A value of a newer version. The file has its name.
    #[serde(other)]
    Other,
}

display_as_in_json!(Source);

/// What a statement rests on: a source that reported it, or facts from which it follows.
///
/// Shown as `observed:systemd` or `inferred`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Basis {
    /// A source reported it.
    #[non_exhaustive]
    Observed {
        /// The source.
        by: Source,
    },
    /// It follows from facts, and may be wrong.
    #[non_exhaustive]
    Inferred {
        /// The facts, at least one, as texts in which foreign text is escaped.
        from: Vec<String>,
    },
}

impl Basis {
    pub(crate) fn observed(by: Source) -> Self {
        Self::Observed { by }
    }

    /// Inferred from one fact; [`and`](Self::and) adds others.
    pub(crate) fn inferred(from: impl Into<String>) -> Self {
        Self::Inferred { from: vec![from.into()] }
    }

    /// Inferred from `fact`, too. What was observed needs no further fact.
    #[must_use]
    pub(crate) fn and(mut self, fact: impl Into<String>) -> Self {
        if let Self::Inferred { from } = &mut self {
            from.push(fact.into());
        }
        self
    }

    /// As a phrase for people: `observed by systemd`, or `inferred from: ` and the facts.
    pub fn sentence(&self) -> String {
        match self {
            Self::Observed { by } => format!("observed by {}", by.name()),
            Self::Inferred { from } => format!("inferred from: {}", from.join("; ")),
        }
    }
}

impl Source {
    fn name(self) -> &'static str {
        match self {
            Source::Kernel => "the kernel",
            Source::Systemd => "systemd",
            Source::ContainerRuntime => "the container runtime",
            Source::AuditLog => "the audit log",
            Source::Program => "the program itself",
            Source::Other => "a source that this version does not know",
        }
    }
}

impl Display for Basis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Observed { by } => write!(f, "observed:{by}"),
            Self::Inferred { .. } => f.write_str("inferred"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_basis_is_a_source_or_facts() {
        let cases = [
            (
                Basis::observed(Source::AuditLog),
                json!({ "observed": { "by": "audit_log" } }),
                "observed:audit_log",
                "observed by the audit log",
            ),
            (
                Basis::inferred("one").and("two"),
                json!({ "inferred": { "from": ["one", "two"] } }),
                "inferred",
                "inferred from: one; two",
            ),
        ];
        for (basis, expected, word, sentence) in cases {
            assert_eq!(serde_json::to_value(&basis).unwrap(), expected);
            assert_eq!(serde_json::from_value::<Basis>(expected).unwrap(), basis);
            assert_eq!((basis.to_string().as_str(), basis.sentence().as_str()), (word, sentence));
        }
    }
}
