//! The record's folder or file is removed, renamed, truncated, replaced or unmounted while the gateway
//! runs. The record is written again, and the next start knows the run.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use forensics_tests::{Gateway, Program, example, root_can};
use forensics_tokio::core::record::{Event, PostMortem, Record, runs};

/// The gateway with its records in that folder.
fn start(records: &Path) -> Gateway {
    Program::gateway(&["--records", records.to_str().unwrap()])
}

/// The only record in a folder.
fn record(records: &Path) -> PathBuf {
    let [record] = &runs(records).unwrap()[..] else { panic!("not one record") };
    record.clone()
}

/// What the next start says about the run before it.
fn said_by_the_next_start(records: &Path) -> String {
    let next = start(records);
    next.program.kill("-TERM");
    next.program.wait().line("Previous run").to_owned()
}

#[test]
fn a_record_that_is_lost_while_the_gateway_runs_is_written_again_at_the_stop() {
    type Lose = fn(&Path, &Path);
    let cases: [(&str, Lose); 6] = [
        ("removed", |_, file| fs::remove_file(file).unwrap()),
        ("removed", |dir, _| fs::remove_dir_all(dir).unwrap()),
        ("removed", |dir, _| fs::rename(dir, dir.with_extension("old")).unwrap()),
        ("replaced", |_, file| {
            // As `sed -i` and `rsync` do it.
            fs::copy(file, file.with_extension("copy")).unwrap();
            fs::rename(file.with_extension("copy"), file).unwrap();
        }),
        ("removed", |_, file| {
            let moved = Command::new("mv").arg(file).arg(file.with_extension("jsonl.1")).status();
            assert!(moved.unwrap().success());
        }),
        ("truncated", |dir, file| {
            // The `copytruncate` of logrotate.
            fs::copy(file, dir.join("copy.1")).unwrap();
            File::options().write(true).open(file).unwrap().set_len(0).unwrap();
        }),
    ];
    for (what, lose) in cases {
        let tmp = tempfile::tempdir().unwrap();
        let records = tmp.path().join("records");
        let gateway = start(&records);
        let pid = gateway.program.pid();
        lose(&records, &record(&records));
        gateway.program.kill("-TERM");
        let ended = gateway.program.wait();
        ended.assert_well(0);
        let line = ended.line("The record has been written again");
        assert!(line.contains(what), "{line}");
        let found = PostMortem::of(&record(&records)).unwrap();
        assert!(found.is_clean() && found.pid == pid, "{found}");
        let said = said_by_the_next_start(&records);
        assert!(said.contains("outcome=clean") && said.contains(&format!("pid={pid} ")), "{said}");
    }
}

#[test]
fn a_record_that_cannot_be_written_again_is_one_warning() {
    let tmp = tempfile::tempdir().unwrap();
    let records = tmp.path().join("records");
    let gateway = start(&records);
    let old = tmp.path().join("old");
    fs::rename(&records, &old).unwrap();
    // No folder can have this name now.
    fs::write(&records, "").unwrap();
    gateway.program.kill("-TERM");
    let ended = gateway.program.wait();
    ended.assert_well(1);
    let warning = ended.line("Not all of this run is recorded");
    assert!(warning.contains("cannot create the folder"), "{warning}");
    // What can still be written to is complete.
    assert!(PostMortem::of(&record(&old)).unwrap().is_clean());
}

#[test]
fn a_record_whose_file_system_is_unmounted_is_complete_there_and_at_its_path() {
    const MOUNT: &str = "mount -t tmpfs -o mode=700 none \"$M\"";
    let tmp = tempfile::tempdir().unwrap();
    let place = tmp.path().join("mounted");
    fs::create_dir(&place).unwrap();
    let unshared = |script: &str| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "sh", "-c", &format!("set -e; {MOUNT}; {script}")]);
        unshare.arg(example("gateway")).env("M", &place);
        unshare
    };
    if !root_can(&mut unshared("true")) {
        return;
    }
    for lose in ["umount --lazy \"$M\"", "mount -t tmpfs -o mode=700 none \"$M\""] {
        let gateway = Program::gateway_by(&mut unshared(r#"exec "$0" --records "$M/records""#));
        let pid = gateway.program.pid();
        let inside = |script: &str| {
            let mut nsenter = Command::new("nsenter");
            nsenter.arg(format!("--target={pid}")).args(["--mount", "sh", "-c", script]);
            let output = nsenter.env("M", &place).output().unwrap();
            assert!(output.status.success(), "{output:?}");
        };
        let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().find_map(|fd| {
            let fd = fd.unwrap().path();
            let is_record =
                fs::read_link(&fd).is_ok_and(|to| to.extension() == Some("jsonl".as_ref()));
            is_record.then(|| File::open(fd).unwrap())
        });
        inside(lose);
        // Keeps what is mounted there now.
        let below = place.strip_prefix("/").unwrap();
        let top = File::open(PathBuf::from(format!("/proc/{pid}/root")).join(below)).unwrap();
        gateway.program.kill("-TERM");
        let ended = gateway.program.wait();
        ended.assert_well(0);
        ended.line("The record has been written again");
        let again = format!("/proc/{}/fd/{}/records", std::process::id(), top.as_raw_fd());
        let again = PathBuf::from(again);
        assert!(PostMortem::of(&record(&again)).unwrap().is_clean());
        let hidden = std::io::read_to_string(open.unwrap()).unwrap();
        let hidden = Record::parse(hidden.as_bytes()).unwrap();
        let last = &hidden.entries.last().unwrap().event;
        assert!(matches!(last, Event::Stopped(_)), "{last:?}");
        let _ = fs::remove_dir_all(place.join("records"));
    }
}
