//! The line and the JSON of a made-up context with every fact, and of the real context of this
//! process.

use std::time::SystemTime;

use super::*;
use crate::capture::tests::bytes;
use crate::capture::{SenderSnapshot, SiCode, SnapshotError};
use crate::{escape, logfmt, marker, process};
use nix::unistd::getuid;

fn process(pid: i32, name: &str, cmdline: &str) -> ProcessSummary {
    ProcessSummary {
        name: Some(name.to_owned()),
        cmdline: Some(cmdline.to_owned()),
        ..ProcessSummary::unknown(pid)
    }
}

fn marker(name: &str, target: marker::Target) -> Marker {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("marker.json");
    let pid = match target {
        marker::Target::ThisProcess => r#"{"target_pid": 4100}"#,
        marker::Target::Other => r#"{"target_pid": 410}"#,
        _ => "",
    };
    std::fs::write(&path, pid).unwrap();
    marker::read(name, &path, 4100).unwrap()
}

/// The example of the specification, fact by fact.
fn example() -> ShutdownContext {
    let sender = ProcessSummary { uid: Some(1000), ..process(4242, "kill", "kill 4100") };
    ShutdownContext {
        ts: "2026-11-23T10:15:00.123456Z".parse().unwrap(),
        mono_us: 1,
        trigger: Some(Trigger::Signal { signal: Signal::TERM }),
        decision: Some(CauseDecision { cause: Cause::Operator, evidence: "a shell".into() }),
        sender: Some(Sender {
            process: sender,
            code: SiCode::User,
            user: None,
            exe: None,
            absence: None,
            forwards: false,
            ancestors: vec![process(4201, "bash", "-bash")],
        }),
        capture_ns: Some(20_000),
        parent: Some(process(1, "systemd", "/sbin/init")),
        process: ProcessSummary { tracer_pid: Some(99), ..process(4100, "gateway", "gateway") },
        under_systemd: true,
        systemd: SystemdInfo::default(),
        container: None,
        pod: None,
        platform: None,
        memory: None,
        load: Some([0.42, 0.3, 0.2]),
        markers: vec![
            marker("takeover", marker::Target::ThisProcess),
            marker("planned_stop", marker::Target::Unstated),
        ],
        basis: None,
    }
}

#[test]
fn the_line_is_that_of_the_specification() {
    assert_eq!(
        example().to_string(),
        "signal=SIGTERM cause=operator under_systemd=yes sender_pid=4242 sender_name=kill \
         sender_uid=1000 sender_parent=bash(4201) parent_pid=1 parent_name=systemd \
         loadavg_1m=0.42 takeover_marker_present=self planned_stop_marker_present=yes \
         tracer_pid=99 sender_cmdline=\"kill 4100\" parent_cmdline=\"/sbin/init\""
    );
}

#[test]
fn a_sender_without_a_name_says_why_it_has_none() {
    let cases = [
        (
            4242,
            SiCode::User,
            Some(SnapshotError::Gone),
            "sender_pid=4242 sender_name=? sender_gone=yes",
        ),
        (
            4242,
            SiCode::User,
            Some(SnapshotError::Hidden),
            "sender_pid=4242 sender_name=? sender_hidden=yes",
        ),
        (0, SiCode::User, Some(SnapshotError::Outside), "sender_pid=0 sender_name=? sender_uid=0"),
        (1, SiCode::Queue, None, "sender_pid=1 sender_name=? sender_unverified=yes"),
    ];
    for (pid, code, absence, expected) in cases {
        let mut context = example();
        let process = ProcessSummary { uid: Some(0), ..ProcessSummary::unknown(pid) };
        context.sender = Some(Sender {
            process,
            code,
            user: None,
            exe: None,
            absence,
            forwards: false,
            ancestors: vec![],
        });
        assert!(context.to_string().contains(expected), "{context}");
    }
}

#[test]
fn a_pod_and_a_forwarding_sender_are_in_the_line_and_the_json() {
    let mut context = example();
    context.sender.as_mut().unwrap().forwards = true;
    context.pod = Some(Pod { name: "web-1".into(), namespace: Some("shop".into()) });
    context.memory = Some(Memory::from([("oom_kill".to_owned(), 2)]));
    let line = context.to_string();
    assert!(
        line.contains(
            " sender_parent=bash(4201) sender_forwards=yes parent_pid=1 parent_name=systemd \
             pod=shop/web-1 loadavg_1m=0.42 "
        ),
        "{line}"
    );
    let json = serde_json::to_value(&context).unwrap();
    assert_eq!(json["memory"]["oom_kill"], 2);
    assert_eq!(json["pod"]["namespace"], "shop");
    assert_eq!(serde_json::from_value::<ShutdownContext>(json).unwrap(), context);
}

#[test]
fn no_text_can_forge_a_field_or_end_the_line() {
    let evil = "x cause=systemd\nsender_pid=1 \u{1b}]0;owned\u{7} \"";
    let mut context = example();
    context.sender.as_mut().unwrap().process = process(4242, evil, evil);
    context.sender.as_mut().unwrap().ancestors = vec![process(7, evil, evil)];
    context.parent = Some(process(1, evil, evil));
    context.trigger = Some(Trigger::Request { reason: evil.into() });
    context.pod = Some(Pod { name: evil.into(), namespace: Some(evil.into()) });
    let line = context.to_string();
    assert!(!line.chars().any(char::is_control), "{line}");
    assert_eq!(logfmt::parse(&line).unwrap(), context.fields());
    assert_eq!(context.fields().iter().filter(|(key, _)| key == "cause").count(), 1);
}

proptest::proptest! {
    #[test]
    fn the_line_reads_back_as_the_facts_with_any_text(
        name in proptest::prelude::any::<String>(),
        cmdline in proptest::prelude::any::<String>(),
        reason in proptest::prelude::any::<String>(),
        marked in proptest::prelude::any::<String>(),
    ) {
        let mut context = example();
        context.sender.as_mut().unwrap().process = process(4242, &name, &cmdline);
        context.sender.as_mut().unwrap().ancestors = vec![process(7, &name, &cmdline)];
        context.parent = Some(process(1, &name, &cmdline));
        context.trigger = Some(Trigger::Request { reason });
        context.markers = vec![marker(&marked, marker::Target::Other)];
        let line = context.to_string();
        proptest::prop_assert!(line.chars().all(escape::is_safe), "{}", line);
        proptest::prop_assert_eq!(logfmt::parse(&line).unwrap(), context.fields());
        let json = crate::json::to_string(&context).unwrap();
        proptest::prop_assert!(json.chars().all(escape::is_safe), "{}", json);
        let read = serde_json::from_str::<ShutdownContext>(&json).unwrap();
        proptest::prop_assert_eq!(read, context);
    }
}

#[test]
fn json_contains_every_fact_and_reads_back() {
    let context = example();
    let json = serde_json::to_string(&context).unwrap();
    assert_eq!(serde_json::from_str::<ShutdownContext>(&json).unwrap(), context);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["verdict"]["cause"], "operator");
    assert_eq!(json["trigger"]["signal"], "SIGTERM");
    assert_eq!(json["sender"]["process"]["name"], "kill");
}

#[test]
fn this_process_is_really_probed() {
    let startup = StartupInfo::collect();
    let captured = SignalInfo {
        signal: Signal::TERM,
        code: SiCode::User,
        pid: Some(startup.process.pid),
        uid: Some(0),
        snapshot: SenderSnapshot {
            stat: bytes(std::fs::read("/proc/self/stat").unwrap()),
            ..SenderSnapshot::default()
        },
        is_parent_death_signal: false,
        wall: SystemTime::now(),
        mono_ns: 5_000,
        took_ns: 1,
    };
    let trigger = Trigger::Signal { signal: Signal::TERM };
    let context = ShutdownContext::capture(&startup, trigger, Some(&captured));
    assert_eq!(context.cause(), Cause::SelfSent);
    assert_eq!(context.process.pid, std::process::id() as i32);
    assert_eq!(context.parent.as_ref().map(|parent| parent.pid), context.process.ppid);
    assert_eq!(context.mono_us, 5);
    assert!(context.load.is_some());
    assert_eq!(context.memory.is_some(), startup.memory_cgroup.is_some());
    assert!(context.to_string().starts_with("signal=SIGTERM cause=self_sent under_systemd="));
}

/// A signal from this process, as the handler saw it: `stat` is what it read.
fn signal_from(pid: i32, stat: String) -> SignalInfo {
    let mut signal = SignalInfo::new(Signal::TERM, SiCode::User);
    (signal.pid, signal.uid) = (Some(pid), Some(getuid().as_raw()));
    signal.snapshot.stat = bytes(stat);
    signal
}

fn own_signal() -> SignalInfo {
    signal_from(own_pid(), std::fs::read_to_string("/proc/self/stat").unwrap())
}

fn start(startup: &StartupInfo, signal: &SignalInfo) -> ShutdownContext {
    ShutdownContext::start(startup, Trigger::Signal { signal: signal.signal }, Some(signal))
}

fn run(context: &mut ShutdownContext, probe: Probe, startup: &StartupInfo) {
    let finding = probe.run(context, startup);
    context.apply(finding);
}

#[test]
fn the_start_says_what_the_handler_saw_and_no_name_that_may_have_changed() {
    let mut startup = StartupInfo::collect();
    startup.process.tracer_pid = Some(99);
    let tail = "0 ".repeat(29);
    let stat =
        format!("77 (kill) Z 1 7 7 34817 0 0 0 0 0 0 0 0 0 0 20 0 1 0 99999999999 {tail}0\n");
    let context = start(&startup, &signal_from(77, stat));
    let sender = context.sender.as_ref().unwrap();
    assert_eq!(sender.process.name.as_deref(), Some("kill"));
    assert_eq!(sender.process.tty.as_deref(), Some("pts/1"));
    assert_eq!(context.cause(), Cause::Operator);
    let parent = nix::unistd::getppid().as_raw();
    assert_eq!(context.parent, Some(ProcessSummary::unknown(parent)));
    assert_eq!((context.load, context.process.tracer_pid), (None, None));
}

#[test]
fn what_a_probe_finds_can_change_the_cause() {
    let startup = StartupInfo::collect();
    let tail = "0 ".repeat(29);
    let stat = format!("77 (kill) Z 1 7 7 0 0 0 0 0 0 0 0 0 0 0 20 0 1 0 99999999999 {tail}0\n");
    let mut context = start(&startup, &signal_from(77, stat));
    assert_eq!(context.cause(), Cause::Process);
    let shell = ProcessSummary { tty: Some("pts/3".into()), ..process(76, "bash", "") };
    context.apply(Some(Found::SenderAncestors(vec![shell])));
    assert_eq!(context.cause(), Cause::Operator);
    // A snapshot and a context from a record have no cause to decide.
    let mut snapshot = ShutdownContext::snapshot(&startup);
    snapshot.apply(Some(Found::Load([1.0; 3])));
    assert_eq!(snapshot.decision, None);
    let json = serde_json::to_string(&context).unwrap();
    let mut read: ShutdownContext = serde_json::from_str(&json).unwrap();
    read.apply(Some(Found::Load([1.0; 3])));
    assert_eq!(read.decision, context.decision);
}

#[test]
fn a_result_about_a_process_that_was_not_the_sender_is_dropped() {
    let startup = StartupInfo::collect();
    let mut signal = own_signal();
    signal.uid = Some(getuid().as_raw() + 1);
    let mut context = start(&startup, &signal);
    let late: Vec<ProbeResult> = [Probe::SenderParent, Probe::SenderCmdline, Probe::SenderUnit]
        .map(|probe| probe.run(&context, &startup))
        .into();
    assert!(late[0].is_some() && late[1].is_some());
    run(&mut context, Probe::Sender, &startup);
    for finding in late {
        context.apply(finding);
    }
    let sender = context.sender.unwrap();
    let process = ProcessSummary { uid: signal.uid, ..ProcessSummary::unknown(own_pid()) };
    assert_eq!((sender.process, sender.ancestors), (process, vec![]));
    assert_eq!(sender.absence, Some(SnapshotError::Gone));
}

#[test]
fn a_sender_that_has_executed_another_program_has_no_command_line() {
    let startup = StartupInfo::collect();
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let name = &stat[stat.find('(').unwrap()..=stat.rfind(')').unwrap()];
    let mut before = start(&startup, &signal_from(own_pid(), stat.replace(name, "(before)")));
    run(&mut before, Probe::SenderCmdline, &startup);
    assert_eq!(before.sender.unwrap().process.cmdline, None);
    let mut same = start(&startup, &own_signal());
    run(&mut same, Probe::SenderCmdline, &startup);
    assert_eq!(same.sender.unwrap().process.cmdline, process::cmdline(own_pid()));
}

#[test]
fn a_parent_that_sent_the_signal_is_read_once_and_keeps_its_command_line() {
    let mut startup = StartupInfo::collect();
    let (parent, uid) = (startup.parent.clone().unwrap(), getuid().as_raw());
    startup.parent.as_mut().unwrap().cmdline = Some("supervisor --all".into());
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", parent.pid)).unwrap();
    let mut signal = signal_from(parent.pid, stat);
    signal.uid = parent.uid.or(Some(uid));
    let trigger = Trigger::Signal { signal: Signal::TERM };
    let context = ShutdownContext::capture(&startup, trigger, Some(&signal));
    assert_eq!(context.parent.unwrap().cmdline.as_deref(), Some("supervisor --all"));
    let sender = context.sender.unwrap();
    assert_eq!(sender.process.cmdline.as_deref(), Some("supervisor --all"));
}

#[test]
fn ancestors_that_cannot_decide_the_cause_are_read_only_for_the_record() {
    let startup = StartupInfo::collect();
    let mut context = start(&startup, &own_signal());
    assert_eq!(context.cause(), Cause::SelfSent);
    let count = |context: &ShutdownContext| context.sender.as_ref().unwrap().ancestors.len();
    for (probe, ancestors) in [(Probe::SenderParent, 1), (Probe::CauseAncestors, 1)] {
        run(&mut context, probe, &startup);
        assert_eq!(count(&context), ancestors);
    }
    run(&mut context, Probe::Ancestors, &startup);
    let all = count(&context);
    assert_eq!(all, ProcessSummary::read_stat(own_pid()).ancestors(8).len());
    // A late result removes nothing.
    let parent = ProcessSummary::read_stat(own_pid()).ancestors(1);
    context.apply(Some(Found::SenderAncestors(parent)));
    assert_eq!(count(&context), all);
}

#[test]
fn probes_can_be_run_on_another_thread_and_come_in_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut startup = StartupInfo::collect();
    for name in ["takeover", "planned_stop"] {
        let path = dir.path().join(name);
        std::fs::write(&path, "").unwrap();
        startup.markers.push((name.to_owned(), path));
    }
    startup.markers.push(("absent".to_owned(), dir.path().join("absent")));
    let probes = startup.line_probes();
    assert_eq!(probes[0], Probe::Sender);
    let load = probes.iter().position(|&probe| probe == Probe::Load).unwrap();
    assert_eq!(probes[load + 1..], [0, 1, 2].map(Probe::Marker));
    let mut context = start(&startup, &own_signal());
    let startup = std::sync::Arc::new(startup);
    for probe in probes {
        let (known, startup) = (context.clone(), startup.clone());
        context.apply(std::thread::spawn(move || probe.run(&known, &startup)).join().unwrap());
    }
    let markers: Vec<&str> = context.markers.iter().map(|marker| &*marker.name).collect();
    assert_eq!(markers, ["takeover", "planned_stop"]);
    assert!(context.load.is_some() && context.parent.unwrap().name.is_some());
}

#[test]
fn a_probe_that_is_not_needed_finds_nothing() {
    let startup = StartupInfo::collect();
    let request = Trigger::Request { reason: "upgrade".into() };
    let context = ShutdownContext::start(&startup, request, None);
    for probe in Probe::OF_SENDER.into_iter().chain([Probe::SenderCmdline, Probe::Marker(0)]) {
        assert!(probe.run(&context, &startup).is_none(), "{probe:?}");
    }
}

#[test]
fn a_sender_known_by_other_means_replaces_the_one_that_the_handler_saw() {
    let startup = StartupInfo::collect();
    let mut context = start(&startup, &own_signal());
    let process = ProcessSummary { tty: Some("pts/3".into()), ..process(4242, "kill", "kill 1") };
    context.apply(Some(Found::Sender(Sender::new(process, SiCode::User))));
    assert_eq!(context.cause(), Cause::Operator);
    let sender = context.sender.clone();
    for probe in Probe::OF_SENDER {
        run(&mut context, probe, &startup);
    }
    assert_eq!(context.sender, sender);
}

#[test]
fn a_child_has_its_own_environment_in_the_context() {
    // The kernel shows a new program's environment a moment after exec, so wait for the child's
    // output.
    let mut child = std::process::Command::new("sh")
        .args(["-c", "echo started; read _"])
        .env("INVOCATION_ID", "0123456789abcdef")
        .env("XINVOCATION_ID", "wrong")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut word = [0; 7];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut word).unwrap();
    let startup = StartupInfo::collect_pid(child.id() as i32);
    let context = ShutdownContext::snapshot(&startup);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(context.systemd.invocation_id.as_deref(), Some("0123456789abcdef"));
    assert!(context.under_systemd);
    assert_eq!(context.parent.unwrap().pid, std::process::id() as i32);
    assert_eq!(context.trigger, None);
}

#[test]
fn a_process_that_never_existed_has_a_context_without_facts() {
    let context = ShutdownContext::snapshot(&StartupInfo::collect_pid(i32::MAX));
    assert!(context.to_string().starts_with("under_systemd=no loadavg_1m="), "{context}");
}
