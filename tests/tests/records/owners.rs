//! Folders of other owners, groups and modes, as containers and daemons find them. Record and
//! diagnostic work there, or the start prints the command that makes them work.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use forensics_tests::{Ended, Program, example, root_can};
use forensics_tokio::core::record::{PostMortem, runs};

/// An arbitrary uid, as OpenShift chooses it. It has no account.
const POD: u32 = 1_000_680_000;
/// A group that no account has.
const FS_GROUP: u32 = 1_000_690_000;

/// The gateway as another user, with its records in `folder` and its log in `log`.
fn start(uid: u32, groups: &str, folder: &Path) -> Program {
    let mut setpriv = Command::new("setpriv");
    let (gid, _) = groups.split_once(',').unwrap();
    setpriv.arg(format!("--reuid={uid}")).arg(format!("--regid={gid}"));
    setpriv.arg(format!("--groups={groups}")).arg("--inh-caps=-all").arg(example("gateway"));
    setpriv.arg("--records").arg(folder).arg("--diag-log").arg(folder.join("diag.log"));
    let program = Program::start(&mut setpriv);
    program.wait_for_stdout("listening on");
    program
}

fn stop(program: Program) -> Ended {
    program.kill("-TERM");
    program.wait()
}

fn warnings(ended: &Ended) -> Vec<&str> {
    let lines = ended.stderr.lines().filter(|line| line.contains(" WARN "));
    lines.filter(|line| !line.contains("Previous run")).collect()
}

fn assert_written(folder: &Path, ended: &Ended) {
    ended.assert_well(0);
    let record = runs(folder).unwrap().pop().unwrap();
    assert!(PostMortem::of(&record).unwrap().is_clean());
    let log = fs::read_to_string(folder.join("diag.log")).unwrap();
    assert!(log.contains("--- end of diagnostic"), "{log}");
}

#[test]
fn record_and_diagnostic_work_or_the_command_that_the_start_prints_makes_them_work() {
    if !root_can(Command::new("setpriv").args(["--reuid=1", "--clear-groups", "true"])) {
        return;
    }
    let pod = format!("0,{FS_GROUP}");
    // uid, groups, and the folder: owner, group, mode. Then whether it works at once.
    type Case<'a> = (u32, &'a str, (u32, u32, u32), bool);
    let cases: [Case<'_>; 10] = [
        // OpenShift: a folder of the image, with the group 0; volumes with an fsGroup.
        (POD, &pod, (0, 0, 0o775), true),
        (POD, &pod, (0, 0, 0o2775), true),
        (POD, &pod, (0, FS_GROUP, 0o2775), true),
        (POD, &pod, (POD, FS_GROUP, 0o2770), true),
        // An `emptyDir` itself. Folders of others. A folder that only root can write to.
        (POD, &pod, (0, 0, 0o777), false),
        (POD, &pod, (0, FS_GROUP, 0o2777), false),
        (POD, &pod, (1001, 0, 0o775), false),
        (POD, &pod, (0, 0, 0o755), false),
        // A daemon that is root until later, with a folder of its later user.
        (0, "0,0", (4711, 4711, 0o755), false),
        (0, "0,0", (0, 4711, 0o775), false),
    ];
    for (uid, groups, (owner, group, mode), works) in cases {
        let tmp = tempfile::tempdir().unwrap();
        fs::set_permissions(tmp.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let folder = tmp.path().join("it's here");
        fs::create_dir(&folder).unwrap();
        chown(&folder, Some(owner), Some(group)).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
        let case = format!("uid {uid} groups {groups}, folder {owner}:{group} {mode:o}");
        let mut ended = stop(start(uid, groups, &folder));
        if !works {
            let warnings = warnings(&ended);
            let starts = ["Not all of this run is recorded", "No diagnostic can be written"];
            for start in starts {
                let warned = warnings.iter().filter(|line| line.contains(start));
                assert_eq!(warned.count(), 1, "{case}: {warnings:?}");
            }
            ended.assert_well(2);
            let command = warnings[0].split('`').nth(1).unwrap();
            assert!(warnings[1].contains(command), "{case}: {warnings:?}");
            assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "{case}");
            let ran = Command::new("sh").args(["-c", command]).status().unwrap();
            assert!(ran.success(), "{case}: {command}");
            ended = stop(start(uid, groups, &folder));
        }
        eprintln!("{case}");
        assert_written(&folder, &ended);
        // Again: now there are files. The kubelet makes those of a volume writable by its group.
        if group == FS_GROUP {
            for file in fs::read_dir(&folder).unwrap() {
                let file = file.unwrap().path();
                chown(&file, None, Some(FS_GROUP)).unwrap();
                fs::set_permissions(&file, fs::Permissions::from_mode(0o660)).unwrap();
            }
        }
        let ended = stop(start(uid, groups, &folder));
        assert_written(&folder, &ended);
        assert!(ended.line("Previous run").contains("outcome=clean"), "{}", ended.stderr);
    }
}

#[test]
fn a_folder_that_cannot_be_created_is_created_by_the_command_that_the_start_prints() {
    if !root_can(Command::new("setpriv").args(["--reuid=1", "--clear-groups", "true"])) {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    fs::set_permissions(tmp.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let folder = tmp.path().join("gateway/shutdown");
    let ended = stop(start(POD, "0,0", &folder));
    let warning = ended.line("Not all of this run is recorded");
    let command = warning.split('`').nth(1).unwrap();
    assert!(command.starts_with("install -d "), "{warning}");
    assert!(Command::new("sh").args(["-c", command]).status().unwrap().success(), "{command}");
    assert_written(&folder, &stop(start(POD, "0,0", &folder)));
}

#[test]
fn a_daemon_that_drops_its_privileges_after_the_start_has_its_record_and_its_diagnostic() {
    if !root_can(Command::new("setpriv").args(["--reuid=1", "--clear-groups", "true"])) {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    // The folder and the files are root's, and no other user can open them.
    let folder = tmp.path().join("daemon");
    for run in 0..2 {
        let mut command = Command::new(env!("CARGO_BIN_EXE_drops_privileges"));
        let program = Program::start(command.arg(&folder));
        program.wait_for_stdout("dropped");
        program.kill("-TERM");
        let ended = program.wait();
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
        assert_eq!(warnings(&ended), [""; 0]);
        let records = runs(&folder).unwrap();
        assert_eq!(records.len(), run + 1);
        assert!(PostMortem::of(&records[run]).unwrap().is_clean());
        let log = fs::read_to_string(folder.join("diag.log")).unwrap();
        assert_eq!(log.matches("--- end of diagnostic").count(), run + 1, "{log}");
        assert_eq!(ended.stderr.contains("Previous run: outcome=clean"), run > 0);
    }
}
