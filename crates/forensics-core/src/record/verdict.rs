//! A verdict: why a run ended as it did, and what that statement rests on.

use super::Reason;
use crate::basis::Basis;

/// Why a run ended, with the evidence and the advice. It has no public fields, so that none can be
/// made or changed without its basis.
pub(super) struct Verdict {
    reason: Reason,
    basis: Basis,
    evidence: String,
    advice: String,
}

impl Verdict {
    /// The only way to make one. The advice can be empty.
    pub(super) fn new(
        reason: Reason,
        basis: Basis,
        evidence: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { reason, basis, evidence: evidence.into(), advice: advice.into() }
    }

    /// The same, with more evidence.
    pub(super) fn with_evidence(mut self, more: &str) -> Self {
        self.evidence = format!("{}; {more}", self.evidence);
        self
    }

    pub(super) fn basis(&self) -> &Basis {
        &self.basis
    }

    pub(super) fn reason(&self) -> Reason {
        self.reason
    }

    /// The reason, its basis, the evidence, and the advice if there is one.
    pub(super) fn into_parts(self) -> (Reason, Basis, String, Option<String>) {
        let advice = Some(self.advice).filter(|advice| !advice.is_empty());
        (self.reason, self.basis, self.evidence, advice)
    }
}
