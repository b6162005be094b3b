//! Adds what a witness said to the record of a run that has ended.
//!
//! The rules for files are those of the recorder: no link is followed, no other user can have
//! replaced the file, and only a record of this user is written to. The record of a run that may be
//! alive is never touched.

use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::digest::MAX_WITNESSES;
use super::entry::line;
use super::folder::is_record_name;
use super::lock::is_locked;
use super::reader::MAX_RECORD;
use super::{Event, RecordFile, Run, RunOutcome, Utc, Witness};
use crate::access::AccessError;
use crate::clock::mono_us;
use crate::secure_fs::{Folder, OpenError};

/// Why a witness's statement was not added to a record.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The folder or the file cannot be used.
    #[error(transparent)]
    Access(AccessError),
    /// The run may be alive.
    #[error("its run may be alive")]
    Alive,
    /// It is not the record that was read, or it has no room.
    #[error("{0}")]
    Refused(&'static str),
    /// It could not be read or written.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// Appends what a witness said to the record of a run, with one write(2). Returns whether it was
/// new: the same statement is added only once.
///
/// # Errors
/// If the run may be alive, or if the record is not one that our user may write to safely.
pub fn append_witness(run: &Run, witness: &Witness) -> Result<bool, AppendError> {
    let path = run.path();
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if !is_record_name(name) {
        return Err(AppendError::Refused("its name is not that of a record"));
    }
    if matches!(run.post_mortem.outcome, RunOutcome::Running | RunOutcome::MaybeAlive) {
        return Err(AppendError::Alive);
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let folder = Folder::open(parent.unwrap_or(Path::new("."))).map_err(AppendError::Access)?;
    let mut file = folder.append_to(Path::new(name)).map_err(AppendError::Access)?;
    // Our shared lock is held until the end, so that the owner of the exclusive one has ended. It
    // does not disturb other readers.
    if is_locked(&file)? {
        return Err(AppendError::Alive);
    }
    // The clone shares the lock.
    let opened = RecordFile::of(file.try_clone().map_err(OpenError::System), path);
    let record = opened.and_then(|opened| opened.read(|_, _| ())).map_err(io::Error::other)?;
    if record.start != run.record.start {
        return Err(AppendError::Refused("it is now the record of another run"));
    }
    let said = &record.end.witnesses;
    if said.contains(witness) {
        return Ok(false);
    }
    let event = Event::Witness(witness.clone());
    let mut line = line(Utc::now(), mono_us(), &event).map_err(io::Error::other)?;
    let length = file.metadata()?.len();
    if said.len() >= MAX_WITNESSES || length + line.len() as u64 >= MAX_RECORD as u64 {
        return Err(AppendError::Refused("it has no room for more"));
    }
    // The run may have been killed in the middle of a write.
    let mut last = [0];
    file.read_exact_at(&mut last, length - 1)?;
    if last != *b"\n" {
        line.insert(0, b'\n');
    }
    let written = file.write(&line)?;
    if written < line.len() {
        return Err(io::Error::from(io::ErrorKind::StorageFull).into());
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::super::lock::{lock, unlock};
    use super::super::{PhaseStarted, Recorder, RunStarted, UnitEnd};
    use super::*;

    fn witness(result: &str) -> Witness {
        let end = UnitEnd { service_result: Some(result.to_owned()), ..UnitEnd::default() };
        Witness::from(&end)
    }

    /// A folder with the record of a run that has ended, and of its pid.
    fn ended() -> (tempfile::TempDir, Run) {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("records");
        // No process has this pid.
        let mut start = RunStarted::new("gateway", 1 << 30);
        start.boot_id = crate::clock::boot_id();
        let recorder = Recorder::create(&folder, start).unwrap();
        recorder.record(&Event::PhaseStarted(PhaseStarted::new("drain", 0))).unwrap();
        drop(recorder);
        let run = Run::last(&folder).unwrap().unwrap();
        (dir, run)
    }

    #[test]
    fn a_statement_is_added_once_and_used_by_the_next_reader() {
        let (_dir, run) = ended();
        assert!(append_witness(&run, &witness("timeout")).unwrap());
        assert!(!append_witness(&run, &witness("timeout")).unwrap());
        let again = Run::read(run.path()).unwrap();
        assert_eq!(again.post_mortem.service_result.as_deref(), Some("timeout"));
        // It is no event of the run.
        assert_eq!(again.post_mortem.last, run.post_mortem.last);
        for n in 0..40 {
            let _ = append_witness(&run, &witness(&n.to_string()));
        }
        let read = Run::read(run.path()).unwrap();
        assert_eq!(read.post_mortem.witnesses.len(), MAX_WITNESSES);
        assert_eq!(read.record.corrupt, 0);
    }

    #[test]
    fn a_torn_record_stays_readable() {
        let (_dir, run) = ended();
        let torn = [&fs::read(run.path()).unwrap()[..], b"{\"v\":1,"].concat();
        fs::write(run.path(), torn).unwrap();
        let run = Run::read(run.path()).unwrap();
        append_witness(&run, &witness("signal")).unwrap();
        let again = Run::read(run.path()).unwrap();
        assert_eq!((again.record.corrupt, again.record.torn), (1, false));
        assert_eq!(again.post_mortem.service_result.as_deref(), Some("signal"));
    }

    #[test]
    fn only_the_record_of_an_ended_run_of_ours_is_written_to() {
        let (dir, run) = ended();
        let before = fs::read(run.path()).unwrap();
        let refused = |run: &Run| append_witness(run, &witness("timeout")).unwrap_err().to_string();

        let living = fs::File::open(run.path()).unwrap();
        lock(&living).unwrap();
        assert_eq!(refused(&run), "its run may be alive");
        unlock(&living);

        // Another file has its name.
        let other = dir.path().join("other");
        fs::rename(run.path(), &other).unwrap();
        symlink(&other, run.path()).unwrap();
        assert!(refused(&run).contains("not a regular file"), "{}", refused(&run));
        fs::remove_file(run.path()).unwrap();
        fs::hard_link(&other, run.path()).unwrap();
        assert!(refused(&run).contains("hard links"), "{}", refused(&run));
        fs::remove_file(run.path()).unwrap();
        fs::write(run.path(), String::from_utf8(before.clone()).unwrap().replace("gateway", "x"))
            .unwrap();
        assert!(refused(&run).contains("another run"), "{}", refused(&run));
        fs::rename(&other, run.path()).unwrap();

        // Other users may write to it.
        fs::set_permissions(run.path(), fs::Permissions::from_mode(0o666)).unwrap();
        assert!(refused(&run).contains("lets other users write"), "{}", refused(&run));
        fs::set_permissions(run.path(), fs::Permissions::from_mode(0o600)).unwrap();
        let folder = run.path().parent().unwrap();
        fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(refused(&run).contains("lets other users replace"), "{}", refused(&run));
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(fs::read(run.path()).unwrap(), before);
        assert!(append_witness(&run, &witness("timeout")).unwrap());
    }
}
