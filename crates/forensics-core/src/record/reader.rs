//! Reads a record, even an incomplete one.
//!
//! The last line of a run that was killed may be incomplete. The disk may have been full for a
//! while. The writer may be newer than this reader, or still writing. None of this is an error. The
//! readable lines are read, and the others are counted.

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use super::digest::{Collector, Digest};
use super::{Entry, Event, HostState, MAX_LINE, RunStarted, Utc};
use crate::secure_fs::{Links, OpenError, open_path};

/// Largest record read, in bytes. A run writes a few kilobytes.
pub const MAX_RECORD: usize = 64 << 20;

/// Shorter than any event, in bytes: the shortest is
/// `{"v":1,"ts":"2026-11-23T10:15:00Z","mono_us":0,"event":""}`.
const SHORT: usize = 50;

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

/// The content of a record, with all its events in memory. For a record that another user may have
/// written, use [`PostMortem`](super::PostMortem), which needs little memory for any record.
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
        Self::of(&RecordFile::open(path)?)
    }

    /// Reads an open record.
    ///
    /// # Errors
    /// As [`Record::read`].
    #[doc(hidden)]
    pub fn of(file: &RecordFile) -> Result<Self, ReadError> {
        let mut entries = Vec::new();
        let digest = file.read(|entry, _| entries.push(entry.clone()))?;
        Ok(Self::new(digest, entries))
    }

    /// Reads the bytes of a record.
    ///
    /// # Errors
    /// If there is no `run_started` among them.
    #[doc(hidden)]
    pub fn parse(bytes: &[u8]) -> Result<Self, ContentError> {
        let mut entries = Vec::new();
        let digest = parse(bytes, |entry, _| entries.push(entry.clone()))?;
        Ok(Self::new(digest, entries))
    }

    fn new(digest: Digest, entries: Vec<Entry>) -> Self {
        let Digest { start, started, corrupt, torn, newer, .. } = digest;
        Self { start, started, entries, corrupt, torn, newer }
    }
}

impl Digest {
    /// Reads the bytes of a record.
    ///
    /// # Errors
    /// If there is no `run_started` among them.
    pub fn parse(bytes: &[u8]) -> Result<Self, ContentError> {
        parse(bytes, |_, _| ())
    }
}

/// An open record. It can be read several times, always up to the size that it had first.
#[derive(Debug)]
pub struct RecordFile {
    file: File,
    size: u64,
    /// For errors.
    path: PathBuf,
}

impl RecordFile {
    /// Opens a record.
    ///
    /// # Errors
    /// If it cannot be opened, is not a regular file, or is too large.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        Self::of(open_path(path, Links::Refuse), path)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The same for an opened file.
    pub(super) fn of(opened: Result<File, OpenError>, path: &Path) -> Result<Self, ReadError> {
        let open = || -> Result<_, Box<dyn Error + Send + Sync>> {
            let file = opened.map_err(|error| match error {
                OpenError::NotRegular => "not a regular file; name one that ends in .jsonl".into(),
                error => Box::<dyn Error + Send + Sync>::from(error),
            })?;
            let size = file.metadata()?.len();
            if size > MAX_RECORD as u64 {
                return Err(OpenError::TooLarge(MAX_RECORD as u64).into());
            }
            Ok(Self { file, size, path: path.to_owned() })
        };
        open().map_err(|source| ReadError { path: path.to_owned(), source })
    }

    /// Reads the record, and passes each readable entry and its line to `each`. At most one line is
    /// in memory at a time.
    ///
    /// # Errors
    /// If it cannot be read, or is not a record.
    pub fn read(&self, each: impl FnMut(&Entry, &[u8])) -> Result<Digest, ReadError> {
        let read = || -> Result<_, Box<dyn Error + Send + Sync>> {
            (&self.file).rewind()?;
            Ok(scan(BufReader::new((&self.file).take(self.size)), each)??)
        };
        read().map_err(|source| ReadError { path: self.path.clone(), source })
    }

    /// The owner of the file, if that is neither the owner of its folder, nor root, nor our user.
    pub fn foreign_uid(&self) -> Option<u32> {
        let uid = self.file.metadata().ok()?.uid();
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let folder = fs::metadata(parent.unwrap_or(Path::new("."))).ok()?.uid();
        (![folder, 0, geteuid().as_raw()].contains(&uid)).then_some(uid)
    }

    /// The state of the host for this run. Call it before the record is read: if the run ends in
    /// between, the record shows it.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn host(&self) -> Result<HostState, ReadError> {
        let failed = |e: io::Error| ReadError { path: self.path.clone(), source: e.into() };
        let head = head(&self.file).map_err(failed)?;
        let host = HostState::of_file(&self.file, head.as_ref().map(|(start, _)| start));
        Ok(HostState { file_uid: self.foreign_uid(), ..host })
    }
}

fn parse(bytes: &[u8], each: impl FnMut(&Entry, &[u8])) -> Result<Digest, ContentError> {
    // Reading from memory does not fail.
    scan(bytes, each).unwrap_or(Err(ContentError::Empty))
}

/// Reads a record line by line.
fn scan(
    mut reader: impl BufRead,
    mut each: impl FnMut(&Entry, &[u8]),
) -> io::Result<Result<Digest, ContentError>> {
    let (mut collected, mut line) = (Collector::default(), Vec::new());
    let (mut is_empty, mut corrupt, mut torn) = (true, 0, false);
    loop {
        let length = read_line(&mut reader, &mut line)?;
        if length == 0 {
            break;
        }
        is_empty = false;
        // An empty line follows a torn line that lacked only its newline.
        if line == b"\n" {
            continue;
        }
        // A line that is too long is not parsed. Neither is one that is too short, because a record can
        // have millions of those.
        let may_be_entry = (SHORT..=MAX_LINE).contains(&length);
        let entry = may_be_entry.then(|| Entry::parse(&line).ok()).flatten();
        match entry {
            Some(entry) => {
                collected.add(&entry);
                each(&entry, line.trim_ascii_end());
            }
            None if line.ends_with(b"\n") => corrupt += 1,
            None => torn = true,
        }
    }
    let lines = collected.read + corrupt + usize::from(torn);
    let none = if is_empty { ContentError::Empty } else { ContentError::NoRunStarted { lines } };
    Ok(collected.digest(corrupt, torn).ok_or(none))
}

/// Reads the next line, and returns its length, which is 0 at the end. Of a line that is too long,
/// only parts are kept, the last one among them.
fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<usize> {
    line.clear();
    let mut length = 0;
    loop {
        line.truncate(MAX_LINE);
        let part = reader.by_ref().take(64 << 10).read_until(b'\n', line)?;
        length += part;
        if part == 0 || line.ends_with(b"\n") {
            return Ok(length);
        }
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
    fn the_shortest_event_is_read() {
        let shortest = r#"{"v":1,"ts":"2026-11-23T10:15:00Z","mono_us":0,"event":""}"#;
        assert!(shortest.len() >= SHORT);
        let record = [whole(), shortest.into()].concat();
        let read = Record::parse(&record).unwrap();
        assert_eq!((read.entries.len(), read.torn), (5, false));
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
        // One line without an end.
        File::create(&large).unwrap().set_len(MAX_RECORD as u64).unwrap();
        assert!(refused(&large).contains("no run_started event in 1 lines"));
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
