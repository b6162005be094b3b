use std::path::Path;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::record::entry::line as record_line;
use crate::record::{Digest, Event, RunStarted};

/// The second of most events here, as the log and as a record show it.
const NOW: i64 = 1_795_878_157;

/// A run with the pid 6805 that began 60 s ago and recorded its last event now.
fn run() -> AuditQuery {
    AuditQuery {
        pid: 6805,
        host_pid: Some(6805),
        name: "gateway".to_owned(),
        exe: Some("/usr/bin/gateway".to_owned()),
        uid: Some(0),
        started_us: (NOW - 60) * 1_000_000,
        last_us: NOW * 1_000_000,
        killed: true,
        asked: None,
    }
}

/// The same as process `pid` of another pid namespace.
fn contained(pid: u32) -> AuditQuery {
    AuditQuery { pid, host_pid: None, ..run() }
}

/// An event of auditd's log.
#[derive(Clone)]
struct Sent {
    at: f64,
    serial: u64,
    call: &'static str,
    label: [u32; 2],
    sender: u32,
    uid: u32,
    exe: &'static str,
    targets: Vec<(u32, u32, &'static str)>,
    success: &'static str,
}

/// `/bin/kill` of pid 6807 calls this, in the second `NOW + 0.1`, with our run as the only target.
fn sent(call: &'static str) -> Sent {
    let targets = vec![(6805, 0, "\"gateway\"")];
    let (exe, success) = ("/usr/bin/kill", "yes");
    Sent { at: 0.1, serial: 10, call, label: [0, 0], sender: 6807, uid: 0, exe, targets, success }
}

const KILL: &str = "arch=c000003e syscall=62 a0=1a95 a1=9";
const CHECK: &str = "arch=c000003e syscall=62 a0=1a95 a1=0";

impl Sent {
    fn at(self, at: f64, serial: u64) -> Self {
        Self { at, serial, ..self }
    }

    fn to(self, targets: &[(u32, u32, &'static str)]) -> Self {
        Self { targets: targets.to_vec(), ..self }
    }

    fn by(self, sender: u32, uid: u32) -> Self {
        Self { sender, uid, ..self }
    }

    fn failing(self) -> Self {
        Self { success: "no", ..self }
    }

    /// The signal that a run with this pid sends itself, if its record begins at this time.
    fn to_itself(pid: u32, call: &'static str, started_us: i64) -> Self {
        let sent = sent(call).to(&[(pid, 0, "\"gateway\"")]).by(pid, 0);
        Self { exe: "/usr/bin/gateway", label: [label(started_us); 2], ..sent }
    }

    /// The same for the run that is searched for.
    fn start(pid: u32, call: &'static str) -> Self {
        Self::to_itself(pid, call, run().started_us)
    }

    fn lines(&self) -> Vec<String> {
        let millis = NOW * 1000 + (self.at * 1000.0).round() as i64;
        let stamp = format!("{}.{:03}:{}", millis / 1000, millis % 1000, self.serial);
        let (sender, uid, [third, fourth]) = (self.sender, self.uid, self.label);
        let mut lines = vec![format!(
            "type=SYSCALL msg=audit({stamp}): {} a2={third:x} a3={fourth:x} success={} exit=0 items=0 ppid=6764 \
             pid={sender} auid=4294967295 uid={uid} gid={uid} euid={uid} suid={uid} tty=(none) \
             ses=4294967295 comm=\"kill\" exe=\"{}\" key=\"shutdown_forensics\"",
            self.call, self.success, self.exe
        )];
        for (pid, uid, name) in &self.targets {
            lines.push(format!(
                "type=OBJ_PID msg=audit({stamp}): opid={pid} oauid=-1 ouid={uid} oses=-1 ocomm={name}"
            ));
        }
        let cmdline = "2F62696E2F6B696C6C002D390036383035";
        lines.push(format!("type=PROCTITLE msg=audit({stamp}): proctitle={cmdline}"));
        lines.push(format!("type=EOE msg=audit({stamp}): "));
        lines
    }
}

fn search(query: AuditQuery, lines: impl IntoIterator<Item = impl AsRef<str>>) -> Vec<SentSignal> {
    let mut search = AuditSearch::new(query);
    for line in lines {
        search.line(line.as_ref());
    }
    search.finish()
}

/// The senders that are found.
fn senders(query: AuditQuery, events: &[Sent]) -> Vec<u32> {
    let found = search(query, events.iter().flat_map(Sent::lines));
    found.into_iter().map(|sent| sent.sender_pid).collect()
}

#[test]
fn the_sender_of_a_sigkill_is_named_as_the_kernel_reported_it() {
    let line = "type=SYSCALL msg=audit(1795878157.100:10): arch=c000003e syscall=62 success=yes exit=0 \
        a0=1a95 a1=9 a2=0 a3=7f items=0 ppid=6764 pid=6807 auid=1000 uid=0 gid=0 euid=0 suid=0 fsuid=0 \
        egid=0 sgid=0 fsgid=0 tty=pts1 ses=3 comm=\"kill\" exe=\"/usr/bin/kill\" \
        key=\"shutdown_forensics\"";
    let mut lines = sent(KILL).lines();
    lines[0] = line.to_owned();
    let plain = search(run(), &lines);
    assert_eq!(
        plain[0].to_string(),
        "SIGKILL sent by kill(6807), /usr/bin/kill, uid 0, login uid 1000, tty pts1, parent 6764"
    );
    // auditd adds names to the numbers. A line can begin with the name of the machine.
    lines[0] = format!("node=h1 {line}\u{1d}ARCH=x86_64 SYSCALL=kill AUID=\"alice\" UID=\"root\"");
    let found = search(run(), &lines);
    let expected = json!({
        "signal": "SIGKILL", "sent": "2026-11-28T15:02:37.100000Z", "sender_pid": 6807,
        "sender_parent_pid": 6764, "sender_name": "kill", "sender_exe": "/usr/bin/kill",
        "sender_uid": 0, "sender_login_uid": 1000, "sender_login": "alice", "sender_tty": "pts1",
        "sender_cmdline": "/bin/kill -9 6805",
    });
    assert_eq!(serde_json::to_value(&found).unwrap(), json!([expected]));
    assert_eq!(
        found[0].to_string(),
        "SIGKILL sent by kill(6807), /usr/bin/kill, uid 0, login uid alice, tty pts1, parent 6764"
    );
}

#[test]
fn journald_gives_the_same_records() {
    let entry = |kind: &str, body: &str| {
        json!({ "_TRANSPORT": "audit", "_AUDIT_TYPE_NAME": kind, "_AUDIT_ID": "10",
            "_SOURCE_REALTIME_TIMESTAMP": "1795878157100000", "MESSAGE": format!("{kind} {body}") })
    };
    let lines = sent(KILL).lines();
    let entries = lines[..3].iter().map(|line| {
        let (kind, body) = line.strip_prefix("type=").unwrap().split_once(' ').unwrap();
        entry(kind, body.split_once("): ").unwrap().1)
    });
    let mut search = AuditSearch::new(run());
    for entry in entries {
        search.journal_line(&entry.to_string());
    }
    let found = search.finish();
    assert_eq!(found, super::tests::search(run(), &lines));
    assert_eq!(found[0].sender_pid, 6807);
    // Any program can write the other fields.
    let mut forged = entry("SYSCALL", "x");
    forged["_TRANSPORT"] = "journal".into();
    assert_eq!(parse_journal(&forged.to_string()), None);
}

#[test]
fn every_call_that_sends_a_signal_is_known_on_each_architecture() {
    let cases = [
        (KILL, true),
        ("arch=c000003e syscall=129 a0=1a95 a1=9", true),
        ("arch=c000003e syscall=200 a0=1a95 a1=9", true),
        ("arch=c000003e syscall=424 a0=3 a1=9", true),
        ("arch=40000003 syscall=37 a0=1a95 a1=9", true),
        ("arch=40000003 syscall=270 a0=1a95 a1=1a95 a2=9", true),
        ("arch=c00000b7 syscall=129 a0=1a95 a1=9", true),
        ("arch=c00000b7 syscall=131 a0=1a95 a1=1a95 a2=9", true),
        ("arch=40000028 syscall=37 a0=1a95 a1=9", true),
        // A process group, as a 32-bit and as a 64-bit number.
        ("arch=c000003e syscall=62 a0=ffffe56b a1=9", true),
        ("arch=c000003e syscall=62 a0=ffffffffffffe56b a1=9", true),
        // The second argument of tgkill is a thread, the third is the signal.
        ("arch=c000003e syscall=234 a0=1a95 a1=1a95 a2=9", true),
        ("arch=c000003e syscall=234 a0=1a95 a1=9 a2=f", false),
        ("arch=c000003e syscall=297 a0=1a95 a1=9 a2=f", false),
        // Other calls: open(2), ptrace(2), the number of another architecture, an unknown one.
        ("arch=c000003e syscall=2 a0=1a95 a1=9", false),
        ("arch=c000003e syscall=101 a0=1a95 a1=9", false),
        ("arch=c00000b7 syscall=62 a0=1a95 a1=9", false),
        ("arch=80000016 syscall=62 a0=1a95 a1=9", false),
        ("arch=c000003e syscall=62 a0=1a95 a1=f", false),
        (CHECK, false),
        ("arch=c000003e syscall=x a0=1a95 a1=9", false),
    ];
    for (call, is_found) in cases {
        // `a2` stands twice then; the first counts.
        assert_eq!(senders(run(), &[sent(call)]) == [6807], is_found, "{call}");
    }
    // The numbers of this machine.
    let calls = [
        nix::libc::SYS_kill,
        nix::libc::SYS_rt_sigqueueinfo,
        nix::libc::SYS_tkill,
        nix::libc::SYS_pidfd_send_signal,
        nix::libc::SYS_tgkill,
        nix::libc::SYS_rt_tgsigqueueinfo,
    ];
    assert!(line::CALLS.iter().any(|(_, numbers)| numbers.map(i64::from) == calls));
}

#[test]
fn only_a_signal_to_the_run_itself_that_the_kernel_sent_counts() {
    let other = (9, 0, "\"gateway\"");
    let ours = (6805, 0, "\"gateway\"");
    let group = || sent("arch=c000003e syscall=62 a0=ffffe56b a1=9").to(&[other, ours]);
    let ours_is_1000 = [(9, 77, "\"gateway\""), (6805, 1000, "\"gateway\"")];
    let as_1000 = AuditQuery { uid: Some(1000), ..run() };
    let thread = "arch=c000003e syscall=234 a0=1a95 a1=1a99 a2=9";
    let named = |name| [(6805, 0, name)];
    let of_other = |at| Sent::to_itself(6805, CHECK, 1).at(at, 5);
    let start = |at| Sent::start(6805, CHECK).at(at, 5);
    let second_record = |at| Sent { label: [1, start(at).label[1]], ..of_other(at) };
    let short = || AuditQuery { last_us: run().started_us, ..run() };
    let cases: [(&str, AuditQuery, Vec<Sent>, &[u32]); 27] = [
        ("another process", run(), vec![sent(KILL).to(&[other])], &[]),
        ("nobody", run(), vec![sent(KILL).to(&[])], &[]),
        ("it failed", run(), vec![sent(KILL).failing()], &[]),
        ("a group", run(), vec![group()], &[6807]),
        ("a group, as the user of all", run(), vec![group().by(6807, 1000)], &[]),
        ("a user to its own", as_1000.clone(), vec![group().to(&ours_is_1000).by(7, 1000)], &[7]),
        // The kernel lists processes that the sender may not signal as well.
        ("a user to others", as_1000, vec![group().to(&ours_is_1000).by(7, 77)], &[]),
        ("another name", run(), vec![sent(KILL).to(&named("\"sleep\""))], &[]),
        ("another user", run(), vec![sent(KILL).to(&[(6805, 7, "\"gateway\"")])], &[]),
        ("a thread", run(), vec![sent(thread).to(&named("\"worker\""))], &[6807]),
        ("before its start", run(), vec![sent(KILL).at(-61.0, 1)], &[]),
        ("before its last event", run(), vec![sent(KILL).at(-2.0, 1)], &[]),
        ("within the clocks' error", run(), vec![sent(KILL).at(-0.5, 1)], &[6807]),
        // The first one kills. The others reach a process that has not yet been waited for.
        ("two", run(), vec![sent(KILL), sent(KILL).by(7, 0).at(0.2, 11)], &[6807]),
        ("in another order", run(), vec![sent(KILL).by(7, 0).at(0.2, 11), sent(KILL)], &[6807]),
        ("the pid is used again", run(), vec![of_other(0.1), sent(KILL).at(5.0, 11)], &[]),
        (
            "the pid is used again, and the start is known",
            run(),
            vec![start(-60.004), of_other(0.1), sent(KILL).at(5.0, 11)],
            &[],
        ),
        (
            "the process has begun another record",
            run(),
            vec![start(-60.004), second_record(-1.0), sent(KILL)],
            &[6807],
        ),
        (
            "it was killed, then the pid is used again",
            run(),
            vec![sent(KILL), of_other(5.0)],
            &[6807],
        ),
        (
            "the pid was used before, in the same moment",
            short(),
            vec![sent(KILL).at(-60.0, 4), start(-60.0)],
            &[],
        ),
        (
            "it was killed in the moment of its start",
            short(),
            vec![start(-60.004), sent(KILL).at(-60.004, 6)],
            &[6807],
        ),
        // Of the next three, all happens in one tick of the clock, which ends before the time of the
        // record's first line.
        (
            "the run after it was killed",
            short(),
            vec![
                start(-60.004),
                Sent { serial: 6, ..of_other(-60.004) },
                sent(KILL).at(-60.004, 7),
            ],
            &[],
        ),
        (
            "the run before it was killed",
            short(),
            vec![
                Sent { serial: 3, ..of_other(-60.004) },
                sent(KILL).at(-60.004, 4),
                start(-60.004),
            ],
            &[],
        ),
        (
            "it was killed between two others",
            short(),
            vec![
                Sent { serial: 4, ..of_other(-60.004) },
                start(-60.004),
                sent(KILL).at(-60.004, 6),
                Sent { serial: 7, ..of_other(-60.004) },
            ],
            &[6807],
        ),
        // Its own start is not in the log, and the other one can be that of the process after it.
        ("in doubt", short(), vec![of_other(-60.004), sent(KILL).at(-60.0, 6)], &[]),
        ("long before", short(), vec![of_other(-62.0), sent(KILL).at(-60.0, 6)], &[6807]),
        ("without its start", short(), vec![sent(KILL).at(-60.0, 6)], &[6807]),
    ];
    for (name, query, events, expected) in cases {
        assert_eq!(senders(query, &events), expected, "{name}");
    }
    // Not killed, so that no SIGKILL is searched for.
    assert_eq!(senders(AuditQuery { killed: false, ..run() }, &[sent(KILL)]), [] as [u32; 0]);
}

#[test]
fn a_run_in_another_pid_namespace_is_known_by_the_signal_that_it_sent_itself() {
    // It is process 7 there.
    const START: &str = "arch=c000003e syscall=62 a0=7 a1=0";
    let start = |pid| Sent::start(pid, START).at(-60.01, 1);
    let kill = || sent("arch=c000003e syscall=62 a0=7 a1=9");
    let other = || kill().to(&[(7, 0, "\"gateway\"")]);
    let other_run = Sent::to_itself(6805, START, run().started_us + 1).at(-60.01, 1);
    let mut program = start(6805);
    program.exe = "/usr/bin/other";
    let cases: [(&str, Vec<Sent>, &[u32]); 8] = [
        ("known", vec![start(6805), kill()], &[6807]),
        ("another user imitates it", vec![start(6805), start(9).by(9, 7), kill()], &[6807]),
        ("another process has the number", vec![start(6805), other()], &[]),
        ("not known", vec![kill()], &[]),
        ("another run", vec![other_run.clone(), kill()], &[]),
        (
            "after another run",
            vec![other_run.to(&[(9, 0, "\"gateway\"")]).by(9, 0), start(6805), kill()],
            &[6807],
        ),
        ("another program", vec![program, kill()], &[]),
        ("two of them", vec![start(6805), start(9).at(-60.0, 2), kill()], &[]),
    ];
    for (name, events, expected) in cases {
        assert_eq!(senders(contained(7), &events), expected, "{name}");
    }
}

#[test]
fn process_1_of_a_pid_namespace_ignores_a_sigkill_from_inside() {
    let start = Sent::start(6805, "arch=c000003e syscall=62 a0=1 a1=0").at(-60.0, 1);
    let cases: [(&str, &[u32]); 7] = [
        ("arch=c000003e syscall=62 a0=1 a1=9", &[]),
        ("arch=c000003e syscall=62 a0=0 a1=9", &[]),
        ("arch=c000003e syscall=62 a0=ffffffff a1=9", &[]),
        ("arch=c000003e syscall=234 a0=1 a1=1 a2=9", &[]),
        (KILL, &[6807]),
        ("arch=c000003e syscall=62 a0=ffffe56b a1=9", &[6807]),
        // The runtimes that are written in Go use it.
        ("arch=c000003e syscall=424 a0=3 a1=9", &[6807]),
    ];
    for (call, expected) in cases {
        assert_eq!(senders(contained(1), &[start.clone(), sent(call)]), expected, "{call}");
    }
}

#[test]
fn the_gone_sender_of_a_signal_is_named_but_never_contradicted() {
    const TERM: &str = "arch=c000003e syscall=62 a0=1a95 a1=f";
    let asked = |sender| AuditQuery {
        killed: false,
        asked: Some(Asked { signal: "SIGTERM".to_owned(), sender, at_us: NOW * 1_000_000 }),
        ..run()
    };
    let known = || asked(Some((6807, 0)));
    let cases: [(&str, AuditQuery, Vec<Sent>, &[u32]); 9] = [
        ("the same pid", known(), vec![sent(TERM).at(-0.004, 1)], &[6807]),
        ("it was pending for a long time", known(), vec![sent(TERM).at(-9.0, 1)], &[6807]),
        ("another pid", known(), vec![sent(TERM).at(-0.1, 1).by(7, 0)], &[]),
        ("another user", known(), vec![sent(TERM).at(-0.1, 1).by(6807, 7)], &[]),
        ("another signal", known(), vec![sent(KILL).at(-0.1, 1)], &[]),
        ("afterwards", known(), vec![sent(TERM).at(0.5, 1)], &[]),
        ("outside of the namespace", asked(None), vec![sent(TERM).at(-0.1, 1)], &[6807]),
        ("long before", asked(None), vec![sent(TERM).at(-9.0, 1)], &[]),
        (
            "one of two",
            asked(None),
            vec![sent(TERM).at(-0.1, 1), sent(TERM).at(-0.1, 2).by(7, 0)],
            &[],
        ),
    ];
    for (name, query, events, expected) in cases {
        assert_eq!(senders(query, &events), expected, "{name}");
    }
    // The signal of the stop and the one that ended it.
    let both = AuditQuery { killed: true, ..known() };
    let events = [sent(TERM).at(-0.004, 1), sent(KILL).by(1, 0)];
    assert_eq!(senders(both, &events), [6807, 1]);
}

#[test]
fn what_is_asked_follows_from_the_record() {
    let query = |change: &dyn Fn(&mut RunStarted, &mut SignalEvent), killed| {
        let mut start = RunStarted::new("gateway", 7);
        start.process_name = Some("a name that is too long".to_owned());
        start.pid_namespace = Some(FIRST_PID_NAMESPACE);
        let mut signal = SignalEvent::new(SignalKind::Signal, 1, "unknown");
        (signal.signal, signal.sender_pid) = (Some("SIGTERM".to_owned()), Some(9));
        signal.sender_uid = Some(0);
        change(&mut start, &mut signal);
        let at = |seconds| Utc::from_micros((NOW + seconds) * 1_000_000).unwrap();
        let events = [Event::RunStarted(start.into()), Event::Signal(signal)];
        let lines = [-60, 0].into_iter().zip(events).flat_map(|(seconds, event)| {
            record_line(at(seconds), seconds.unsigned_abs(), &event).unwrap()
        });
        AuditQuery::of(&Digest::parse(&lines.collect::<Vec<_>>()).unwrap(), killed)
    };
    let same = query(&|_, _| {}, true).unwrap();
    assert_eq!((same.name.as_str(), same.host_pid), ("a name that is ", Some(7)));
    assert_eq!(same.asked.unwrap().sender, Some((9, 0)));
    assert_eq!(same.started_us, run().started_us);
    let in_namespace = query(&|start, _| start.pid_namespace = Some(4), false).unwrap();
    assert_eq!((in_namespace.host_pid, in_namespace.asked.unwrap().sender), (None, None));
    let forged = query(&|_, signal| signal.cause = "unverified".to_owned(), false).unwrap();
    assert_eq!(forged.asked.unwrap().sender, None);
    // A name is known, or the kernel sent the signal itself.
    let named =
        |_: &mut RunStarted, signal: &mut SignalEvent| signal.sender_name = Some("x".into());
    assert_eq!(query(&named, false), None);
    assert_eq!(query(&|_, signal| signal.sender_pid = None, false), None);
    assert_eq!(query(&|_, signal| signal.sender_pid = Some(0), false), None);
    // A record of an older version has only the path of the program.
    let old = |start: &mut RunStarted, _: &mut SignalEvent| {
        (start.process_name, start.exe) = (None, Some("/usr/bin/gateway".to_owned()));
    };
    assert_eq!(query(&old, true).unwrap().name, "gateway");
}

#[test]
fn hostile_names_and_command_lines_stay_inside_their_values() {
    let mut lines = sent(KILL).lines();
    // `x" uid=7\n`, and `mysql -phunter2 \x1b[31m`.
    lines[0] = lines[0].replace("comm=\"kill\"", "comm=782220756964353D370A");
    lines[2] = lines[2].replace(
        "2F62696E2F6B696C6C002D390036383035",
        "6D7973716C002D7068756E74657232001B5B33316D",
    );
    let found = search(run(), &lines);
    assert_eq!(found[0].sender_uid, 0);
    let shown = found[0].to_string();
    assert_eq!(shown, "SIGKILL sent by x\" uid5=7\\n(6807), /usr/bin/kill, uid 0, parent 6764");
    assert_eq!(found[0].sender_cmdline.as_deref(), Some("mysql -p*** \u{1b}[31m"));
    // A command line that the kernel has cut: its last word may be a part of a secret.
    let long = format!("61{}20{}", "62".repeat(60), "63".repeat(66));
    lines[2] = lines[2].split_once("proctitle=").unwrap().0.to_owned() + "proctitle=" + &long;
    let cmdline = search(run(), &lines)[0].sender_cmdline.clone().unwrap();
    assert!(cmdline.ends_with(" …") && !cmdline.contains('c'), "{cmdline}");
    // A program with CAP_AUDIT_WRITE writes texts of its own, but of other types.
    let call = &sent(KILL).lines()[0];
    for forged in [
        format!("type=USER_CMD msg=audit(1795878157.100:9): msg='{call}'"),
        format!(" {call}"),
        call.replace("type=SYSCALL", "type=USER_SYSCALL"),
        call.replace("msg=audit(", "msg=audit (").replace("):", ") :"),
    ] {
        let lines = [vec![forged], sent(KILL).lines()[1..].to_vec()].concat();
        assert_eq!(search(run(), lines), []);
    }
}

#[test]
fn the_records_of_several_events_may_alternate_and_memory_is_bounded() {
    let others: Vec<_> =
        (0..1000).map(|n| sent(KILL).at(0.1, 100 + n).to(&[(9, 0, "\"other\"")]).lines()).collect();
    let ours = sent(KILL).lines();
    // Without the last record, which journald drops.
    let mut log = vec![ours[0].clone()];
    log.extend(others[..20].iter().map(|lines| lines[0].clone()));
    log.extend(others[..20].iter().flat_map(|lines| lines[1..3].to_vec()));
    log.extend(ours[1..3].to_vec());
    let mut search = AuditSearch::new(run());
    for line in log.iter().chain(others[20..].iter().flat_map(|lines| &lines[..3])) {
        search.line(line);
        assert!(search.open.len() <= MAX_OPEN);
    }
    let found = search.finish();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].sender_cmdline.as_deref(), Some("/bin/kill -9 6805"));
}

#[test]
fn rotated_files_are_read_from_the_oldest_on_and_old_ones_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, lines: &[String]| {
        let path = dir.path().join(name);
        std::fs::write(&path, lines.concat()).unwrap();
        path
    };
    let text = |sent: Sent| sent.lines().into_iter().map(|line| line + "\n").collect::<Vec<_>>();
    // The event is split between two files, after a line that is too long and before one that is
    // not text.
    let kill = text(sent(KILL));
    let path = write("audit.log", &kill[1..]);
    let older =
        write("audit.log.1", &[vec!["x".repeat(40 << 10) + "\n"], kill[..1].to_vec()].concat());
    write("audit.log.2", &text(sent(KILL).by(7, 0).at(0.05, 3)));
    let found = |since| {
        let mut search = AuditSearch::new(run());
        search_logs(&mut search, &path, since).unwrap();
        search.finish().into_iter().map(|sent| sent.sender_pid).collect::<Vec<_>>()
    };
    assert_eq!(found(None), [7]);
    let file = std::fs::File::options().append(true).open(&older).unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(found(Utc::from_micros(NOW)), [] as [u32; 0]);
    // A device or a FIFO is not read.
    assert!(search_logs(&mut AuditSearch::new(run()), Path::new("/dev/zero"), None).is_err());
}

/// The pids, names and users of processes. The first is the run.
const PROCESSES: [(u32, u32, &str); 4] = [
    (6805, 0, "\"gateway\""),
    (6806, 0, "\"gateway\""),
    (6805, 7, "\"gateway\""),
    (6805, 0, "\"sleep\""),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// In any mix of events, the sender of the first SIGKILL that reached the run is found, and
    /// nothing else.
    #[test]
    fn no_mix_of_events_leads_to_a_wrong_sender(
        events in prop::collection::vec((0..4usize, 0..6usize, any::<bool>(), -70..10i32), 0..12)
    ) {
        const CALLS: [&str; 6] = [
            KILL,
            CHECK,
            "arch=c000003e syscall=62 a0=1a95 a1=f",
            "arch=c000003e syscall=234 a0=1a95 a1=9 a2=f",
            "arch=c000003e syscall=234 a0=1a95 a1=1a95 a2=9",
            "arch=c000003e syscall=62 a0=ffffe56b a1=9",
        ];
        let sent = events.iter().enumerate().map(|(n, &(process, call, success, at))| {
            let sender = 10_000 + u32::try_from(n).unwrap();
            let event = sent(CALLS[call]).to(&[PROCESSES[process]]).by(sender, 0);
            let event = if success { event } else { event.failing() };
            event.at(f64::from(at), 100 + n as u64)
        });
        let sent: Vec<_> = sent.collect();
        let is_the_kill = |&(process, call, success, at): &(usize, usize, bool, i32)| {
            process == 0 && matches!(call, 0 | 4 | 5) && success && at >= -1
        };
        let kills = events.iter().enumerate().filter(|(_, event)| is_the_kill(event));
        let first = kills.min_by_key(|(n, event)| (event.3, *n)).map(|(n, _)| sent[n].sender);
        prop_assert_eq!(senders(run(), &sent), Vec::from_iter(first));
    }

    /// Runs with one pid follow each other within microseconds, and a clock with ticks of up to 10 ms
    /// stamps the log. Each run has its killer. If the log lacks its start, it may have none.
    #[test]
    fn runs_with_one_pid_are_not_mixed_up(
        runs in prop::collection::vec((1..3000i64, 1..3000i64, any::<bool>()), 1..6),
        tick_us in 1000..10_000i64,
        delay_us in 0..10_000i64,
    ) {
        // The start and the end of each run, and whether a SIGKILL ended it.
        let mut now_us = run().started_us;
        let spans = runs.iter().map(|&(before, lives, is_killed)| {
            let from = now_us + before;
            now_us = from + lives;
            (from, now_us, is_killed)
        });
        let spans: Vec<_> = spans.collect();
        let stamp = |us: i64| {
            let tick = (us - delay_us).div_euclid(tick_us) * tick_us;
            (tick.div_euclid(1000) - NOW * 1000) as f64 / 1000.0
        };
        let log = |without: Option<usize>| {
            let mut events = Vec::new();
            for (n, &(from, to, is_killed)) in spans.iter().enumerate() {
                let serial = 10 * n as u64;
                let start = Sent::to_itself(6805, CHECK, from).at(stamp(from), serial);
                let kill = sent(KILL).by(n as u32, 0).at(stamp(to), serial + 1);
                events.extend((without != Some(n)).then_some(start));
                events.extend(is_killed.then_some(kill));
            }
            events
        };
        for (n, &(from, to, is_killed)) in spans.iter().enumerate() {
            let query = AuditQuery { started_us: from, last_us: to, ..run() };
            let expected = Vec::from_iter(is_killed.then_some(n as u32));
            prop_assert_eq!(&senders(query.clone(), &log(None)), &expected);
            let found = senders(query, &log(Some(n)));
            prop_assert!(found.is_empty() || found == expected, "{} {:?}", n, found);
        }
    }

    #[test]
    fn no_line_breaks_the_parser(line in any::<String>(), cut in 0..400usize) {
        let mut search = AuditSearch::new(run());
        search.line(&line);
        search.journal_line(&line);
        for whole in sent(KILL).lines() {
            search.line(&whole.chars().take(cut).collect::<String>());
        }
        search.line(&format!("type=SYSCALL msg=audit(1795878157.100:9): {line}"));
        for found in search.finish() {
            prop_assert!(found.to_string().chars().all(crate::escape::is_safe));
        }
    }
}
