//! One thread replaces a folder or a file by a link as fast as possible, while another opens it as
//! often as possible. Nothing must ever be written to the target of the link.
//!
//! Each test runs at least 10,000 times, and until both have happened: an attempt succeeded, and an
//! attempt was refused because of the link.

#![allow(clippy::unwrap_used)] // A test's unwrap is an assertion.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{lchown, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use forensics_core::record::{Recorder, RunStarted};
use forensics_core::secure_fs::append_to;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

const TIMES: usize = 10_000;

/// After this time the test fails, because the other thread did not run.
const LIMIT: Duration = Duration::from_secs(120);

/// Calls `attempt`, which returns whether it succeeded, while `one` and `other` are swapped.
fn race(one: &Path, other: &Path, attempt: impl Fn() -> bool) {
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                let flags = RenameFlags::RENAME_EXCHANGE;
                renameat2(AT_FDCWD, one, AT_FDCWD, other, flags).unwrap();
            }
        });
        let began = Instant::now();
        let (mut through, mut refused) = (0, 0);
        while through + refused < TIMES || through == 0 || refused == 0 {
            match attempt() {
                true => through += 1,
                false => refused += 1,
            }
            if began.elapsed() > LIMIT {
                ended.store(true, Ordering::Relaxed);
                panic!("{through} attempts succeeded and {refused} were refused");
            }
        }
        ended.store(true, Ordering::Relaxed);
    });
}

/// A folder that contains the target of the attack: a folder with a file.
fn stage() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("victim")).unwrap();
    fs::write(dir.path().join("victim/file"), "precious").unwrap();
    dir
}

fn assert_unharmed(dir: &Path) {
    assert_eq!(fs::read_dir(dir.join("victim")).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(dir.join("victim/file")).unwrap(), "precious");
}

/// Creates records in `records` of the folder, while `part` of its path is swapped with another
/// user's link to the victim. A link of root would be followed, as systemd makes one for
/// `StateDirectory=`.
fn no_record_is_written_through_a_link(part: &str, records: &str) {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "must be run as root");
        eprintln!("skipped: only root can change the owner of a link");
        return;
    }
    let dir = stage();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at(part)).unwrap();
    symlink(at("victim"), at("link")).unwrap();
    lchown(at("link"), Some(65534), None).unwrap();
    race(&at(part), &at("link"), || {
        Recorder::create(&at(records), RunStarted::new("gateway", 1)).is_ok()
    });
    assert_unharmed(dir.path());
}

#[test]
fn no_record_is_written_through_another_users_link_that_replaces_its_folder() {
    no_record_is_written_through_a_link("records", "records");
}

#[test]
fn no_record_is_written_through_another_users_link_on_the_path() {
    no_record_is_written_through_a_link("way", "way/records");
}

#[test]
fn nothing_is_appended_through_a_link_that_replaces_the_log() {
    type Link = fn(&Path, &Path);
    let links: [Link; 2] = [
        |victim, link| symlink(victim, link).unwrap(),
        |victim, link| fs::hard_link(victim, link).unwrap(),
    ];
    for link in links {
        let dir = stage();
        let at = |name: &str| dir.path().join(name);
        append_to(&at("log")).unwrap();
        link(&at("victim/file"), &at("link"));
        race(&at("log"), &at("link"), || match append_to(&at("log")) {
            Ok(mut log) => log.write_all(b"x").is_ok(),
            Err(_) => false,
        });
        assert_unharmed(dir.path());
    }
}
