//! Writing a file for the user, in place of one that may be there.
//!
//! The content goes into a new file beside it, 0600, as a record is nobody else's affair, which then
//! takes the name. So a symbolic link or a hard link that somebody has put there leads nowhere, and a
//! page that is being replaced is never half one and half the other.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, renameat};
use nix::sys::stat::{Mode, SFlag, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// How many names are tried for the new file.
const ATTEMPTS: u32 = 100;

/// For the folder. With the first it need not be one that we may list.
#[cfg(target_os = "linux")]
const REACH: OFlag = OFlag::O_PATH;
#[cfg(not(target_os = "linux"))]
const REACH: OFlag = OFlag::O_RDONLY;

/// Writes the file at `path` anew.
///
/// # Errors
/// Where it cannot be written, or something that is no regular file is in its place.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let flags = REACH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let folder = open(folder.unwrap_or(Path::new(".")), flags, Mode::empty())?;
    match fstatat(&folder, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(there) if SFlag::from_bits_truncate(there.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG => {
        }
        Err(Errno::ENOENT) => {}
        Ok(_) => {
            let what = "there is something else than a regular file: remove it, or name another, \
                        or `-` for standard output";
            return Err(io::Error::other(what));
        }
        Err(errno) => return Err(errno.into()),
    }
    let (mut file, new) = beside(&folder)?;
    let written =
        file.write_all(content).and_then(|()| Ok(renameat(&folder, &*new, &folder, name)?));
    written.inspect_err(|_| {
        let _ = unlinkat(&folder, &*new, UnlinkatFlags::NoRemoveDir);
    })
}

/// A new file in the folder, and its name.
fn beside(folder: impl AsFd) -> io::Result<(File, String)> {
    let flags =
        OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    for attempt in 0..ATTEMPTS {
        let name = format!(".forensics-{}-{attempt}", std::process::id());
        match openat(&folder, name.as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR) {
            Ok(file) => return Ok((File::from(file), name)),
            Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    #[test]
    fn what_is_in_its_place_is_replaced_and_never_written_through() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let (victim, page) = (at("victim"), at("page"));
        fs::write(&victim, "precious").unwrap();

        replace(&page, b"new").unwrap();
        assert_eq!(fs::read_to_string(&page).unwrap(), "new");
        assert_eq!(fs::metadata(&page).unwrap().mode() & 0o7777, 0o600);
        replace(&page, b"newer").unwrap();
        assert_eq!(fs::read_to_string(&page).unwrap(), "newer");

        fs::remove_file(&page).unwrap();
        fs::hard_link(&victim, &page).unwrap();
        replace(&page, b"page").unwrap();
        assert_eq!(fs::read_to_string(&page).unwrap(), "page");

        symlink(&victim, at("link")).unwrap();
        nix::unistd::mkfifo(&at("fifo"), Mode::S_IRWXU).unwrap();
        fs::create_dir(at("folder")).unwrap();
        for other in ["link", "fifo", "folder"] {
            let error = replace(&at(other), b"page").unwrap_err();
            assert!(error.to_string().contains("`-` for standard output"), "{error}");
        }
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        let left = fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(left, 5, "nothing is left beside it");
    }
}
