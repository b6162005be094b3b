//! Finds the programs that we start, such as systemctl(1).
//!
//! A user who can place a program where we look for one gets our rights. So the folders of the system
//! come first, and only then those of `PATH`. A relative or empty entry of `PATH` is never used, and
//! neither is a folder in which other users can create files, or a program that another user can change or
//! lead the path to, also by a link. A program with rights that its caller lacks does not use
//! `PATH` at all, because the caller has set it.

use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::capture::is_secure_execution;
use crate::secure_fs::{Folder, MAX_LINKS};

/// The folders of the system's own programs, in the form of `PATH`. The last one is that of NixOS.
pub const SYSTEM_PATH: &str = "/usr/bin:/bin:/usr/sbin:/sbin:/run/current-system/sw/bin";

/// The path of the program `name`.
///
/// # Errors
/// If there is no such program.
pub fn find(name: &str) -> io::Result<PathBuf> {
    let path = std::env::var_os("PATH").filter(|_| !is_secure_execution());
    let not_found = || io::Error::new(io::ErrorKind::NotFound, "the program was not found");
    find_in(SYSTEM_PATH, &path.unwrap_or_default(), name).ok_or_else(not_found)
}

fn find_in(system: &str, path: &OsStr, name: &str) -> Option<PathBuf> {
    let is_program = |file: &PathBuf| {
        file.metadata().is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
    };
    let of_system = system.split(':').map(|folder| Path::new(folder).join(name)).find(is_program);
    let mut on_path = std::env::split_paths(path).map(|folder| folder.join(name));
    of_system.or_else(|| on_path.find(|program| is_trusted(program)))
}

/// Whether the path is absolute, and no other user can change the program, or lead its path to another one:
/// not in any folder in which a part of the path is looked up, also behind links.
fn is_trusted(program: &Path) -> bool {
    if !program.is_absolute() {
        return false;
    }
    let mut program = program.to_owned();
    for _ in 0..MAX_LINKS {
        let (Some(parent), Some(name)) = (program.parent(), program.file_name().map(Path::new))
        else {
            return false;
        };
        let Ok(folder) = Folder::open_closed(parent) else { return false };
        match folder.link(name) {
            _ if folder.is_sticky() => return false,
            Some(target) => program = parent.join(target),
            None => return folder.has_program(name),
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{chown, symlink};
    use std::path::Path;

    use nix::unistd::geteuid;

    #[test]
    fn a_folder_of_the_system_comes_first_and_a_folder_that_others_control_is_not_used() {
        let dir = tempfile::tempdir_in(".").unwrap();
        let below = fs::canonicalize(dir.path()).unwrap();
        let at = |name: &str| below.join(name).into_os_string().into_string().unwrap();
        for (folder, mode) in [
            ("system", 0o755),
            ("ours", 0o755),
            ("open", 0o777),
            ("theirs", 0o755),
            ("tmp", 0o1777),
        ] {
            fs::create_dir(at(folder)).unwrap();
            fs::set_permissions(at(folder), Permissions::from_mode(mode)).unwrap();
            fs::write(at(&format!("{folder}/ask")), "").unwrap();
            fs::set_permissions(at(&format!("{folder}/ask")), Permissions::from_mode(0o755))
                .unwrap();
        }
        fs::write(at("ours/data"), "").unwrap();
        for (program, mode) in [("writable", 0o757), ("theirs", 0o755)] {
            fs::write(at(&format!("ours/{program}")), "").unwrap();
            fs::set_permissions(at(&format!("ours/{program}")), Permissions::from_mode(mode))
                .unwrap();
        }
        fs::create_dir(at("open/below")).unwrap();
        fs::set_permissions(at("open/below"), Permissions::from_mode(0o755)).unwrap();
        fs::copy(at("ours/ask"), at("open/below/ask")).unwrap();
        fs::create_dir(at("ours/folder")).unwrap();
        symlink("ours", at("link")).unwrap();
        symlink("open/below", at("outward")).unwrap();
        symlink(at("open/below/ask"), at("ours/outward")).unwrap();
        symlink(at("ours/ask"), at("open/below/inward")).unwrap();
        symlink(at("open/below/inward"), at("ours/there_and_back")).unwrap();
        symlink(at("ours"), at("open/below/ours")).unwrap();
        symlink("open/below/ours", at("there_and_back")).unwrap();
        symlink("../link/ask", at("ours/several")).unwrap();
        symlink("several", at("ours/more")).unwrap();
        symlink("endless", at("ours/endless")).unwrap();
        if geteuid().is_root() {
            chown(at("theirs"), Some(65534), None).unwrap();
            chown(at("ours/theirs"), Some(65534), None).unwrap();
        } else {
            fs::remove_dir_all(at("theirs")).unwrap();
            fs::remove_file(at("ours/theirs")).unwrap();
        }
        let system = at("system");
        let here = fs::canonicalize(".").unwrap();
        let relative = at("ours")[here.as_os_str().len() + 1..].to_owned();
        assert!(Path::new(&relative).join("ask").exists());
        let cases = [
            (&*system, at("ours"), "ask", Some("system/ask")),
            ("/nonexistent", at("ours"), "ask", Some("ours/ask")),
            ("/nonexistent", format!("::{relative}:{}", at("ours")), "ask", Some("ours/ask")),
            ("/nonexistent", at("link"), "ask", Some("link/ask")),
            ("/nonexistent", at("ours"), "more", Some("ours/more")),
            ("/nonexistent", at("ours"), "endless", None),
            ("/nonexistent", relative, "ask", None),
            ("/nonexistent", ".:".to_owned(), "Cargo.toml", None),
            ("/nonexistent", String::new(), "ask", None),
            ("/nonexistent", at("open"), "ask", None),
            // As `/tmp`, in which each user can create files.
            ("/nonexistent", at("tmp"), "ask", None),
            // Our folder, but another user can put another one in its place.
            ("/nonexistent", at("open/below"), "ask", None),
            // The same by a link of ours.
            ("/nonexistent", at("outward"), "ask", None),
            ("/nonexistent", at("outward"), "inward", None),
            ("/nonexistent", at("ours"), "outward", None),
            // A link of ours to one that another user can replace, which leads back to our program now.
            ("/nonexistent", at("ours"), "there_and_back", None),
            ("/nonexistent", at("there_and_back"), "ask", None),
            ("/nonexistent", at("ours"), "writable", None),
            ("/nonexistent", at("ours"), "theirs", None),
            ("/nonexistent", at("theirs"), "ask", None),
            ("/nonexistent", at("ours"), "data", None),
            ("/nonexistent", at("ours"), "folder", None),
            ("/nonexistent", at("ours"), "missing", None),
        ];
        for (system, path, name, expected) in cases {
            let found = find_in(system, path.as_ref(), name);
            assert_eq!(found, expected.map(|file| below.join(file)), "{path}");
        }
    }
}
