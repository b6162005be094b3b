//! Records of other users: they are no evidence, they displace none of ours, and they do not delay a
//! start.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use forensics_tests::{Ended, Program, example, forensics, root_can};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::{Value, json};

const OTHER: u32 = 65534;

/// The name of a record from the future.
fn future(n: usize) -> String {
    format!("2099{:04}T000000.000000Z-77.jsonl", 101 + n)
}

/// A folder in which others can create files, with the record of a run of ours that was killed.
struct Place {
    dir: tempfile::TempDir,
    record: PathBuf,
    pid: u32,
}

impl Place {
    fn new(owner: u32, mode: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let records = dir.path().join("records");
        fs::create_dir(&records).unwrap();
        fs::set_permissions(&records, fs::Permissions::from_mode(mode)).unwrap();
        let gateway = Program::gateway(&["--records", records.to_str().unwrap()]);
        let pid = gateway.program.pid();
        gateway.program.kill("-KILL");
        gateway.program.wait();
        let record = fs::read_dir(&records).unwrap().next().unwrap().unwrap().path();
        chown(&records, Some(owner), None).unwrap();
        Self { dir, record, pid }
    }

    fn records(&self) -> PathBuf {
        self.dir.path().join("records")
    }

    /// The record, as if the run had ended well, later than any other.
    fn forged(&self) -> String {
        let first = fs::read_to_string(&self.record).unwrap();
        let mut start: Value = serde_json::from_str(first.lines().next().unwrap()).unwrap();
        (start["pid"], start["mono_us"]) = (1.into(), (1_u64 << 62).into());
        let stopped = json!({ "v": 1, "ts": start["ts"], "mono_us": (1_u64 << 62) + 1,
            "event": "stopped", "how": "clean", "exit_code": 0, "total_us": 1 });
        format!("{start}\n{stopped}\n")
    }

    /// A new start, which ends at once.
    fn start(&self) -> Ended {
        let gateway = Program::gateway(&["--records", self.records().to_str().unwrap()]);
        gateway.program.kill("-TERM");
        gateway.program.wait()
    }

    fn read(&self, arguments: &[&str]) -> (String, String) {
        let mut command = Command::new(forensics());
        let output = command.args(arguments).arg(self.records()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr))
    }
}

fn give_away(path: &Path) {
    chown(path, Some(OTHER), None).unwrap();
}

#[test]
fn no_file_of_another_user_is_taken_for_the_previous_run() {
    if !root_can(Command::new("setpriv").args(["--reuid=1", "--clear-groups", "true"])) {
        return;
    }
    // What another user can put into a sticky folder, and what a start says about it.
    type Put = fn(&Place, &Path);
    let cases: [(&str, Put, &str); 7] = [
        (
            "a file from the future",
            |place, path| {
                fs::write(path, place.forged()).unwrap();
                give_away(path);
            },
            "",
        ),
        (
            "an empty file",
            |_, path| {
                File::create(path).unwrap();
                give_away(path);
            },
            "",
        ),
        (
            "a link to a file of root",
            |place, path| {
                let target = place.dir.path().join("elsewhere");
                fs::write(&target, place.forged()).unwrap();
                symlink(target, path).unwrap();
            },
            "",
        ),
        (
            "a second name of a file of root",
            |place, path| {
                let target = place.dir.path().join("elsewhere");
                fs::write(&target, place.forged()).unwrap();
                fs::hard_link(target, path).unwrap();
            },
            "has 2 hard links, so it may be another file",
        ),
        ("a FIFO", |_, path| mkfifo(path, Mode::S_IRWXU).unwrap(), ""),
        ("a folder", |_, path| fs::create_dir(path).unwrap(), ""),
        (
            "a file whose mode lets everyone write",
            |place, path| {
                fs::write(path, place.forged()).unwrap();
                fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
                give_away(path);
            },
            "",
        ),
    ];
    for (what, put, warning) in cases {
        let place = Place::new(0, 0o1777);
        put(&place, &place.records().join(future(1)));
        let (last, _) = place.read(&["last"]);
        assert!(last.starts_with("outcome=vanished "), "{what}: {last}");
        let ended = place.start();
        let line = ended.line("Previous run");
        let ours = format!("outcome=vanished service=gateway pid={} ", place.pid);
        assert!(line.contains(&ours), "{what}: {line}");
        let warned = ended.stderr.contains("A newer record cannot be read");
        assert_eq!((warned, ended.stderr.contains(warning)), (!warning.is_empty(), true), "{what}");
    }
}

#[test]
fn the_command_line_prefers_the_files_of_the_folders_owner_and_names_others() {
    if !root_can(Command::new("setpriv").args(["--reuid=1", "--clear-groups", "true"])) {
        return;
    }
    // The owner of the folder, and its mode: root's, and a user's that root reads.
    for (owner, mode) in [(0, 0o1777), (0, 0o775), (4711, 0o755), (4711, 0o777)] {
        let place = Place::new(0, mode & 0o1755 | 0o700);
        fs::set_permissions(place.records(), fs::Permissions::from_mode(mode)).unwrap();
        chown(place.records(), Some(owner), None).unwrap();
        chown(&place.record, Some(owner), None).unwrap();
        let forged = place.records().join(future(1));
        fs::write(&forged, place.forged()).unwrap();
        give_away(&forged);
        let case = format!("{owner} {mode:o}");

        let (last, note) = place.read(&["last"]);
        assert!(last.starts_with("outcome=vanished "), "{case}: {last}");
        assert_eq!(note, "forensics: not used: 1 record of other users (uid 65534)\n", "{case}");
        let (list, _) = place.read(&["list"]);
        let lines: Vec<_> = list.lines().collect();
        assert!(!lines[0].contains("uid") && lines[1].ends_with("  (file of uid 65534)"), "{list}");
        let (stats, _) = place.read(&["list", "--stats"]);
        let expected = "1 runs; not counted: 1 record of other users (uid 65534)\n";
        assert!(stats.starts_with(expected) && !stats.contains("clean"), "{case}: {stats}");
        let (stats, _) = place.read(&["list", "--stats", "--json"]);
        let stats: Value = serde_json::from_str(&stats).unwrap();
        assert_eq!((&stats["foreign"], &stats["runs"]), (&1.into(), &1.into()), "{case}");
        let show = Command::new(forensics()).arg("show").arg(&forged).output().unwrap();
        let show = String::from_utf8(show.stdout).unwrap();
        assert!(show.contains(" file_uid=65534 "), "{case}: {show}");

        // There is no other.
        fs::remove_file(&place.record).unwrap();
        let (last, note) = place.read(&["last", "--json"]);
        let last: Value = serde_json::from_str(&last).unwrap();
        assert_eq!((&last["file_uid"], &last["outcome"]), (&OTHER.into(), &"clean".into()));
        assert_eq!(note, "", "{case}");
    }
}

/// The time until the gateway listens.
fn start_time(records: &Path) -> Duration {
    let mut command = Command::new(example("gateway"));
    command.args(["--listen", "127.0.0.1:0", "--records"]).arg(records);
    let began = Instant::now();
    let program = Program::start(command.stdin(Stdio::null()));
    program.wait_for_stdout("listening on");
    let took = began.elapsed();
    program.kill("-TERM");
    program.wait();
    took
}

#[test]
fn files_of_others_cost_a_start_no_more_than_a_few_listings_of_the_folder() {
    const FILES: usize = 20_000;
    if !root_can(Command::new("setpriv").args(["--reuid=1", "--clear-groups", "true"])) {
        return;
    }
    let (empty, full) = (Place::new(0, 0o1777), Place::new(0, 0o1777));
    let forged = full.forged();
    for n in 0..FILES {
        let path = full.records().join(format!("20990101T{n:06}.000000Z-77.jsonl"));
        fs::write(&path, &forged).unwrap();
        give_away(&path);
    }
    let list = || {
        let began = Instant::now();
        let uid = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().metadata().unwrap().uid();
        let others = fs::read_dir(full.records()).unwrap().map(uid).filter(|uid| *uid == OTHER);
        assert_eq!(others.count(), FILES);
        began.elapsed()
    };
    // The best of several, because the machine may do other things.
    let best = |measure: &dyn Fn() -> Duration| (0..5).map(|_| measure()).min().unwrap();
    let listing = best(&list);
    let more = best(&|| start_time(&full.records()))
        .saturating_sub(best(&|| start_time(&empty.records())));
    let ratio = more.as_secs_f64() / listing.as_secs_f64();
    eprintln!("{FILES} files: a listing takes {listing:?}, the start {more:?} more: {ratio:.1}");
    // The folder is listed twice, once to find the previous run and once to remove old records.
    assert!(ratio < 8.0, "{ratio:.1}");
    // None of ours was removed.
    assert!(full.record.exists());
}
