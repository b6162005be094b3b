//! Reads a record, even an incomplete one.
//!
//! The last line of a run that was killed may be incomplete. The disk may have been full for a
//! while. The writer may be newer than this reader, or still writing. None of this is an error. The
//! readable lines are read, and the others are counted.

use std::error::Error;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use super::{Entry, Event, HostState, MAX_LINE, RunStarted, Utc, VERSION};
use crate::secure_fs::{Links, OpenError, open_path, read_open};

/// Largest record read, in bytes. A run writes a few kilobytes.
pub const MAX_RECORD: usize = 64 << 20;

/// Why a record could not be read; its source says more.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the record {}", path.display())]
pub struct ReadError {
    path: PathBuf,
    source: Box<dyn Error + Send + Sync>,
}

/// Why some bytes are not a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    /// It is empty. The run has just begun, or was killed just after it began.
    #[error("it is empty: its run has not written a line")]
    Empty,
    /// It has no `run_started` event.
    #[error(
        "no run_started event in {lines} lines, so it is not a record, or its first line is lost"
    )]
    NoRunStarted {
        /// The number of lines, including unreadable ones.
        lines: usize,
    },
}

/// The content of a record.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Record {
    #[doc(hidden)]
    /// The first `run_started`, which is also among the entries.
    pub start: RunStarted,
    /// When it was written.
    pub started: Utc,
    #[doc(hidden)]
    /// The readable entries in the order in which they were written. There is at least the
    /// `run_started`.
    pub entries: Vec<Entry>,
    /// How many lines before the last one could not be read.
    pub corrupt: usize,
    /// Whether the last line is incomplete: the run was killed in the middle of a write, or is
    /// writing now.
    pub torn: bool,
    /// Whether a line was written in a newer version of the schema. Then the record may say more than
    /// this reader understands.
    pub newer: bool,
}

impl Record {
    /// Reads the record in a file.
    ///
    /// Takes no lock and may be called while the run writes: it then sees the run so far.
    ///
    /// # Errors
    /// If the file cannot be read, is not regular, too large, or not a record at all.
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        Self::read_with_host(path).map(|(record, _)| record)
    }

    /// Also reads the state of the host for this run. The file is opened once for both.
    ///
    /// # Errors
    /// As [`Record::read`].
    #[doc(hidden)]
    pub fn read_with_host(path: &Path) -> Result<(Self, HostState), ReadError> {
        Self::of_file(open_path(path, Links::Refuse), path)
    }

    /// The same for an opened file; `path` is for errors.
    pub(super) fn of_file(
        opened: Result<File, OpenError>,
        path: &Path,
    ) -> Result<(Self, HostState), ReadError> {
        let read = || -> Result<_, Box<dyn Error + Send + Sync>> {
            let file = opened.map_err(|error| match error {
                OpenError::NotRegular => "not a regular file; name one that ends in .jsonl".into(),
                error => Box::<dyn Error + Send + Sync>::from(error),
            })?;
            // Before the content is read: if the run ends in between, the content shows it.
            let host = HostState::of_file(&file, head(&file)?.as_ref().map(|(start, _)| start));
            Ok((Self::parse(&read_open(&file, MAX_RECORD as u64)?)?, host))
        };
        read().map_err(|source| ReadError { path: path.to_owned(), source })
    }

    /// Reads the bytes of a record.
    ///
    /// # Errors
    /// If there is no `run_started` among them.
    #[doc(hidden)]
    pub fn parse(bytes: &[u8]) -> Result<Self, ContentError> {
        if bytes.is_empty() {
            return Err(ContentError::Empty);
        }
        let mut entries = Vec::new();
        let (mut lines, mut corrupt, mut torn) = (0_usize, 0_usize, false);
        // An empty line follows a torn line that lacked only its newline.
        for line in bytes.split_inclusive(|&b| b == b'\n').filter(|&line| line != b"\n") {
            lines += 1;
            // A line that is too long is not parsed, because JSON takes many times its size in
            // memory.
            let entry = (line.len() <= MAX_LINE).then(|| Entry::parse(line).ok()).flatten();
            match entry {
                Some(entry) => entries.push(entry),
                None if line.ends_with(b"\n") => corrupt += 1,
                None => torn = true,
            }
        }
        let start = entries.iter().find_map(|entry| match &entry.event {
            Event::RunStarted(start) => Some((RunStarted::clone(start), entry.ts)),
            _ => None,
        });
        let (start, started) = start.ok_or(ContentError::NoRunStarted { lines })?;
        let newer = entries.iter().any(|entry| entry.v > VERSION);
        Ok(Self { start, started, entries, corrupt, torn, newer })
    }
}

/// Reads the first line of a record, and the time of it. `None` if it is not a `run_started`.
pub(super) fn head(mut file: &File) -> io::Result<Option<(RunStarted, u64)>> {
    /// More than any first line has in practice, in bytes.
    const HEAD: u64 = 64 << 10;
    let mut line = Vec::new();
    BufReader::new(file.take(HEAD)).read_until(b'\n', &mut line)?;
    file.rewind()?;
    Ok(match Entry::parse(&line) {
        Ok(Entry { event: Event::RunStarted(start), mono_us, .. }) => Some((*start, mono_us)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::entry::line;
    use super::super::{ExitKind, PhaseStarted, Stopped};
    use super::*;
    use crate::escape::error_chain;

    fn bytes(events: &[Event]) -> Vec<u8> {
        events
            .iter()
            .enumerate()
            .flat_map(|(n, e)| line(Utc::now(), n as u64, e).unwrap())
            .collect()
    }

    fn start() -> Event {
        Event::RunStarted(RunStarted::new("gateway", 4100).into())
    }

    fn phase(name: &str) -> Event {
        Event::PhaseStarted(PhaseStarted::new(name, 0))
    }

    fn whole() -> Vec<u8> {
        let stopped = Event::Stopped(Stopped::new(ExitKind::Clean, 0, 1));
        bytes(&[start(), phase("drain"), phase("größe"), stopped])
    }

    #[test]
    fn unreadable_lines_are_counted_and_the_rest_is_read() {
        let head = r#"{"v":1,"ts":"2026-11-23T10:15:00Z","mono_us":1,"event":"phase_started""#;
        let long = "x".repeat(MAX_LINE);
        let long = format!("{head},\"offset_us\":1,\"phase\":\"{long}\"}}\n").into_bytes();
        let good = whole();
        let newer = String::from_utf8(bytes(&[phase("p")])).unwrap().replace(":1,", ":2,");
        // Text before and after four good lines; then the number of entries, of corrupt lines,
        // whether the end is torn, and whether there is a newer version.
        let cases: [(&[u8], &[u8], _); 9] = [
            (b"", b"", (4, 0, false, false)),
            (b"", br#"{"v":1,"ev"#, (4, 0, true, false)),
            (b"", b"\xff\xfe", (4, 0, true, false)),
            (b"garbage\n", b"", (4, 1, false, false)),
            (b"{\"v\":1,\"event\":\"pha\n\xff\n", b"\n\n", (4, 2, false, false)),
            (&long, b"{", (4, 1, true, false)),
            (b"", newer.as_bytes(), (5, 0, false, true)),
            (b"", newer.trim_end().as_bytes(), (5, 0, false, true)),
            (
                b"",
                br#"{"v":3,"ts":"2026-11-23T10:15:00Z","mono_us":1,"event":"new"}"#,
                (5, 0, false, true),
            ),
        ];
        for (front, behind, expected) in cases {
            let record = Record::parse(&[front, &good, behind].concat()).unwrap();
            let found = (record.entries.len(), record.corrupt, record.torn, record.newer);
            assert_eq!(found, expected, "{}", String::from_utf8_lossy(behind));
        }
    }

    #[test]
    fn a_file_that_is_not_a_record_is_refused() {
        let lonely = bytes(&[phase("drain")]);
        let cases = [
            (&b""[..], ContentError::Empty),
            (b"\n", ContentError::NoRunStarted { lines: 0 }),
            (b"{}\nx", ContentError::NoRunStarted { lines: 2 }),
            (&lonely, ContentError::NoRunStarted { lines: 1 }),
        ];
        for (bytes, error) in cases {
            assert_eq!(Record::parse(bytes), Err(error));
        }
        let tmp = tempfile::tempdir().unwrap();
        let refused = |path: &Path| error_chain(&Record::read(path).unwrap_err());
        assert!(refused(tmp.path()).contains("not a regular file; name"));
        let missing = Record::read(&tmp.path().join("none")).unwrap_err();
        assert!(error_chain(&missing).ends_with("none: No such file or directory (os error 2)"));
        // Sparse: only its size is large.
        let large = tmp.path().join("large");
        File::create(&large).unwrap().set_len(MAX_RECORD as u64 + 1).unwrap();
        assert!(refused(&large).ends_with("larger than 65536 KiB"));
    }

    proptest! {
        #[test]
        fn a_record_torn_at_any_byte_reads_as_the_lines_before(cut in 0..whole().len()) {
            let whole = whole();
            let (torn, lines) = (&whole[..cut], whole[..cut].split(|&b| b == b'\n'));
            // A line that lacks only its newline is complete.
            let next_is_newline = whole.get(cut) == Some(&b'\n');
            let complete = lines.count() - 1 + usize::from(next_is_newline);
            match Record::parse(torn) {
                Ok(record) => {
                    prop_assert_eq!(record.entries.len(), complete);
                    prop_assert_eq!(record.corrupt, 0);
                    let ends_whole = next_is_newline || torn.ends_with(b"\n");
                    prop_assert_eq!(record.torn, !ends_whole);
                }
                Err(_) => prop_assert_eq!(complete, 0),
            }
        }

        #[test]
        fn reading_any_bytes_never_panics(mut junk in any::<Vec<u8>>(), at in any::<usize>()) {
            let mut bytes = whole();
            let at = at % bytes.len();
            bytes.splice(at..at, junk.drain(..));
            let _ = Record::parse(&bytes);
        }
    }
}
