//! Each arrangement that could redirect us, for each owner.

use std::ffi::CString;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};

use nix::unistd::mkfifo;

use super::*;
use crate::escape::error_chain;

/// The uid of another user.
const OTHER_USER: u32 = 65534;

/// Whether it was refused with this message.
fn is<T>(result: &Result<T, AccessError>, text: &str) -> bool {
    result.as_ref().is_err_and(|error| error.to_string().contains(text))
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Whether this test can change the owner of files. If not, it says so; in CI it fails.
fn is_root() -> bool {
    if !geteuid().is_root() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "must be run as root");
        eprintln!("skipped: only root can give files away");
    }
    geteuid().is_root()
}

#[test]
fn a_new_folder_is_private_and_an_existing_one_is_unchanged() {
    let tmp = tempfile::tempdir().unwrap();
    chmod(tmp.path(), 0o755);
    let deep = tmp.path().join("a/b/c");
    Folder::create(&deep).unwrap();
    Folder::create(&deep).unwrap();
    assert_eq!((mode(&deep), mode(&tmp.path().join("a"))), (0o700, 0o700));
    assert_eq!(mode(tmp.path()), 0o755);
    Folder::create(tmp.path()).unwrap();
    assert_eq!(mode(tmp.path()), 0o755);
    let roundabout = tmp.path().join("./a/../a//b/c/");
    assert!(is(&Folder::open(&tmp.path().join("x")), "cannot open the folder"));
    Folder::open(&roundabout).unwrap();
}

#[test]
fn folders_that_others_can_change_are_refused() {
    let tmp = tempfile::tempdir().unwrap();
    let folder = tmp.path().join("records");
    Folder::create(&folder).unwrap();
    for (bits, good) in [(0o702, false), (0o777, false), (0o1777, true), (0o755, true)] {
        chmod(&folder, bits);
        let log = append_to(&folder.join("log"));
        match Folder::create(&folder) {
            Ok(_) => assert!(good && log.is_ok(), "{bits:o}"),
            error @ Err(_) => {
                let shared = format!("(mode {bits:04o}) lets other users replace files");
                assert!(!good && is(&error, &shared) && is(&log, &shared), "{bits:o}");
            }
        }
    }
    fs::write(tmp.path().join("file"), "").unwrap();
    let create = |name: &str| Folder::create(&tmp.path().join(name));
    assert!(is(&create("file"), "cannot create the folder"));
    assert!(is(&create("file/x"), "cannot create the folder"));
    assert!(is(&Folder::create(Path::new("")), "cannot create the folder"));
}

#[test]
fn a_log_is_private_and_appended_to() {
    let tmp = tempfile::tempdir().unwrap();
    let log = tmp.path().join("deep/er/diag.log");
    append_to(&log).unwrap().write_all(b"one\n").unwrap();
    append_to(&log).unwrap().write_all(b"two\n").unwrap();
    assert_eq!(fs::read_to_string(&log).unwrap(), "one\ntwo\n");
    assert_eq!(mode(&log), 0o600);
    assert_eq!(mode(&tmp.path().join("deep")), 0o700);
}

#[test]
fn only_our_own_regular_file_with_one_hard_link_is_appended_to() {
    let tmp = tempfile::tempdir().unwrap();
    let at = |name: &str| tmp.path().join(name);
    let refused = |name: &str, text: &str| is(&append_to(&at(name)), text);
    fs::write(at("victim"), "precious").unwrap();

    symlink(at("victim"), at("link")).unwrap();
    assert!(refused("link", "cannot open "));
    symlink(at("nowhere"), at("dangling")).unwrap();
    assert!(refused("dangling", "cannot open "));
    fs::hard_link(at("victim"), at("hard")).unwrap();
    assert!(refused("hard", "has 2 hard links"));
    fs::write(at("open"), "").unwrap();
    for bits in [0o602, 0o666] {
        chmod(&at("open"), bits);
        assert!(refused("open", &format!("(mode {bits:04o}) lets other users write to it")));
    }
    fs::create_dir(at("folder")).unwrap();
    assert!(refused("folder", "is not a regular file"));
    mkfifo(&at("fifo"), Mode::S_IRWXU).unwrap();
    assert!(refused("fifo", "is not a regular file"));
    // A FIFO with a reader can be opened.
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
    let _reader = open(&at("fifo"), flags, Mode::empty()).unwrap();
    assert!(refused("fifo", "is not a regular file"));
    symlink("/dev/null", at("device")).unwrap();
    assert!(refused("device", "cannot open "));
    assert!(is(&append_to(Path::new("/dev/null")), "is not a regular file"));
    assert!(append_to(Path::new("/")).is_err() && append_to(&at("..")).is_err());
    assert_eq!(fs::read_to_string(at("victim")).unwrap(), "precious");
    assert!(!at("nowhere").exists());
}

#[test]
fn root_writes_neither_into_another_users_folder_nor_into_another_users_file() {
    if !is_root() {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    chmod(tmp.path(), 0o1777);
    let at = |name: &str| tmp.path().join(name);
    // In a folder like /tmp, where the other user may create files.
    fs::write(at("his.log"), "").unwrap();
    chown(at("his.log"), Some(OTHER_USER), None).unwrap();
    let error = append_to(&at("his.log")).unwrap_err();
    assert!(error.to_string().contains("belongs to uid 65534"));
    let shown = format!(
        "{0} belongs to uid 65534, not to root; run `chown 0 {0}` as root, or name another",
        at("his.log").display()
    );
    assert_eq!(error.to_string(), shown);
    mkfifo(&at("fifo"), Mode::S_IRWXU).unwrap();
    chown(at("fifo"), Some(OTHER_USER), None).unwrap();
    let _reader = open(&at("fifo"), OFlag::O_RDONLY | OFlag::O_NONBLOCK, Mode::empty()).unwrap();
    assert!(is(&append_to(&at("fifo")), "is not a regular file"));

    Folder::create(&at("his")).unwrap();
    chown(at("his"), Some(OTHER_USER), None).unwrap();
    for folder in [Folder::create(&at("his")), Folder::open(&at("his"))] {
        assert!(is(&folder, "belongs to uid 65534"));
    }
    let error = append_to(&at("his/log")).unwrap_err();
    assert!(error.to_string().contains("belongs to uid 65534"));
    assert_eq!(fs::read_dir(at("his")).unwrap().count(), 0);
}

#[test]
fn a_link_is_followed_only_if_root_made_it() {
    if !is_root() {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    chmod(tmp.path(), 0o1777);
    let at = |name: &str| tmp.path().join(name);
    fs::create_dir(at("real")).unwrap();
    // Like /var/lib/NAME, which systemd makes a link.
    symlink("real", at("roots")).unwrap();
    symlink(at("roots"), at("twice")).unwrap();
    for way in ["roots", "twice"] {
        Folder::create(&at(way).join("records")).unwrap();
        append_to(&at(way).join("log")).unwrap();
        // Also the last step, as with `StateDirectory=` under `DynamicUser=`.
        Folder::create(&at(way)).unwrap();
    }
    assert_eq!(fs::read_dir(at("real")).unwrap().count(), 2);

    symlink("real", at("his")).unwrap();
    lchown(at("his"), Some(OTHER_USER), None).unwrap();
    symlink("his", at("to_his")).unwrap();
    // A link of root's to which the other user has made a hard link.
    symlink("real", at("found")).unwrap();
    let (found, here) = (CString::new("found").unwrap(), CString::new("here").unwrap());
    let folder = open(tmp.path(), LIST, Mode::empty()).unwrap();
    nix::unistd::linkat(&folder, &*found, &folder, &*here, AtFlags::empty()).unwrap();
    for way in ["his", "to_his", "here"] {
        assert!(is(&Folder::create(&at(way).join("new")), "on the way"), "{way}");
        assert!(is(&append_to(&at(way).join("new.log")), "on the way"), "{way}");
    }
    assert_eq!(fs::read_dir(at("real")).unwrap().count(), 2);

    symlink("round", at("round")).unwrap();
    let error = Folder::create(&at("round/x")).unwrap_err();
    assert!(error_chain(&error).contains("symbolic links"), "{error}");
}

#[test]
fn replacing_a_folder_after_it_was_opened_has_no_effect() {
    let tmp = tempfile::tempdir().unwrap();
    let at = |name: &str| tmp.path().join(name);
    let folder = Folder::create(&at("records")).unwrap();
    fs::create_dir(at("victim")).unwrap();
    fs::write(at("victim/old"), "precious").unwrap();
    fs::rename(at("records"), at("aside")).unwrap();
    symlink(at("victim"), at("records")).unwrap();

    folder.create_new(Path::new("new")).unwrap();
    folder.create_new(Path::new("old")).unwrap();
    assert_eq!(all(&folder).len(), 2);
    assert!(folder.read(Path::new("new")).is_ok());
    folder.remove(Path::new("old")).unwrap();
    assert!(at("aside/new").exists() && !at("aside/old").exists());
    assert_eq!(fs::read_to_string(at("victim/old")).unwrap(), "precious");
    assert_eq!(fs::read_dir(at("victim")).unwrap().count(), 1);
    let taken = folder.create_new(Path::new("new")).unwrap_err();
    assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
}

#[test]
fn links_fifos_and_folders_are_neither_listed_nor_read() {
    let tmp = tempfile::tempdir().unwrap();
    chmod(tmp.path(), 0o700);
    let at = |name: &str| tmp.path().join(name);
    fs::write(at("file"), "").unwrap();
    symlink(at("file"), at("link")).unwrap();
    mkfifo(&at("fifo"), Mode::S_IRWXU).unwrap();
    fs::create_dir(at("folder")).unwrap();
    for folder in [Folder::open(tmp.path()).unwrap(), Folder::look(tmp.path()).unwrap()] {
        assert_eq!(all(&folder), ["file"]);
        for other in ["link", "fifo", "folder"] {
            let error = folder.read(Path::new(other)).unwrap_err();
            assert!(matches!(error, OpenError::NotRegular), "{other}: {error}");
        }
        folder.read(Path::new("file")).unwrap();
    }
}

/// The names of all files, sorted, and the number of files of other users.
fn listed(folder: &Folder) -> (Vec<OsString>, usize) {
    let mut foreign = 0;
    let mut names = folder.files(|_| true, |_| foreign += 1).unwrap();
    names.sort();
    (names, foreign)
}

fn all(folder: &Folder) -> Vec<OsString> {
    listed(folder).0
}

#[test]
fn where_others_can_create_files_only_those_of_our_user_count_and_for_a_reader_the_owners() {
    if !is_root() {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    let at = |name: &str| tmp.path().join(name);
    for (name, owner) in [("ours", 0), ("his", OTHER_USER), ("owners", 4711)] {
        fs::write(at(name), "").unwrap();
        chown(at(name), Some(owner), None).unwrap();
    }
    // The owner of the folder, and its mode. Then whose files count for a service of root, `None` if
    // it does not use the folder, and for a reader.
    type Case<'a> = (u32, u32, Option<&'a [&'a str]>, &'a [&'a str]);
    // Other Unix does not tell who is in a group, so a folder that a group can write to is not used.
    let is_linux = cfg!(all(target_os = "linux", not(forensics_portable)));
    let cases: [Case<'_>; 6] = [
        (0, 0o700, Some(&["his", "ours", "owners"]), &["ours"]),
        (0, 0o755, Some(&["his", "ours", "owners"]), &["ours"]),
        (0, 0o775, is_linux.then_some(&["ours"]), &["ours"]),
        (0, 0o1777, Some(&["ours"]), &["ours"]),
        (4711, 0o755, None, &["ours", "owners"]),
        (4711, 0o1777, None, &["ours", "owners"]),
    ];
    for (owner, mode, service, reader) in cases {
        chown(tmp.path(), Some(owner), None).unwrap();
        chmod(tmp.path(), mode);
        let opened = Folder::open(tmp.path()).ok();
        let looked = Folder::look(tmp.path()).unwrap();
        assert_eq!(opened.is_some(), service.is_some(), "{owner} {mode:o}");
        for (folder, expected) in
            [opened.zip(service), Some((looked, reader))].into_iter().flatten()
        {
            let (names, foreign) = listed(&folder);
            assert_eq!(
                (&*names, foreign),
                (
                    expected.iter().map(OsString::from).collect::<Vec<_>>().as_slice(),
                    3 - expected.len()
                ),
                "{owner} {mode:o}"
            );
            // The owner may have changed since the file was listed.
            for name in ["ours", "his", "owners"] {
                let refused = matches!(folder.read(Path::new(name)), Err(OpenError::Foreign(_)));
                assert_eq!(refused, !expected.contains(&name), "{owner} {mode:o} {name}");
            }
            assert_eq!(all(&folder.of_all_users()).len(), 3);
        }
    }
}

#[test]
fn a_file_with_two_names_is_not_read_where_others_can_create_names() {
    let tmp = tempfile::tempdir().unwrap();
    let (folder, elsewhere) = (tmp.path().join("records"), tmp.path().join("elsewhere"));
    Folder::create(&folder).unwrap();
    fs::write(&elsewhere, "").unwrap();
    fs::hard_link(&elsewhere, folder.join("linked")).unwrap();
    let refused =
        |folder: &Folder| matches!(folder.read(Path::new("linked")), Err(OpenError::HardLinks(2)));
    for (mode, service, reader) in [(0o700, false, false), (0o1777, true, true)] {
        chmod(&folder, mode);
        assert_eq!(refused(&Folder::open(&folder).unwrap()), service, "{mode:o}");
        assert_eq!(refused(&Folder::look(&folder).unwrap()), reader, "{mode:o}");
    }
}

/// setfacl(1) is not everywhere, so the attribute is set by a program that is.
#[test]
fn an_access_control_list_lets_other_users_write() {
    // The lists are read only on Linux.
    if !is_root() || !crate::os::HAS_PROC {
        return;
    }
    let tmp = tempfile::tempdir_in("/tmp").unwrap();
    let folder = tmp.path().join("records");
    Folder::create(&folder).unwrap();
    chmod(&folder, 0o770);
    Folder::open(&folder).unwrap();
    const SET: &str = "import os, struct, sys\n\
        entries = [(1, 7, -1), (2, 7, 1000), (4, 0, -1), (16, 7, -1), (32, 0, -1)]\n\
        acl = struct.pack('<I', 2) + b''.join(struct.pack('<HHi', *e) for e in entries)\n\
        os.setxattr(sys.argv[1], 'system.posix_acl_access', acl)\n";
    let set =
        std::process::Command::new("python3").args(["-c", SET]).arg(&folder).output().unwrap();
    if !set.status.success() {
        eprintln!("skipped: no access control lists here: {set:?}");
        return;
    }
    assert!(is(&Folder::open(&folder), "lets other users replace files"));
    chmod(&folder, 0o700);
    Folder::open(&folder).unwrap();
}

/// Without O_PATH the link could be replaced between the check and reading it.
#[test]
fn our_link_that_others_could_replace_is_followed_only_if_it_can_be_kept_open() {
    let tmp = tempfile::tempdir().unwrap();
    let at = |name: &str| tmp.path().join(name);
    fs::create_dir(at("records")).unwrap();
    chmod(&at("records"), 0o700);
    fs::create_dir(at("way")).unwrap();
    symlink(tmp.path(), at("way/link")).unwrap();
    for (bits, held) in [(0o755, true), (0o1777, true), (0o777, os::LINKS_ARE_HELD)] {
        chmod(&at("way"), bits);
        match Folder::open(&at("way/link/records")) {
            Ok(_) => assert!(held, "{bits:o}"),
            error => assert!(!held && is(&error, "the symbolic link link belongs to")),
        }
    }
}
