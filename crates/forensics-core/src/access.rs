//! The error for a folder or a file that is not used.

use std::io;
use std::path::Path;

use nix::unistd::geteuid;

/// Why a folder or a file is not used. `Display` names the path and the fix.
#[derive(Debug, thiserror::Error)]
#[error("{problem}")]
pub struct AccessError {
    problem: String,
    source: Option<io::Error>,
}

impl AccessError {
    pub(crate) fn refused(problem: String) -> Self {
        Self { problem, source: None }
    }

    /// An error that the commands fix, if root runs them with the path.
    pub(crate) fn command(action: &str, path: &Path, commands: &[&str], source: io::Error) -> Self {
        let uid = geteuid().to_string();
        let commands: Vec<_> =
            commands.iter().map(|command| command.replace("UID", &uid)).collect();
        let fix = Self::fix(path, &commands);
        let problem = format!("cannot {action} {}; {fix}", path.display());
        Self { problem, source: Some(source) }
    }

    /// The advice to run the commands, which lack the path, as root.
    pub(crate) fn fix(path: &Path, commands: &[String]) -> String {
        if commands.is_empty() {
            return "remove it, or name another".to_owned();
        }
        let path = shell_word(&path.to_string_lossy());
        let commands: Vec<_> = commands.iter().map(|command| format!("{command} {path}")).collect();
        format!("run `{}` as root, or name another", commands.join(" && "))
    }

    pub(crate) fn system(
        (action, fix): Attempt,
        path: &Path,
        source: impl Into<io::Error>,
    ) -> Self {
        let problem = format!("cannot {action} {}{fix}", path.display());
        Self { problem, source: Some(source.into()) }
    }
}

/// A text as one word of a shell command.
fn shell_word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@%=".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\"'\"'"))
}

/// What was tried, and what to do if the system refused.
pub(crate) type Attempt = (&'static str, &'static str);
