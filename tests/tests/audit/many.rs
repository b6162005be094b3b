//! Many runs and many events at once.

use std::process::Command;

use forensics_tests::copy_program;
use nix::sys::signal::Signal::{SIGKILL, SIGXCPU};

use crate::auditd::{Auditd, senders};
use crate::subject::{Subject, kill, python, run};

/// How many runs are killed, and as many others end by another signal.
const RUNS: usize = 100;

/// How many other events there are for each of them.
const OTHERS: usize = 10;

/// One hundred runs are killed, in several ways, and one hundred end by SIGXCPU, among a thousand other signals
/// to them and to processes of the same name. Each killer is named, and no other process is.
#[test]
fn each_of_100_kills_among_1000_other_events_has_its_sender_and_no_other_run_has_one() {
    let Some(auditd) = Auditd::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("subject");
    copy_program("/bin/sleep", &path);
    let by_descriptor = "import os, signal, sys\n\
        signal.pidfd_send_signal(os.pidfd_open(int(sys.argv[1])), 9)";
    let (mut runs, mut namesakes) = (Vec::new(), Vec::new());
    for n in 0..RUNS {
        let (mut killed, mut crashed) = (Subject::start(), Subject::start());
        let ids = [killed.id(), crashed.id()];
        for other in 0..OTHERS {
            let id = &ids[other % 2];
            let mut sender = match other {
                0 | 1 => kill(&["-CONT", id]),
                2 | 3 => kill(&["-0", id]),
                4 | 5 => kill(&["-WINCH", id]),
                6 => kill(&["-9", "4194304"]),
                7 => {
                    let mut shell = Command::new("bash");
                    shell.args(["-c", "sleep 60 & kill -9 $!"]);
                    shell
                }
                _ => {
                    let namesake = Command::new(&path).arg("60").spawn().unwrap();
                    let sender = kill(&["-9", &namesake.id().to_string()]);
                    namesakes.push(namesake);
                    sender
                }
            };
            run(&mut sender);
        }
        let [id, crash] = &ids;
        let sender = match n % 5 {
            0 => run(&mut kill(&["-9", "--", &format!("-{id}")])),
            1 => run(&mut python(by_descriptor, &[id])),
            2 => run(Command::new("bash").args(["-c", "kill -9 $0", id])),
            _ => run(&mut kill(&["-9", id])),
        };
        killed.ended_by(SIGKILL);
        run(&mut kill(&["-XCPU", crash]));
        crashed.ended_by(SIGXCPU);
        runs.push((killed, crashed, sender));
    }
    for mut namesake in namesakes {
        namesake.wait().unwrap();
    }
    auditd.settle();
    let (mut right, mut wrong) = (0, 0);
    for (killed, crashed, sender) in &runs {
        let found = senders(&auditd.log(), killed.records());
        right += usize::from(matches!(found.as_slice(), [one] if one.sender_pid == *sender));
        wrong += found.iter().filter(|one| one.sender_pid != *sender).count();
        wrong += senders(&auditd.log(), crashed.records()).len();
    }
    println!("{right} of {RUNS} senders are right, {wrong} are wrong");
    assert_eq!((right, wrong), (RUNS, 0));
}
