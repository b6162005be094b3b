//! Writes a file for the user, or replaces it.
//!
//! The content is written to a new file in the same folder, with mode 0600, which is then renamed.
//! So this never writes through a symbolic link or a hard link, and a reader never sees half a
//! page.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use tempfile::NamedTempFile;

/// Writes the file at `path`, or replaces it, with what `write` writes.
///
/// # Errors
/// If it cannot be written, or if something other than a regular file is there.
pub(crate) fn replace(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    // Any other error happens again below and is reported there.
    if fs::symlink_metadata(path).is_ok_and(|found| !found.is_file()) {
        return Err(io::Error::other(
            "it is not a regular file: remove it, name another file, or use `-` for standard output",
        ));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let mut file = BufWriter::new(NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))?);
    write(&mut file)?;
    file.into_inner()?.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    #[test]
    fn an_existing_file_is_replaced_and_never_written_through() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let (victim, page) = (at("victim"), at("page"));
        fs::write(&victim, "precious").unwrap();
        let replace =
            |path: &Path, content: &[u8]| super::replace(path, |out| out.write_all(content));

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
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        fs::create_dir(at("folder")).unwrap();
        for other in ["link", "fifo", "folder"] {
            let error = replace(&at(other), b"page").unwrap_err();
            assert!(error.to_string().contains("`-` for standard output"), "{error}");
        }
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        let left = fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(left, 5, "no temporary file remains");
    }
}
