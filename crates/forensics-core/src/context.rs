//! Everything probed at the moment we are asked to stop.
//!
//! [`Baseline`] holds what was true at the start and does not change: who we are, under which
//! unit, whose child. [`ShutdownContext::capture`] adds what only that moment knows. It does a few
//! dozen small reads and nothing that can wait for another process, and it cannot fail: each fact
//! is lost alone.
//!
//! Its [`Display`] is the one line of the log, its serde form the JSON of report and record.

use std::fmt::{self, Display};
use std::path::{Path, PathBuf};

use nix::unistd::{getpid, getppid, getuid};
use serde::{Deserialize, Serialize};

use crate::capture::{Absence, Captured, Code};
use crate::cause::{Cause, Evidence, Verdict, decide};
use crate::cgroupfs::{Memory, MemoryGroup};
use crate::clock::{self, Utc};
use crate::escape::{Key, MAX_NAME_CHARS, Quoted, cut};
use crate::marker::{self, Marker};
use crate::pod::Pod;
use crate::process::{self, ProcessSummary};
use crate::procfile;
use crate::sender::Sender;
use crate::signal::Signal;
use crate::systemd::{CgroupUnit, container_of_cgroup_file};
pub use crate::trigger::Trigger;

/// What systemd tells the processes it starts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SystemdMarkers {
    /// The unit and its manager, from our cgroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<CgroupUnit>,
    /// `INVOCATION_ID`: this run of the unit, as in `journalctl _SYSTEMD_INVOCATION_ID=`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invocation_id: Option<String>,
    /// `JOURNAL_STREAM`: device and inode of the socket to the journal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal_stream: Option<String>,
}

impl SystemdMarkers {
    /// Whether a service manager runs us: it left its `INVOCATION_ID`, or our cgroup is a
    /// service's. (A login session's scope is systemd's, too, but nobody is stopped through it.)
    pub fn is_managed(&self) -> bool {
        let service = |unit: &CgroupUnit| unit.unit.ends_with(".service");
        self.invocation_id.is_some() || self.unit.as_ref().is_some_and(service)
    }
}

/// What is known from the start on, so that the signal need not wait for it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Baseline {
    /// The process in question, with its command line.
    pub process: ProcessSummary,
    /// Its parent at the start. [`Baseline::probe`] leaves out the command line, which can hang:
    /// who can bound that read adds it here.
    pub parent: Option<ProcessSummary>,
    /// What systemd left in the environment and in the cgroup's path.
    pub systemd: SystemdMarkers,
    /// The container runtime, where one can be seen.
    pub container: Option<String>,
    /// The Kubernetes pod, where we are in one.
    pub pod: Option<Pod>,
    /// The control group that counts our memory.
    pub memory_group: Option<MemoryGroup>,
    /// Whether the pid namespace is not the machine's own.
    pub in_pid_namespace: bool,
    /// The marker files to look at, by name. Who can bound that leaves them out, and adds what was
    /// found to the context.
    pub markers: Vec<(String, PathBuf)>,
}

impl Baseline {
    /// Probes this process. Reads files of `/proc` and our environment; cannot fail.
    pub fn probe() -> Self {
        let variable =
            |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        Self::of(own_pid(), &variable)
    }

    /// Probes another process, whose command line and environment are read as well: both can hang
    /// for as long as that process holds the lock of its memory map.
    pub fn probe_pid(pid: i32) -> Self {
        let environ = procfile::read_of(pid, "environ").unwrap_or_default();
        let variable = |name: &str| {
            environ.split(|&byte| byte == 0).find_map(|entry| {
                let value = entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
                Some(String::from_utf8_lossy(value).into_owned())
            })
        };
        let mut baseline = Self::of(pid, &variable);
        if let Some(parent) = &mut baseline.parent {
            parent.cmdline = process::cmdline(parent.pid);
        }
        baseline
    }

    fn of(pid: i32, variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let variable = |name: &str| {
            let value = variable(name).filter(|value| !value.is_empty())?;
            Some(cut(&value, MAX_NAME_CHARS).into_owned())
        };
        let mut process = ProcessSummary::read(pid);
        process.cmdline = process::cmdline(pid);
        // Right also where /proc is another pid namespace's.
        let proc = match pid == own_pid() {
            true => "/proc/self".to_owned(),
            false => format!("/proc/{pid}"),
        };
        Self {
            parent: process.ppid.filter(|&ppid| ppid > 0).map(ProcessSummary::read),
            systemd: SystemdMarkers {
                unit: process.unit.clone(),
                invocation_id: variable("INVOCATION_ID"),
                journal_stream: variable("JOURNAL_STREAM"),
            },
            container: container(&proc, variable("container")),
            pod: Pod::of(&proc, &variable),
            memory_group: MemoryGroup::of(&proc),
            in_pid_namespace: match procfile::is_in_initial_pid_namespace(&proc) {
                Some(initial) => !initial,
                // Without a /proc: a parent that has no pid here lives in a namespace above. (The
                // machine's own process 1 has none either, and nobody outside to be signalled by.)
                None => pid == own_pid() && getppid().as_raw() == 0,
            },
            markers: Vec::new(),
            process,
        }
    }
}

/// The facts of one stop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ShutdownContext {
    /// When it was asked for: RFC 3339, UTC, microseconds.
    pub ts: Utc,
    /// The same on `CLOCK_MONOTONIC`, in microseconds.
    pub mono_us: u64,
    /// What asked. Absent where somebody only looks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<Trigger>,
    /// Why, in one word, and the evidence. Absent with the trigger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// Who sent the signal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<Sender>,
    /// How long the OS handler took, in nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture_ns: Option<u64>,
    /// Our parent, which is not the sender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<ProcessSummary>,
    /// This process.
    pub process: ProcessSummary,
    /// Whether a service manager runs us.
    pub under_systemd: bool,
    /// What systemd told us.
    pub systemd: SystemdMarkers,
    /// The container runtime, where one can be seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// The Kubernetes pod, where we are in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Pod>,
    /// What our control group's memory was like, and how often it was short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// The load averages over 1, 5 and 15 minutes, by `proc_loadavg(5)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<[f32; 3]>,
    /// The markers that are there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub markers: Vec<Marker>,
}

impl ShutdownContext {
    /// Takes down what is true now, for a stop that `trigger` asked for; `captured` is what the
    /// handler saw of it, where it was a signal.
    ///
    /// Blocks for a few dozen reads of `/proc` and of the baseline's markers, which
    /// [can hang](crate::marker). Never fails or panics.
    pub fn capture(baseline: &Baseline, trigger: Trigger, captured: Option<&Captured>) -> Self {
        let sender = captured.and_then(Sender::identify);
        Self::capture_from(baseline, trigger, captured, sender)
    }

    /// The same, where the sender has been [identified](Sender::identify) already.
    pub fn capture_from(
        baseline: &Baseline,
        trigger: Trigger,
        captured: Option<&Captured>,
        sender: Option<Sender>,
    ) -> Self {
        let mut context = Self::look(baseline);
        if let Some(captured) = captured {
            context.ts = captured.wall.into();
            context.mono_us = captured.mono_ns / 1000;
            context.capture_ns = Some(captured.took_ns);
        }
        context.sender = sender;
        context.verdict = Some(decide(&Evidence {
            trigger: &trigger,
            captured,
            sender: context.sender.as_ref(),
            process: &context.process,
            first_parent: baseline.parent.as_ref().map(|parent| parent.pid),
            in_pid_namespace: baseline.in_pid_namespace,
        }));
        context.trigger = Some(trigger);
        context
    }

    /// Does once what [`capture`](Self::capture) will do, with this process for the sender, so that the
    /// one that counts finds its code and its memory in place. That makes it faster by a third.
    ///
    /// On the thread that will capture: each has memory of its own.
    pub fn rehearse(baseline: &Baseline) {
        let pid = own_pid();
        let mut captured = Captured::new(Signal::TERM, Code::User);
        (captured.pid, captured.uid) = (Some(pid), Some(getuid().as_raw()));
        captured.sighting.stat = procfile::read_of(pid, "stat").ok();
        let trigger = Trigger::Signal { signal: captured.signal };
        let context = Self::capture(baseline, trigger, Some(&captured));
        std::hint::black_box(context.to_string());
    }

    /// Takes down what is true now, without anybody having asked for a stop.
    pub fn look(baseline: &Baseline) -> Self {
        let pid = baseline.process.pid;
        let mut process = baseline.process.clone();
        let now = match pid == own_pid() {
            // Our parent changes when it dies; this asks the kernel and needs no /proc.
            true => Some(getppid().as_raw()),
            false => ProcessSummary::read_stat(pid).ppid,
        };
        process.ppid = now.or(process.ppid);
        process.tracer_pid = process::tracer(pid);
        let us = u32::try_from(pid).unwrap_or(0);
        let markers = baseline.markers.iter();
        Self {
            ts: Utc::now(),
            mono_us: clock::mono_us(),
            trigger: None,
            verdict: None,
            sender: None,
            capture_ns: None,
            parent: parent_now(&process, baseline.parent.as_ref()),
            under_systemd: baseline.systemd.is_managed(),
            systemd: baseline.systemd.clone(),
            container: baseline.container.clone(),
            pod: baseline.pod.clone(),
            memory: baseline.memory_group.as_ref().map(MemoryGroup::read),
            load: procfile::text("/proc/loadavg").and_then(|load| load_averages(&load)),
            markers: markers.filter_map(|(name, path)| marker::read(name, path, us)).collect(),
            process,
        }
    }

    /// Why we stop; [`Cause::Unknown`] where nobody asked.
    pub fn cause(&self) -> Cause {
        self.verdict.as_ref().map_or(Cause::Unknown, |verdict| verdict.cause)
    }

    /// The signal that asked, where one did.
    pub fn signal(&self) -> Option<Signal> {
        match self.trigger {
            Some(Trigger::Signal { signal }) => Some(signal),
            _ => None,
        }
    }
}

/// The first three numbers of `/proc/loadavg`.
fn load_averages(load: &str) -> Option<[f32; 3]> {
    let mut numbers = load.split_ascii_whitespace().map_while(|number| number.parse().ok());
    Some([numbers.next()?, numbers.next()?, numbers.next()?])
}

fn own_pid() -> i32 {
    getpid().as_raw()
}

/// The parent of `process` as it is now: from memory while it is the one we started under.
fn parent_now(process: &ProcessSummary, first: Option<&ProcessSummary>) -> Option<ProcessSummary> {
    let pid = process.ppid.filter(|&pid| pid > 0)?;
    let mut now = ProcessSummary::read_stat(pid);
    if let Some(first) = first.filter(|first| now.is_same_as(first)) {
        // Programs change by exec; then the old command line would be a lie.
        let cmdline = first.cmdline.clone().filter(|_| first.name == now.name);
        now = ProcessSummary { cmdline, state: now.state, name: now.name, ..first.clone() };
    }
    Some(now)
}

/// The container runtime: what it says itself in the environment (`container=`, by systemd's
/// container interface) or by a file, else what the cgroup's path looks like.
fn container(proc: &str, variable: Option<String>) -> Option<String> {
    let at_root = |file| Path::new(&format!("{proc}/root")).join(file).exists();
    let by_cgroup = || container_of_cgroup_file(&procfile::text(format!("{proc}/cgroup"))?);
    let seen = || match () {
        () if at_root(".dockerenv") => Some("docker"),
        () if at_root("run/.containerenv") => Some("podman"),
        () => by_cgroup(),
    };
    variable.or_else(|| seen().map(str::to_owned))
}

impl Display for ShutdownContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (key, value) in self.fields() {
            write!(f, "{separator}{}=", Key(&key))?;
            // A command line is quoted even where it is one word, so that it always looks like one.
            match key.ends_with("_cmdline") {
                true => write!(f, "{:#}", Quoted(&value))?,
                false => write!(f, "{}", Quoted(&value))?,
            }
            separator = " ";
        }
        Ok(())
    }
}

impl ShutdownContext {
    /// The facts of the line, in its order, unescaped.
    pub fn fields(&self) -> Vec<(String, String)> {
        let mut fields = Fields(Vec::with_capacity(20));
        fields.add("signal", self.signal());
        fields.add("cause", self.verdict.as_ref().map(|verdict| verdict.cause));
        match &self.trigger {
            Some(Trigger::Request { reason }) => fields.add("reason", Some(reason)),
            Some(Trigger::ServiceEnded { error }) => fields.add("error", error.as_ref()),
            _ => {}
        }
        fields.add("under_systemd", Some(if self.under_systemd { "yes" } else { "no" }));
        if let Some(sender) = &self.sender {
            let who = &sender.process;
            fields.add("sender_pid", Some(who.pid));
            fields.add("sender_name", Some(who.name.as_deref().unwrap_or("?")));
            match sender.absence {
                _ if !sender.is_verified() => fields.add("sender_unverified", Some("yes")),
                _ if who.name.is_some() => {}
                Some(Absence::Gone) => fields.add("sender_gone", Some("yes")),
                Some(Absence::Hidden) => fields.add("sender_hidden", Some("yes")),
                _ => {}
            }
            fields.add("sender_uid", who.uid);
            let parent = |parent: &ProcessSummary| {
                format!("{}({})", parent.name.as_deref().unwrap_or("?"), parent.pid)
            };
            fields.add("sender_parent", sender.parent().map(parent));
            fields.add("sender_forwards", sender.forwards.then_some("yes"));
        }
        if let Some(parent) = &self.parent {
            fields.add("parent_pid", Some(parent.pid));
            fields.add("parent_name", Some(parent.name.as_deref().unwrap_or("?")));
        }
        fields.add("pod", self.pod.as_ref());
        fields.add("loadavg_1m", self.load.map(|[one, ..]| format!("{one:.2}")));
        for marker in &self.markers {
            fields.add(&format!("{}_marker_present", marker.name), Some(marker.target.as_str()));
        }
        fields.add("tracer_pid", self.process.tracer_pid);
        let cmdline = |process: &ProcessSummary| process.cmdline.clone();
        fields.add("sender_cmdline", self.sender.as_ref().and_then(|s| cmdline(&s.process)));
        fields.add("parent_cmdline", self.parent.as_ref().and_then(cmdline));
        fields.0
    }
}

struct Fields(Vec<(String, String)>);

impl Fields {
    fn add(&mut self, key: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.0.push((key.to_owned(), value.to_string()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::{Code, Sighting};
    use crate::escape;
    use std::time::SystemTime;

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
            (
                4242,
                Code::User,
                Some(Absence::Gone),
                "sender_pid=4242 sender_name=? sender_gone=yes",
            ),
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
            sighting: Sighting {
                stat: std::fs::read("/proc/self/stat").ok(),
                ..Sighting::default()
            },
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
}
