//! Somebody exchanges a folder or a file for a link, as fast as he can, while we open it as often as
//! we can: nothing that we write ever lands where the link leads.
//!
//! Each way is tried 10,000 times, and until both have happened: that we got what is ours, and that we
//! met the link.

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

/// Past this the exchanger has not had its turn, and the test shows nothing.
const LIMIT: Duration = Duration::from_secs(120);

/// Calls `attempt`, which says whether it got through, while `one` and `other` change places.
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
                panic!("{through} got through and {refused} were refused");
            }
        }
        ended.store(true, Ordering::Relaxed);
    });
}

/// A folder with a victim in it: a folder with a file.
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

#[test]
fn no_record_lands_where_a_link_in_place_of_its_folder_leads() {
    let dir = stage();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("records")).unwrap();
    symlink(at("victim"), at("link")).unwrap();
    race(&at("records"), &at("link"), || {
        Recorder::create(&at("records"), RunStarted::new("gateway", 1)).is_ok()
    });
    assert_unharmed(dir.path());
}

#[test]
fn no_record_lands_where_somebody_elses_link_on_the_way_leads() {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "must be run as root");
        eprintln!("skipped: only root can give a link away");
        return;
    }
    let dir = stage();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("way")).unwrap();
    symlink(at("victim"), at("link")).unwrap();
    lchown(at("link"), Some(65534), None).unwrap();
    race(&at("way"), &at("link"), || {
        Recorder::create(&at("way/records"), RunStarted::new("gateway", 1)).is_ok()
    });
    assert_unharmed(dir.path());
}

#[test]
fn nothing_is_appended_to_what_a_link_in_place_of_the_log_leads_to() {
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
