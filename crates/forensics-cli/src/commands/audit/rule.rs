//! The rule that logs who sends signals, once for each kind of program that the machine can run.

use std::env::consts::ARCH;
use std::fmt::{self, Display};

use forensics_core::record::AUDIT_KEY;

/// The calls that send a signal. The kernel's own signals, such as those of the OOM killer and of
/// `cgroup.kill`, come from no call.
const CALLS: &str = "kill,tkill,tgkill,rt_sigqueueinfo,rt_tgsigqueueinfo,pidfd_send_signal";

/// The rule for one kind of program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    /// `b64` or `b32`, in which the same call has different numbers.
    pub(super) arch: &'static str,
}

/// The rules for this machine. x86-64 and arm64 also run 32-bit programs.
pub(super) fn rules() -> Vec<Rule> {
    let archs: &[_] = match ARCH {
        "x86_64" | "aarch64" => &["b64", "b32"],
        _ if cfg!(target_pointer_width = "64") => &["b64"],
        _ => &["b32"],
    };
    archs.iter().map(|&arch| Rule { arch }).collect()
}

impl Rule {
    /// The arguments of auditctl(8); `action` is `-a` or `-d`.
    pub(super) fn arguments(&self, action: &'static str) -> [&'static str; 8] {
        let arch = if self.arch == "b64" { "arch=b64" } else { "arch=b32" };
        const _: () = assert!(matches!(AUDIT_KEY.as_bytes(), b"shutdown_forensics"));
        [action, "always,exit", "-F", arch, "-S", CALLS, "-F", "key=shutdown_forensics"]
    }

    /// Whether `auditctl -l` shows it. auditctl sorts the calls.
    pub(super) fn is_in(&self, list: &str) -> bool {
        list.lines().any(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            let after = |option: &'static str| {
                words.windows(2).filter(move |pair| pair[0] == option).map(|pair| pair[1])
            };
            let calls: Vec<_> = after("-S").flat_map(|calls| calls.split(',')).collect();
            let [_, when, _, arch, _, _, _, key] = self.arguments("-a");
            after("-a").eq([when])
                && after("-F").eq([arch, key])
                && calls.len() == CALLS.split(',').count()
                && CALLS.split(',').all(|call| calls.contains(&call))
        })
    }
}

/// A line of a file in `rules.d`.
impl Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.arguments("-a").join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_is_found_in_what_auditctl_lists() {
        let rule = Rule { arch: "b64" };
        let listed = "-a always,exit -F arch=b64 -S kill,rt_sigqueueinfo,tkill,tgkill,\
            rt_tgsigqueueinfo,pidfd_send_signal -F key=shutdown_forensics";
        assert!(rule.is_in(&format!("-w /etc -p wa -k etc\n{listed}\n")));
        assert!(rule.is_in(&rule.to_string()));
        let others = [
            "No rules",
            &listed.replace("b64", "b32"),
            &listed.replace("tkill,", ""),
            &listed.replace("-F key", "-F auid=1000 -F key"),
            &listed.replace("key=shutdown_forensics", "key=other"),
            &listed.replace("always,exit", "never,exit"),
        ];
        for other in others {
            assert!(!rule.is_in(other), "{other}");
        }
    }
}
