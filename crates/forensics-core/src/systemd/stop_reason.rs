//! Why systemd stops a unit, from what systemd reports about the unit during the stop.
//!
//! For `systemctl stop`, `restart`, `kill` and a reboot, the service receives the same SIGTERM from
//! the manager. The unit's state, its job and the other jobs at that moment differ, as observed
//! with systemd 252 and 257. Who asked systemd for the job is not logged by default.
//!
//! What systemd reports never replaces what the kernel said about the sender of the signal: if that
//! is not the manager, the cause stays as it is.

use std::collections::HashMap;

use serde::Serialize;

use super::relations::{Relation, relation_to};
use super::{CgroupUnit, Manager, UnitProperties, unit_name};
use crate::basis::{Basis, Source};
use crate::cause::Cause;
use crate::context::ShutdownContext;
use crate::escape::{Escaped, MAX_NAME_CHARS, truncate};
use crate::record::Explained;

/// Why systemd stops the unit. The word is the `reason=` of the log and the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum StopReason {
    /// A stop job for this unit: `systemctl stop`.
    StopJob,
    /// A restart job for this unit: `systemctl restart`, or one of a unit it depends on.
    RestartJob,
    /// A reload job: with `Type=notify-reload`, systemd sends `ReloadSignal=`, SIGHUP by default.
    ReloadJob,
    /// `TimeoutStartSec=` is over, and the unit has not become active.
    StartTimeout,
    /// The time of `RuntimeMaxSec=` is over.
    RuntimeMax,
    /// The unit missed its watchdog message.
    Watchdog,
    /// A process of the unit was OOM-killed, with `OOMPolicy=stop`.
    OomPolicy,
    /// The unit's main process has ended, and this is another process of the unit.
    MainExited,
    /// A stop job that follows from another unit, by a dependency or a conflict.
    Dependency,
    /// A stop job because no unit needs this one any more.
    StopWhenUnneeded,
    /// A stop job with the start of a target: `systemctl isolate`.
    Isolate,
    /// The system is going down, to this target.
    Reboot,
    Poweroff,
    Halt,
    Kexec,
    SoftReboot,
    /// The system manager exits, in a container.
    Exit,
    /// The system is going down, to no target that is known here.
    Shutdown,
    /// The user manager exits.
    Logout,
    /// systemd-shutdown ends all processes that are left.
    FinalKill,
    /// Only a signal was sent: `systemctl kill`.
    Signal,
    /// systemd shows no reason.
    Unknown,
}

display_as_in_json!(StopReason);

/// The targets that stop all units of the manager (systemd.special(7)), the most specific first.
const GOING_DOWN: [(&str, StopReason); 8] = [
    ("reboot.target", StopReason::Reboot),
    ("poweroff.target", StopReason::Poweroff),
    ("halt.target", StopReason::Halt),
    ("kexec.target", StopReason::Kexec),
    ("soft-reboot.target", StopReason::SoftReboot),
    ("exit.target", StopReason::Exit),
    ("shutdown.target", StopReason::Shutdown),
    ("umount.target", StopReason::Shutdown),
];

/// How long before the stop of our unit another unit may have changed its state, and still be the
/// reason, in microseconds. A transaction of systemd takes some milliseconds, and on a busy machine
/// some hundreds.
const AT_ONCE_US: u64 = 1_000_000;

/// How much later than the signal of another process systemd must begin its own stop, so that surely it
/// comes second, in microseconds.
const LATER_US: u64 = 100_000;

/// How many other units are named.
const MAX_UNITS: usize = 5;

/// What systemd reports about a stop of `unit`.
#[derive(Debug, Clone, Copy)]
pub struct StopFacts<'a> {
    /// The unit.
    pub unit: &'a CgroupUnit,
    /// Its properties.
    pub properties: &'a UnitProperties,
    /// The output of `systemctl list-jobs` of its manager.
    pub jobs: &'a str,
    /// The output for [`related_arguments`], if that was asked.
    pub related: &'a str,
    /// The output of `systemctl list-jobs` of the system manager, for a unit of a user manager.
    /// `None` if it cannot be asked.
    pub system_jobs: Option<&'a str>,
    /// Whether systemd is stopping the service of the user manager.
    pub manager_stops: bool,
    /// Whether the boot has not finished. Then the jobs of targets are those of the boot.
    pub is_booting: bool,
}

/// The arguments for systemctl(1) that show the units that may be the reason for a stop job of
/// `unit`. `None` if it has no stop or restart job.
pub fn related_arguments(
    unit: &CgroupUnit,
    properties: &UnitProperties,
    jobs: &str,
) -> Option<Vec<String>> {
    let jobs = Jobs::parse(jobs);
    jobs.of(&unit.unit).filter(|job| job.stops())?;
    let option = unit.manager.option();
    let shown = format!("--property={}", super::relations::PROPERTIES);
    let mut arguments = [option, "--no-pager", "show", &shown, "--"].map(str::to_owned).to_vec();
    arguments.extend(properties.relations.units().map(str::to_owned));
    // For `systemctl isolate`. A pattern matches the units that are loaded.
    arguments.push("*.target".to_owned());
    Some(arguments)
}

/// Explains a stop whose signal came from systemd-shutdown. systemd cannot be asked any more.
pub fn explain_final_kill(context: &ShutdownContext) -> Option<Explained> {
    // Before systemd is asked, this is the only way to that cause.
    (context.cause() == Cause::Reboot).then(|| {
        let found = Found::new(
            StopReason::FinalKill,
            "the machine is going down, and systemd-shutdown ends the processes that are left",
            Basis::inferred("the sender is process 1, and its name is that of systemd-shutdown"),
        );
        found.explained(Cause::Reboot)
    })
}

/// Explains a stop by what systemd reports. `None` if the unit's state is not known, or if systemd
/// has nothing to do with the stop.
pub fn explain_stop(context: &ShutdownContext, facts: &StopFacts<'_>) -> Option<Explained> {
    let sender = SentBy::of(context);
    let mut found = find(facts, sender)?;
    // Another process asked for the stop first, so that this is not the reason for it.
    let began = facts.properties.stop_began_us().filter(|_| sender == SentBy::Other);
    let later = began.and_then(|began| began.checked_sub(context.mono_us));
    if let Some(later_us) = later.filter(|&us| us >= LATER_US) {
        let later = later_us as f64 / 1e6;
        let detail = found.detail;
        found.detail =
            format!("{later:.1}s after this stop had begun, systemd stops the unit, too: {detail}");
    }
    let cause = match (sender, found.reason) {
        // Never contradicts the kernel.
        (SentBy::Other, _) => context.cause(),
        (_, StopReason::Watchdog) => Cause::Watchdog,
        (_, reason) if GOING_DOWN.iter().any(|(_, down)| *down == reason) => Cause::Reboot,
        (_, StopReason::Unknown) => context.cause(),
        _ => Cause::Systemd,
    };
    Some(found.explained(cause))
}

/// Who sent the signal, according to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SentBy {
    /// The manager of our unit.
    Manager,
    /// A process that is not known: outside our pid namespace, or the handler did not see the
    /// signal.
    NotKnown,
    /// Another process, or the program itself.
    Other,
}

impl SentBy {
    fn of(context: &ShutdownContext) -> Self {
        match context.cause() {
            Cause::Systemd | Cause::Watchdog | Cause::Reboot => Self::Manager,
            Cause::Unknown if context.may_be_from_outside() => Self::NotKnown,
            _ => Self::Other,
        }
    }
}

/// A reason, before the cause is decided.
struct Found {
    reason: StopReason,
    detail: String,
    units: Vec<String>,
    basis: Basis,
}

impl Found {
    fn new(reason: StopReason, detail: impl Into<String>, basis: Basis) -> Self {
        Self { reason, detail: detail.into(), units: Vec::new(), basis }
    }

    /// A reason that systemd shows.
    fn shown(reason: StopReason, detail: impl Into<String>) -> Self {
        Self::new(reason, detail, Basis::observed(Source::Systemd))
    }

    fn explained(self, cause: Cause) -> Explained {
        let units = self.units;
        let explained =
            Explained::new(self.reason.to_string(), self.detail, cause.to_string(), self.basis);
        Explained { units, ..explained }
    }
}

fn find(facts: &StopFacts<'_>, sender: SentBy) -> Option<Found> {
    let properties = facts.properties;
    let state = properties.active_state.as_deref()?;
    let jobs = Jobs::parse(facts.jobs);
    let own = jobs.of(&facts.unit.unit);
    let is_stopping = state == "deactivating" || own.is_some_and(Job::stops);
    if !is_stopping {
        return not_stopping(state, properties, own, sender);
    }
    if let Some(found) = going_down(facts, &jobs) {
        return Some(found);
    }
    let result = properties.result.as_deref().unwrap_or_default();
    if result == "watchdog" {
        let detail = "the unit missed its watchdog message";
        return Some(Found::shown(StopReason::Watchdog, detail));
    }
    if let Some(own) = own.filter(|job| job.stops()) {
        return Some(by_job(facts, &jobs, own));
    }
    Some(match result {
        "oom-kill" => Found::shown(
            StopReason::OomPolicy,
            "a process of the unit was OOM-killed, and the unit is stopped (OOMPolicy=stop)",
        ),
        "timeout" if !properties.has_been_active() || own.is_some_and(Job::is_start_now) => {
            Found::new(
                StopReason::StartTimeout,
                "the start of the unit timed out (TimeoutStartSec=)",
                Basis::inferred("systemd shows Result=timeout")
                    .and("the unit had not become active"),
            )
        }
        "timeout" if properties.runtime_max.is_some() => Found::new(
            StopReason::RuntimeMax,
            "RuntimeMaxSec= ran out",
            Basis::inferred("systemd shows Result=timeout and no job for the unit")
                .and("the unit had become active, and has RuntimeMaxSec="),
        ),
        _ if properties.has_lost_main() => {
            Found::shown(StopReason::MainExited, "the unit's main process has ended")
        }
        _ => no_reason(result, own),
    })
}

/// The unit is not being stopped.
fn not_stopping(
    state: &str,
    properties: &UnitProperties,
    own: Option<&Job<'_>>,
    sender: SentBy,
) -> Option<Found> {
    let result = properties.result.as_deref().unwrap_or_default();
    match sender {
        SentBy::Other => None,
        _ if own.is_some_and(|job| job.kind == "reload")
            && properties.service_type.as_deref() == Some("notify-reload") =>
        {
            let detail = "a reload job, as by systemctl reload: the unit is not being stopped";
            Some(Found::shown(StopReason::ReloadJob, detail))
        }
        SentBy::Manager if state != "inactive" && state != "failed" => {
            let sub_state = properties.sub_state.as_deref().unwrap_or("?");
            let shown = format!("the unit is {state} ({sub_state}), and has no stop job");
            let detail =
                "the unit is not being stopped: only a signal was sent, as by systemctl kill";
            let basis =
                Basis::inferred("the sender is the manager").and(Escaped(&shown).to_string());
            Some(Found::new(StopReason::Signal, detail, basis))
        }
        _ => Some(no_reason(result, own)),
    }
}

/// `own` is a job of the unit that is not the reason, such as a start that came after the stop.
fn no_reason(result: &str, own: Option<&Job<'_>>) -> Found {
    let shown = |text: &str| Escaped(&truncate(text, MAX_NAME_CHARS)).to_string();
    let job = match own {
        Some(job) => format!("no reason, and a {} job for the unit", shown(job.kind)),
        None => "no job and no reason".to_owned(),
    };
    let detail = match result {
        "" | "success" => format!("systemd shows {job}"),
        result => format!("systemd shows {job}, but Result={}", shown(result)),
    };
    Found::shown(StopReason::Unknown, detail)
}

/// The system or the user manager is going down.
fn going_down(facts: &StopFacts<'_>, jobs: &Jobs<'_>) -> Option<Found> {
    let target = |jobs: &Jobs<'_>| {
        GOING_DOWN.into_iter().find(|(target, _)| jobs.of(target).is_some_and(Job::starts))
    };
    let is_user = matches!(facts.unit.manager, Manager::User { .. });
    let system_jobs = facts.system_jobs.map(Jobs::parse);
    let system = if is_user { system_jobs.as_ref() } else { Some(jobs) };
    if let Some((target, reason)) = system.and_then(target) {
        return Some(Found::shown(reason, format!("the system is going down to {target}")));
    }
    if !is_user || !(facts.manager_stops || target(jobs).is_some()) {
        return None;
    }
    let system = match system {
        Some(_) => "the system is not going down",
        None => "whether the system is going down is not known",
    };
    let detail = format!(
        "the user manager exits, as at a logout, and {system}; hint: with lingering (loginctl \
         enable-linger) it does not exit at a logout"
    );
    Some(Found::shown(StopReason::Logout, detail))
}

/// The reason for a stop or restart job of our unit.
fn by_job(facts: &StopFacts<'_>, jobs: &Jobs<'_>, own: &Job<'_>) -> Found {
    let properties = facts.properties;
    let others = Others { units: parse_related(facts.related), jobs, own, properties };
    let mut by_others = Vec::new();
    for name in properties.relations.units() {
        let relations = &properties.relations;
        let Some((relation, mutual)) = relation_to(relations, name) else { continue };
        if let Some(fact) = others.is_reason(name, relation, mutual) {
            by_others.push((name.to_owned(), relation, fact));
        }
    }
    by_others.truncate(MAX_UNITS);
    let restarts = own.kind != "stop";
    let word = if restarts { "restart" } else { "stop" };
    let job_fact = format!("systemd shows a {word} job for the unit");
    // Before the dependencies, because an isolate also stops what our unit depends on.
    if let Some(target) = others.isolated().filter(|_| !facts.is_booting && !restarts) {
        let detail = format!("a stop job with the start of {target}, as by systemctl isolate");
        let basis = Basis::inferred(job_fact)
            .and(format!("{target} is starting or has just started, and may be isolated"))
            .and("no unit that is active or starting needs this one");
        let mut found = Found::new(StopReason::Isolate, detail, basis);
        found.units.push(target);
        return found;
    }
    if !by_others.is_empty() {
        let named: Vec<_> = by_others
            .iter()
            .map(|(name, relation, fact)| format!("{name} {fact} ({}=)", relation.property()))
            .collect();
        let named = named.join(", ");
        let reason = if restarts { StopReason::RestartJob } else { StopReason::Dependency };
        let detail = format!("a {word} job, because {named}");
        let mut found = Found::new(reason, detail, Basis::inferred(job_fact).and(named));
        found.units = by_others.into_iter().map(|(name, ..)| name).collect();
        return found;
    }
    if restarts {
        return Found::shown(StopReason::RestartJob, "a restart job, as by systemctl restart");
    }
    if properties.stop_when_unneeded == Some(true)
        && !properties.relations.needed_by().any(|name| others.is_active(name))
    {
        let detail = "a stop job, and no unit that is active needs this one (StopWhenUnneeded=)";
        let basis = Basis::inferred(job_fact)
            .and("the unit has StopWhenUnneeded=yes")
            .and("no unit that needs it is active");
        return Found::new(StopReason::StopWhenUnneeded, detail, basis);
    }
    Found::shown(StopReason::StopJob, "a stop job, as by systemctl stop")
}

/// The other units that may be the reason for a job of our unit.
struct Others<'a> {
    units: HashMap<&'a str, Related>,
    jobs: &'a Jobs<'a>,
    own: &'a Job<'a>,
    properties: &'a UnitProperties,
}

/// The state of another unit. Times are in microseconds of `CLOCK_MONOTONIC`.
#[derive(Debug, Default)]
struct Related {
    is_active: bool,
    may_isolate: bool,
    /// When it was last started, became active, and ceased to be active or ended.
    started_us: Option<u64>,
    /// It ended by itself, and not for a stop job.
    has_crashed: bool,
    active_us: Option<u64>,
    ended_us: Option<u64>,
}

impl Others<'_> {
    /// What another unit did, if our job follows from that. systemd numbers the jobs of a
    /// transaction in order, and the job that was asked for comes first. So a job with a larger
    /// number does not precede ours.
    fn is_reason(&self, name: &str, relation: Relation, is_mutual: bool) -> Option<&'static str> {
        let job = self.jobs.of(name);
        if job.is_some_and(|job| job.id > self.own.id) {
            return None;
        }
        let unit = self.units.get(name);
        if relation.is_conflict() {
            let is_starting = job.is_some_and(Job::starts);
            let has_started = unit.is_some_and(|unit| self.is_now(unit.started_us));
            return (is_starting || has_started).then_some("is started");
        }
        if job.is_some_and(Job::stops) {
            return Some("stops");
        }
        // Without a job it is not known which of two units that stop together came first.
        let has_ended = unit.is_some_and(|unit| {
            let stops_us = relation == Relation::BindsTo || !unit.has_crashed;
            stops_us && self.is_now(unit.ended_us)
        });
        (has_ended && !is_mutual).then_some("stops")
    }

    /// Whether it was when our unit began to stop, or shortly before.
    fn is_now(&self, us: Option<u64>) -> bool {
        let began = self.properties.stop_began_us();
        us.zip(began).is_some_and(|(us, began)| us.saturating_add(AT_ONCE_US) >= began)
    }

    /// Whether another target than this one stops, or has just stopped. An isolate stops the targets that
    /// were active before, while a start does not.
    fn another_target_stops(&self, name: &str) -> bool {
        self.units.iter().any(|(other, unit)| {
            let stops = self.jobs.of(other).is_some_and(Job::stops);
            let has_ended = !unit.is_active && self.is_now(unit.ended_us);
            other.ends_with(".target") && *other != name && (stops || has_ended)
        })
    }

    fn is_active(&self, name: &str) -> bool {
        self.units.get(name).is_some_and(|unit| unit.is_active)
    }

    /// A target that may have been isolated: it is started in the same transaction as our stop, or was
    /// shortly before, and another target stops. An isolate stops only units that were started
    /// before and that are not needed.
    fn isolated(&self) -> Option<String> {
        let needs_us =
            |name: &str| self.jobs.of(name).map_or_else(|| self.is_active(name), Job::starts);
        if self.properties.relations.needed_by().any(needs_us) {
            return None;
        }
        let is_isolated = |name: &str, unit: &Related| {
            let by_job = self.jobs.of(name).map(|job| job.starts() && job.id < self.own.id);
            let started = self.properties.inactive_exit_us;
            let now = || {
                self.is_now(unit.active_us)
                    && unit.active_us >= started
                    && self.another_target_stops(name)
            };
            unit.may_isolate && by_job.unwrap_or_else(now)
        };
        let mut found: Vec<&str> = self
            .units
            .iter()
            .filter(|(name, unit)| name.ends_with(".target") && is_isolated(name, unit))
            .map(|(name, _)| *name)
            .collect();
        found.sort_unstable();
        found.first().map(|&name| name.to_owned())
    }
}

/// The units in the output of systemctl for [`related_arguments`].
fn parse_related(output: &str) -> HashMap<&str, Related> {
    let unit = |block| {
        let mut name = None;
        let mut unit = Related::default();
        for (key, value) in str::lines(block).filter_map(|line| line.split_once('=')) {
            let time = || value.parse().ok().filter(|&us| us != 0);
            match key {
                "Id" => name = Some(value).filter(|name| unit_name::is_valid(name)),
                "ActiveState" => unit.is_active = matches!(value, "active" | "reloading"),
                "Result" => {
                    let by_itself = ["signal", "core-dump", "watchdog", "oom-kill"];
                    unit.has_crashed = by_itself.contains(&value);
                }
                "AllowIsolate" => unit.may_isolate = value == "yes",
                "InactiveExitTimestampMonotonic" => unit.started_us = time(),
                "ActiveEnterTimestampMonotonic" => unit.active_us = time(),
                "ActiveExitTimestampMonotonic" | "InactiveEnterTimestampMonotonic" => {
                    unit.ended_us = unit.ended_us.max(time());
                }
                _ => {}
            }
        }
        Some((name?, unit))
    };
    output.split("\n\n").filter_map(unit).collect()
}

/// The jobs of a manager, by unit.
struct Jobs<'a>(HashMap<&'a str, Job<'a>>);

/// A job, from a line `JOB UNIT TYPE STATE`.
#[derive(Debug, Clone, Copy)]
struct Job<'a> {
    id: u32,
    kind: &'a str,
    runs: bool,
}

impl<'a> Jobs<'a> {
    /// Reads the output of `systemctl list-jobs`. It also has lines for people. A name that is not
    /// valid is skipped, because names are shown unescaped.
    fn parse(output: &'a str) -> Self {
        let job = |line: &'a str| {
            let mut columns = line.split_whitespace();
            let id = columns.next()?.parse().ok()?;
            let unit = columns.next().filter(|unit| unit_name::is_valid(unit))?;
            let kind = columns.next()?;
            Some((unit, Job { id, kind, runs: columns.next() == Some("running") }))
        };
        Self(output.lines().filter_map(job).collect())
    }

    fn of(&self, unit: &str) -> Option<&Job<'a>> {
        self.0.get(unit)
    }
}

impl Job<'_> {
    fn stops(&self) -> bool {
        matches!(self.kind, "stop" | "restart" | "try-restart")
    }

    /// Whether it is a start that is under way. One that waits comes after the stop.
    fn is_start_now(&self) -> bool {
        self.kind == "start" && self.runs
    }

    fn starts(&self) -> bool {
        matches!(self.kind, "start" | "restart")
    }
}

#[cfg(test)]
mod tests;
