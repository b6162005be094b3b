//! Reads the files of an audit log: `audit.log`, and the older `audit.log.1`, `audit.log.2`, ….

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::AuditSearch;
use crate::record::Utc;
use crate::secure_fs::{Links, OpenError, open_path};

/// How many rotated files are read at most.
const MAX_FILES: usize = 100;

/// How many bytes are read at most, of the newest files. auditd keeps 40 MB by default.
const MAX_BYTES: u64 = 256 << 20;

/// Longest line, in bytes. The kernel's are shorter (`MAX_AUDIT_MESSAGE_LENGTH`); a longer one is
/// skipped.
const MAX_LINE: u64 = 16 << 10;

/// Reads the log at `path`, with its rotated files, into `search`. Files that were last written before
/// `since` are left out.
///
/// # Errors
/// If the log itself cannot be opened.
pub(super) fn search_logs(
    search: &mut AuditSearch,
    path: &Path,
    since: Option<Utc>,
) -> Result<(), OpenError> {
    let mut files = vec![open_path(path, Links::Follow)?];
    let mut left = MAX_BYTES;
    // The newest first: a log that is rotated meanwhile is then read twice, and not skipped.
    for n in 1..MAX_FILES {
        let mut rotated = path.as_os_str().to_owned();
        rotated.push(format!(".{n}"));
        let Ok(file) = open_path(&PathBuf::from(rotated), Links::Refuse) else { break };
        let Ok(meta) = file.metadata() else { break };
        let is_older = meta.modified().is_ok_and(|written| Some(Utc::from_system(written)) < since);
        if is_older || meta.len() > left {
            break;
        }
        left -= meta.len();
        files.push(file);
    }
    for file in files.into_iter().rev() {
        // A part of a log is better than none.
        let _ = read_lines(file, search);
    }
    Ok(())
}

fn read_lines(file: File, search: &mut AuditSearch) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(64 << 10, file.take(MAX_BYTES));
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(());
        }
        if line.pop_if(|last| *last == b'\n').is_some() {
            search.line(&String::from_utf8_lossy(&line));
        } else {
            reader.skip_until(b'\n')?;
        }
    }
}
