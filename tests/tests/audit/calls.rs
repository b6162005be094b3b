//! Every way to send SIGKILL.

use std::fs;
use std::process::Command;

use nix::sys::signal::Signal::{SIGKILL, SIGXCPU};

use crate::auditd::Auditd;
use crate::subject::{Subject, kill, python, run};

/// Python calls the C library, with the arguments of the script.
const CALL: &str = "import ctypes, sys\n\
    libc = ctypes.CDLL(None)\n\
    getattr(libc, sys.argv[1])(*map(int, sys.argv[2:]))";

const BY_DESCRIPTOR: &str = "import os, signal, sys\n\
    signal.pidfd_send_signal(os.pidfd_open(int(sys.argv[1])), 9)";

/// The number of tkill(2), for which the C library has no function.
const TKILL: &str = if cfg!(target_arch = "x86_64") { "200" } else { "130" };

/// The id of the thread that takes in signals, which lives as long as the process.
fn other_thread(pid: &str) -> String {
    let mut found = None;
    // A new thread has the name of its process at first.
    forensics_tests::until("the thread has its name", || {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let mut threads = threads.filter_map(|thread| thread.ok().map(|thread| thread.path()));
        found = threads.find(|path| {
            fs::read_to_string(path.join("comm")).is_ok_and(|name| name == "shutdown-thread\n")
        });
        found.is_some()
    });
    found.unwrap().file_name().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn the_sender_is_named_whichever_call_it_uses() {
    let Some(auditd) = Auditd::start() else { return };
    type Sender = fn(&str) -> Command;
    let senders: [(&str, Sender); 8] = [
        ("kill", |pid| kill(&["-9", pid])),
        ("a process group", |pid| kill(&["-9", "--", &format!("-{pid}")])),
        ("pidfd_send_signal", |pid| python(BY_DESCRIPTOR, &[pid])),
        ("rt_sigqueueinfo", |pid| python(CALL, &["sigqueue", pid, "9", "0"])),
        ("tgkill to the main thread", |pid| python(CALL, &["tgkill", pid, pid, "9"])),
        ("tgkill", |pid| python(CALL, &["tgkill", pid, &other_thread(pid), "9"])),
        ("tkill", |pid| python(CALL, &["syscall", TKILL, &other_thread(pid), "9"])),
        ("a shell's own kill", |pid| {
            let mut shell = Command::new("bash");
            shell.args(["-c", "kill -9 $0", pid]);
            shell
        }),
    ];
    for (name, sender) in senders {
        let mut subject = Subject::start();
        let sender = run(&mut sender(&subject.id()));
        subject.ended_by(SIGKILL);
        let found = auditd.senders(subject.records());
        assert_eq!(found.len(), 1, "{name}");
        let found = &found[0];
        assert_eq!((found.signal.as_str(), found.sender_pid), ("SIGKILL", sender), "{name}");
        assert_eq!(found.sender_uid, 0, "{name}");
        assert_eq!(found.sender_parent_pid, Some(std::process::id()), "{name}");
        assert!(found.sender_cmdline.is_some(), "{found:?}");
    }
}

#[test]
fn only_the_signal_that_ended_the_run_counts() {
    let Some(auditd) = Auditd::with("RAW") else { return };
    let mut subject = Subject::start();
    let id = subject.id();
    let group = format!("-{id}");
    // None of these does anything to it: the signal 0, a process that does not exist, another user,
    // and a user who may signal one other process of the group.
    run(&mut kill(&["-0", &id]));
    run(&mut kill(&["-9", "4194304"]));
    let as_nobody = |script: &str| {
        let mut other = Command::new("setpriv");
        other.args([
            "--reuid",
            "65534",
            "--regid",
            "65534",
            "--clear-groups",
            "bash",
            "-c",
            script,
        ]);
        other.args([&id, &group]).stderr(std::process::Stdio::null());
        run(&mut other)
    };
    as_nobody("/bin/kill -9 $0");
    // A process of that user in the group of the subject.
    let member = "import os, sys, time\n\
        pid = os.fork()\n\
        if pid == 0:\n  \
          os.setpgid(0, int(sys.argv[1])); os.setuid(65534)\n\
        time.sleep(60)";
    let mut member = Command::new("python3").args(["-c", member, &id]).spawn().unwrap();
    let in_group = || {
        let children = format!("/proc/{0}/task/{0}/children", member.id());
        let child = fs::read_to_string(children).unwrap_or_default();
        let status = fs::read_to_string(format!("/proc/{}/status", child.trim()));
        status.is_ok_and(|status| status.contains("Uid:\t65534"))
    };
    forensics_tests::until("the member is there", in_group);
    as_nobody("/bin/kill -9 -- $1");
    assert!(subject.is_alive());
    run(&mut kill(&["-XCPU", &id]));
    subject.ended_by(SIGXCPU);
    assert_eq!(auditd.senders(subject.records()), []);
    let log = fs::read_to_string(auditd.log()).unwrap();
    assert!(log.contains(&format!("opid={id} ")) && !log.contains('\u{1d}'), "{log}");
    let _ = member.kill();
    let _ = member.wait();
}

#[test]
fn the_second_of_two_reaches_a_process_that_is_dead_already() {
    let Some(auditd) = Auditd::start() else { return };
    let subject = Subject::start();
    let id = subject.id();
    let first = run(&mut kill(&["-9", &id]));
    forensics_tests::until("it is a zombie", || {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
        stat.contains(") Z ")
    });
    let second = run(&mut kill(&["-9", &id]));
    let found = auditd.senders(subject.records());
    assert_eq!(found.iter().map(|sent| sent.sender_pid).collect::<Vec<_>>(), [first]);
    let log = fs::read_to_string(auditd.log()).unwrap();
    assert!(log.contains(&format!(" pid={second} ")), "{log}");
}
