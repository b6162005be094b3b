//! Marker files: another program writes one to say that it is about to stop us.
//!
//! A deploy script writes `{"target_pid": 4100}` before it sends the signal. The marker shows that
//! the stop was planned, or that a successor takes over. The pids are compared as JSON numbers, not
//! as text, because `"target_pid": 12` is a prefix of `"target_pid": 123`.
//!
//! A marker's path may lead to anything. So [`read`] opens only regular files, and not those that the
//! kernel generates, as in `/proc` or `/sys` (see [`crate::secure_fs`]). It reads at most 64 KiB, and
//! reports anything else as [`Marker::problem`]. It never fails. On a file system whose server does not
//! answer, open(2) itself blocks. To limit the wait, call it on a separate thread.

use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::capture::is_secure_execution;
use crate::secure_fs::{self, OpenError};

/// The size limit of a marker, in bytes.
const MAX_MARKER_BYTES: u64 = 64 * 1024;

/// Which process a marker names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Target {
    /// `target_pid` is this process.
    #[serde(rename = "self")]
    ThisProcess,
    /// `target_pid` is a number other than this process's.
    Other,
    /// It names no process: it has no number under `target_pid`, is not JSON, or is not readable.
    Unstated,
}

impl Target {
    /// The word in the context line: `self`, `other`, or `yes` for a marker that names no process.
    #[doc(hidden)]
    pub fn as_str(self) -> &'static str {
        match self {
            Target::ThisProcess => "self",
            Target::Other => "other",
            Target::Unstated => "yes",
        }
    }
}

/// A marker file that exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Marker {
    /// The name it was registered under, such as `takeover`.
    pub name: String,
    /// Which process it names.
    pub target: Target,
    /// Why its content could not be used: it is not a regular file, too large, not readable, or not
    /// JSON. `None` for a marker that could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Reads the marker `name` at `path`, for the process `pid`.
///
/// `None` if it does not exist. Blocks while it opens the file and reads up to 64 KiB, which takes
/// forever if a file server does not answer. A symbolic link is followed, so a marker can be set by
/// replacing a link.
#[doc(hidden)]
pub fn read(name: &str, path: &Path, pid: u32) -> Option<Marker> {
    // The caller of a program with more rights has chosen the current folder, and is not asked.
    if is_secure_execution() && !path.is_absolute() {
        return None;
    }
    let target = match secure_fs::read(path, MAX_MARKER_BYTES) {
        Ok(bytes) => target(&bytes, pid).map_err(|error| format!("not JSON: {error}")),
        Err(OpenError::System(error))
            if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
        {
            return None;
        }
        Err(error) => Err(error.to_string()),
    };
    let problem = target.as_ref().err().cloned();
    Some(Marker { name: name.to_owned(), target: target.unwrap_or(Target::Unstated), problem })
}

/// The process that the content of a marker names.
///
/// # Errors
/// If it is not JSON. An empty file is not an error, because the existence of some markers is
/// enough.
#[doc(hidden)]
pub fn target(content: &[u8], pid: u32) -> Result<Target, serde_json::Error> {
    if content.trim_ascii().is_empty() {
        return Ok(Target::Unstated);
    }
    let json: serde_json::Value = serde_json::from_slice(content)?;
    // Some programs write every number as a float, such as `123.0` or `1.23e2`. A pid is exact in a
    // float.
    Ok(match json.get("target_pid").and_then(serde_json::Value::as_f64) {
        Some(number) if number == f64::from(pid) => Target::ThisProcess,
        Some(_) => Target::Other,
        None => Target::Unstated,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::Mode;
    use std::fs;

    #[test]
    fn the_target_is_compared_as_a_number() {
        use Target::*;
        let cases = [
            (r#"{"target_pid": 123}"#, ThisProcess),
            (r#"{"target_pid": 12}"#, Other),
            (r#"{"target_pid": 1234}"#, Other),
            (r#"{"target_pid": -123}"#, Other),
            (r#"{"target_pid": 123.5}"#, Other),
            (r#"{"target_pid": 99999999999999999999}"#, Other),
            (r#"{"target_pid": 4294967419}"#, Other), // 123 + 2^32
            (r#"{"target_pid": 123.0}"#, ThisProcess),
            (r#"{"target_pid": 1.23e2}"#, ThisProcess),
            (r#"{"target_pid": 1.23e300}"#, Other),
            // The last of two equal keys counts, as in most JSON parsers.
            (r#"{"target_pid": 12, "target_pid": 123}"#, ThisProcess),
            (r#"{"target_pid": 123, "target_pid": "123"}"#, Unstated),
            (r#"{"target_pid": [123]}"#, Unstated),
            (r#"{"target_pid": true}"#, Unstated),
            (r#"{"target_pid": "123"}"#, Unstated),
            (r#"{"target_pid": null}"#, Unstated),
            (r#"{"note": "target_pid: 123"}"#, Unstated),
            (r#"[123]"#, Unstated),
            ("123", Unstated),
            ("", Unstated),
            ("\n", Unstated),
        ];
        for (content, expected) in cases {
            assert_eq!(target(content.as_bytes(), 123).unwrap(), expected, "{content}");
        }
        let broken: [&[u8]; 6] = [
            b"{",
            b"\xff\xfe",
            b"{\"target_pid\": 123, \"by\": \"\xff\"}",
            b"\xef\xbb\xbf{\"target_pid\": 123}",
            br#"{"target_pid": 1e400}"#,
            br#"{"target_pid": 0123}"#,
        ];
        for content in broken {
            assert!(target(content, 123).is_err(), "{}", content.escape_ascii());
        }
        // serde_json limits the nesting, so a deep marker cannot overflow the stack.
        for nested in ["[", r#"{"target_pid":"#] {
            let deep = nested.repeat(100_000);
            let error = target(deep.as_bytes(), 123).unwrap_err();
            assert!(error.to_string().starts_with("recursion limit exceeded"), "{error}");
        }
    }

    #[test]
    fn a_path_of_any_kind_is_handled_without_blocking() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let problem = |name: &str| {
            let marker = read("takeover", &at(name), 123).expect(name);
            assert_eq!(marker.target, Target::Unstated, "{name}");
            marker.problem.expect(name)
        };

        assert_eq!(read("takeover", &at("nothing"), 123), None);

        fs::write(at("file"), r#"{"target_pid": 123}"#).unwrap();
        let marker = read("takeover", &at("file"), 123).unwrap();
        assert_eq!((marker.target, marker.problem), (Target::ThisProcess, None));
        assert_eq!(read("takeover", &at("file/below"), 123), None);

        nix::unistd::mkfifo(&at("fifo"), Mode::S_IRWXU).unwrap();
        assert_eq!(problem("fifo"), "not a regular file");
        fs::create_dir(at("folder")).unwrap();
        assert_eq!(problem("folder"), "not a regular file");
        std::os::unix::fs::symlink("/dev/zero", at("device")).unwrap();
        assert_eq!(problem("device"), "not a regular file");
        let _listener = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        assert_eq!(problem("socket"), "not a regular file");
        std::os::unix::fs::symlink(at("loop"), at("loop")).unwrap();
        assert!(problem("loop").contains("symbolic links"), "{}", problem("loop"));
        fs::File::create(at("gigabyte")).unwrap().set_len(1 << 30).unwrap();
        assert_eq!(problem("gigabyte"), "larger than 64 KiB");
        // The kernel answers a read of these. Reading the log of the kernel would empty it.
        // Only on Linux it is known which these are.
        #[cfg(all(target_os = "linux", not(forensics_portable)))]
        for kernel in ["/proc/kmsg", "/proc/uptime", "/sys/kernel/uevent_seqnum"] {
            let marker = read("takeover", Path::new(kernel), 123).expect(kernel);
            let problem = marker.problem.expect(kernel);
            assert_eq!(problem, "a file of the kernel, as in /proc or /sys", "{kernel}");
        }
        fs::write(at("torn"), r#"{"target_pid": 12"#).unwrap();
        assert!(problem("torn").starts_with("not JSON"), "{}", problem("torn"));
    }
}
