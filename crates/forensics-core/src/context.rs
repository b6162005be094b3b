//! Everything probed at the moment we are asked to stop.
//!
//! [`Baseline`] holds what was true at the start and does not change: who we are, under which
//! unit, whose child. [`ShutdownContext::capture`] adds what only that moment knows. It does a few
//! dozen small reads and nothing that can wait for another process, and it cannot fail: each fact
//! is lost alone.
//!
//! Its [`Display`](std::fmt::Display) is the one line of the log, its serde form the JSON of report
//! and record.

mod baseline;
mod line;
#[cfg(test)]
mod tests;

use std::sync::OnceLock;

use nix::unistd::{Pid, getppid, getuid};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::capture::{Captured, Code};
use crate::cause::{Cause, Evidence, Verdict, decide};
use crate::cgroupfs::{Memory, MemoryGroup};
use crate::clock::{self, Utc};
use crate::json;
use crate::marker::{self, Marker};
use crate::pod::Pod;
use crate::process::{self, ProcessSummary};
use crate::procfile;
use crate::sender::{self, Sender};
use crate::signal::Signal;
pub use crate::trigger::Trigger;
use baseline::own_pid;
pub use baseline::{Baseline, SystemdMarkers};

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
        let sender = captured.and_then(Sender::glimpse);
        let mut context = Self::capture_from(baseline, trigger, captured, sender, &OnceLock::new());
        context.complete(baseline);
        context
    }

    /// The same, where the sender has been [identified](Sender::glimpse) already, as far as the line
    /// shows it, and another thread may be [looking around](Surroundings::look): what it has found by the
    /// time all else is taken down is taken from there. [`complete`](Self::complete) adds the rest.
    pub fn capture_from(
        baseline: &Baseline,
        trigger: Trigger,
        captured: Option<&Captured>,
        sender: Option<Sender>,
        surroundings: &OnceLock<Surroundings>,
    ) -> Self {
        let mut context = Self::glance(baseline, sender.as_ref());
        if let Some(captured) = captured {
            context.ts = captured.wall.into();
            context.mono_us = captured.mono_ns / 1000;
            context.capture_ns = Some(captured.took_ns);
        }
        context.sender = sender;
        let decide = |context: &Self| {
            decide(&Evidence {
                trigger: &trigger,
                captured,
                sender: context.sender.as_ref(),
                process: &context.process,
                first_parent: baseline.parent.as_ref().map(|parent| parent.pid),
                in_pid_namespace: baseline.in_pid_namespace,
            })
        };
        let mut verdict = decide(&context);
        if let Some(sender) = &mut context.sender
            && verdict.cause.may_hang_on_ancestors()
        {
            sender.add_ancestors();
            verdict = decide(&context);
        }
        context.verdict = Some(verdict);
        context.trigger = Some(trigger);
        let found = surroundings.get().copied();
        context.surround(found.unwrap_or_else(|| Surroundings::look(baseline)));
        context
    }

    /// Adds what neither the line shows nor the cause hangs on: the memory of our control group, and the
    /// sender's further ancestors. A dozen small reads, for when the line has been handed on.
    pub fn complete(&mut self, baseline: &Baseline) {
        self.memory = baseline.memory_group.as_ref().map(MemoryGroup::read);
        if let Some(sender) = &mut self.sender {
            sender.complete();
        }
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
        sender::rehearse();
        let context = Self::capture(baseline, trigger, Some(&captured));
        std::hint::black_box(context.to_string());
    }

    /// Takes down what is true now, without anybody having asked for a stop.
    pub fn look(baseline: &Baseline) -> Self {
        let mut context = Self::glance(baseline, None);
        context.surround(Surroundings::look(baseline));
        context.complete(baseline);
        context
    }

    fn surround(&mut self, surroundings: Surroundings) {
        self.load = surroundings.load;
        self.process.tracer_pid = surroundings.tracer_pid;
    }

    /// What the line shows of it, but the surroundings. Our parent is not read anew where it is the sender,
    /// who just was.
    fn glance(baseline: &Baseline, sender: Option<&Sender>) -> Self {
        let pid = baseline.process.pid;
        let mut process = baseline.process.clone();
        let now = match pid == own_pid() {
            // Our parent changes when it dies; this asks the kernel and needs no /proc.
            true => Some(getppid().as_raw()),
            false => ProcessSummary::read_stat(pid).ppid,
        };
        process.ppid = now.or(process.ppid);
        let us = u32::try_from(pid).unwrap_or(0);
        let markers = baseline.markers.iter();
        Self {
            ts: Utc::now(),
            mono_us: clock::mono_us(),
            trigger: None,
            verdict: None,
            sender: None,
            capture_ns: None,
            parent: parent_now(&process, baseline.parent.as_ref(), sender),
            under_systemd: baseline.systemd.is_managed(),
            systemd: baseline.systemd.clone(),
            container: baseline.container.clone(),
            pod: baseline.pod.clone(),
            memory: None,
            load: None,
            markers: markers.filter_map(|(name, path)| marker::read(name, path, us)).collect(),
            process,
        }
    }

    /// Why we stop; [`Cause::Unknown`] where nobody asked.
    pub fn cause(&self) -> Cause {
        self.verdict.as_ref().map_or(Cause::Unknown, |verdict| verdict.cause)
    }

    /// It as JSON; `null` where it cannot be that.
    pub fn to_json(&self) -> Value {
        json::to_value(self).unwrap_or_default()
    }

    /// The signal that asked, where one did.
    pub fn signal(&self) -> Option<Signal> {
        match self.trigger {
            Some(Trigger::Signal { signal }) => Some(signal),
            _ => None,
        }
    }
}

/// What of a context hangs neither on the signal nor on its sender.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings {
    tracer_pid: Option<i32>,
    load: Option<[f32; 3]>,
}

impl Surroundings {
    /// Takes it down: two small reads of `/proc`, neither of which can hang. Never fails or panics.
    pub fn look(baseline: &Baseline) -> Self {
        let load = procfile::text("/proc/loadavg");
        Self {
            tracer_pid: process::tracer(baseline.process.pid),
            load: load.and_then(|load| load_averages(&load)),
        }
    }
}

/// The first three numbers of `/proc/loadavg`.
fn load_averages(load: &str) -> Option<[f32; 3]> {
    let mut numbers = load.split_ascii_whitespace().map_while(load_average);
    Some([numbers.next()?, numbers.next()?, numbers.next()?])
}

/// As the kernel writes one, with two decimals (`fs/proc/loadavg.c`); std's reader of any number has a
/// table of 10 KiB.
fn load_average(text: &str) -> Option<f32> {
    let (whole, hundredths) = text.split_once('.').filter(|(_, decimals)| decimals.len() == 2)?;
    let (whole, hundredths): (u32, u32) = (whole.parse().ok()?, hundredths.parse().ok()?);
    Some((f64::from(whole) + f64::from(hundredths) / 100.0) as f32)
}

/// The parent of `process` as it is now: from memory while it is the one we started under.
fn parent_now(
    process: &ProcessSummary,
    first: Option<&ProcessSummary>,
    sender: Option<&Sender>,
) -> Option<ProcessSummary> {
    let pid = process.ppid.filter(|&pid| pid > 0)?;
    let just_read = sender.filter(|sender| sender.is(Pid::from_raw(pid)));
    let just_read = just_read.filter(|sender| sender.process.start_time.is_some());
    let mut now = match just_read {
        Some(sender) => sender.process.clone(),
        None => ProcessSummary::read_stat(pid),
    };
    if let Some(first) = first.filter(|first| now.is_same_as(first)) {
        // Programs change by exec; then the old command line would be a lie.
        let cmdline = first.cmdline.clone().filter(|_| first.name == now.name);
        now = ProcessSummary { cmdline, state: now.state, name: now.name, ..first.clone() };
    }
    Some(now)
}
