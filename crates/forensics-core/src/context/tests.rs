//! The line and the JSON, by a context made up of every fact; and the real one, of this process.

use std::time::SystemTime;

use super::*;
use crate::capture::{Absence, Sighting};
use crate::escape;

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
        marker::Target::Ourselves => r#"{"target_pid": 4100}"#,
        marker::Target::Other => r#"{"target_pid": 410}"#,
        _ => "",
    };
    std::fs::write(&path, pid).unwrap();
    marker::read(name, &path, 4100).unwrap()
}

/// The contract's example, fact by fact.
fn example() -> ShutdownContext {
    let sender = ProcessSummary { uid: Some(1000), ..process(4242, "kill", "kill 4100") };
    ShutdownContext {
        ts: "2026-11-23T10:15:00.123456Z".parse().unwrap(),
        mono_us: 1,
        trigger: Some(Trigger::Signal { signal: Signal::TERM }),
        verdict: Some(Verdict { cause: Cause::Operator, evidence: "a shell".into() }),
        sender: Some(Sender {
            process: sender,
            code: Code::User,
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
        systemd: SystemdMarkers::default(),
        container: None,
        pod: None,
        memory: None,
        load: Some([0.42, 0.3, 0.2]),
        markers: vec![
            marker("takeover", marker::Target::Ourselves),
            marker("planned_stop", marker::Target::Unstated),
        ],
    }
}

#[test]
fn the_line_is_the_contracts() {
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
        (4242, Code::User, Some(Absence::Gone), "sender_pid=4242 sender_name=? sender_gone=yes"),
        (
            4242,
            Code::User,
            Some(Absence::Hidden),
            "sender_pid=4242 sender_name=? sender_hidden=yes",
        ),
        (0, Code::User, Some(Absence::Outside), "sender_pid=0 sender_name=? sender_uid=0"),
        (1, Code::Queue, None, "sender_pid=1 sender_name=? sender_unverified=yes"),
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
fn a_pod_and_a_sender_that_forwards_stand_behind_whom_they_tell_of() {
    let mut context = example();
    context.sender.as_mut().unwrap().forwards = true;
    context.pod = Some(Pod { name: "web-1".into(), namespace: Some("shop".into()) });
    context.memory = Some(Memory { oom_kill: Some(2), ..Memory::default() });
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
fn nobody_forges_a_field_or_leaves_the_line() {
    let evil = "x cause=systemd\nsender_pid=1 \u{1b}]0;owned\u{7} \"";
    let mut context = example();
    context.sender.as_mut().unwrap().process = process(4242, evil, evil);
    context.sender.as_mut().unwrap().ancestors = vec![process(7, evil, evil)];
    context.parent = Some(process(1, evil, evil));
    context.trigger = Some(Trigger::Request { reason: evil.into() });
    context.pod = Some(Pod { name: evil.into(), namespace: Some(evil.into()) });
    let line = context.to_string();
    assert!(!line.chars().any(char::is_control), "{line}");
    assert_eq!(escape::fields(&line).unwrap(), context.fields());
    assert_eq!(context.fields().iter().filter(|(key, _)| key == "cause").count(), 1);
}

proptest::proptest! {
    #[test]
    fn whatever_the_texts_the_line_reads_back_as_the_facts(
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
        proptest::prop_assert_eq!(escape::fields(&line).unwrap(), context.fields());
        let json = crate::json::to_string(&context).unwrap();
        proptest::prop_assert!(json.chars().all(escape::is_safe), "{}", json);
        let read = serde_json::from_str::<ShutdownContext>(&json).unwrap();
        proptest::prop_assert_eq!(read, context);
    }
}

#[test]
fn json_holds_all_of_it_and_reads_back() {
    let context = example();
    let json = serde_json::to_string(&context).unwrap();
    assert_eq!(serde_json::from_str::<ShutdownContext>(&json).unwrap(), context);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["verdict"]["cause"], "operator");
    assert_eq!(json["trigger"]["signal"], "SIGTERM");
    assert_eq!(json["sender"]["process"]["name"], "kill");
}

#[test]
fn this_process_is_probed_for_real() {
    let baseline = Baseline::probe();
    let captured = Captured {
        signal: Signal::TERM,
        code: Code::User,
        pid: Some(baseline.process.pid),
        uid: Some(0),
        sighting: Sighting { stat: std::fs::read("/proc/self/stat").ok(), ..Sighting::default() },
        is_parent_death_signal: false,
        wall: SystemTime::now(),
        mono_ns: 5_000,
        took_ns: 1,
    };
    let trigger = Trigger::Signal { signal: Signal::TERM };
    let context = ShutdownContext::capture(&baseline, trigger, Some(&captured));
    assert_eq!(context.cause(), Cause::SelfSent);
    assert_eq!(context.process.pid, std::process::id() as i32);
    assert_eq!(context.parent.as_ref().map(|parent| parent.pid), context.process.ppid);
    assert_eq!(context.mono_us, 5);
    assert!(context.load.is_some());
    assert_eq!(context.memory.is_some(), baseline.memory_group.is_some());
    assert!(context.to_string().starts_with("signal=SIGTERM cause=self_sent under_systemd="));
}

#[test]
fn what_another_thread_has_found_is_not_looked_for_again_and_what_it_has_not_is() {
    let baseline = Baseline::probe();
    let captured = Captured::new(Signal::TERM, Code::Kernel);
    let capture = |found: &OnceLock<Surroundings>| {
        let trigger = Trigger::Signal { signal: Signal::TERM };
        let context =
            ShutdownContext::capture_from(&baseline, trigger, Some(&captured), None, found);
        (context.process.tracer_pid, context.load)
    };
    let found = OnceLock::new();
    assert!(capture(&found).1.is_some(), "by /proc/loadavg");
    let (tracer_pid, load) = (Some(99), Some([1.0, 2.0, 3.0]));
    found.set(Surroundings { tracer_pid, load }).unwrap();
    assert_eq!(capture(&found), (tracer_pid, load));
}

#[test]
fn a_child_is_seen_with_its_own_environment() {
    // The kernel shows a new program's environment a moment after exec: wait for its word.
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
    let baseline = Baseline::probe_pid(child.id() as i32);
    let context = ShutdownContext::look(&baseline);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(context.systemd.invocation_id.as_deref(), Some("0123456789abcdef"));
    assert!(context.under_systemd);
    assert_eq!(context.parent.unwrap().pid, std::process::id() as i32);
    assert_eq!(context.trigger, None);
}

#[test]
fn a_process_that_never_was_has_a_context_all_the_same() {
    let context = ShutdownContext::look(&Baseline::probe_pid(i32::MAX));
    assert!(context.to_string().starts_with("under_systemd=no loadavg_1m="), "{context}");
}

#[test]
fn load_averages_are_the_numbers_that_the_kernel_writes() {
    for hundredths in (0..30_000).chain([13_107_299, 400_000_000]) {
        let text = format!("{}.{:02}", hundredths / 100, hundredths % 100);
        assert_eq!(load_average(&text), text.parse().ok());
    }
    assert_eq!(load_averages("0.42 0.30 12.05 3/500 4242\n"), Some([0.42, 0.3, 12.05]));
    for text in ["", "0.42 0.30", "0.42 0.3 0.20", "a.00 0.30 0.20", "1 2 3"] {
        assert_eq!(load_averages(text), None, "{text}");
    }
}
