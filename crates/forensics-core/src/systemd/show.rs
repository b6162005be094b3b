//! A unit's properties, from the output of `systemctl show`.
//!
//! [`show_arguments`] gives the arguments, and [`UnitProperties::parse`] reads the output. It has
//! one line per property, `KEY=VALUE`, in systemd's own order. A key that the type of unit does not
//! have is left out, and one without a value is empty. Both are absent here.

use serde::{Deserialize, Serialize};

use super::cgroup::Manager;
use super::relations::{Relation, Relations};
use super::unit_name;
use crate::capture::Signal;
use crate::duration::{self, Timespan};

/// The properties to ask for, separated by commas: all that [`UnitProperties::parse`] reads, except
/// the [relations](Relation).
const PROPERTIES: &str = "Id,LoadState,ActiveState,SubState,Result,Transient,\
    NeedDaemonReload,Type,NotifyAccess,MainPID,ControlPID,KillMode,SendSIGKILL,TimeoutStopUSec,TimeoutAbortUSec,\
    StateChangeTimestampMonotonic,WatchdogUSec,KillSignal,RestartKillSignal,FinalKillSignal,\
    ReloadSignal,ExecReload,DropInPaths,RuntimeMaxUSec,StopWhenUnneeded,\
    InactiveExitTimestampMonotonic,ActiveEnterTimestampMonotonic,ActiveExitTimestampMonotonic";

/// The arguments for systemctl(1) to print the output that [`UnitProperties::parse`] reads.
///
/// If `unit` has no type, `.service` is meant. [`Manager::option`] says which user's manager is
/// asked.
pub fn show_arguments(manager: Manager, unit: &str) -> Vec<String> {
    let relations: Vec<&str> = Relation::ALL.iter().map(|relation| relation.property()).collect();
    let properties = format!("--property={PROPERTIES},{}", relations.join(","));
    // A unit's name may start with a hyphen.
    [manager.option(), "--no-pager", "show", &properties, "--", unit].map(str::to_owned).into()
}

/// The properties of one unit, as systemd reports them.
///
/// A field is absent if systemd printed nothing for it, or a value that cannot be read. For a unit
/// that is not loaded systemd prints its defaults, so look at [`load_state`](Self::load_state)
/// first, or ask [`stop_timeout`](Self::stop_timeout).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UnitProperties {
    /// The full name, even if an alias or a short form was requested.
    pub id: Option<String>,
    /// `loaded`, `not-found`, `bad-setting`, `error`, `masked`, …
    pub load_state: Option<String>,
    /// `active`, `inactive`, `deactivating`, `failed`, …
    pub active_state: Option<String>,
    /// The detailed state, which depends on the unit's type: `running`, `stop-sigterm`,
    /// `stop-watchdog`, …
    pub sub_state: Option<String>,
    /// How the last run ended, or why systemd stops this one: `success`, `timeout`, `watchdog`,
    /// `exit-code`, `oom-kill`, …
    pub result: Option<String>,
    /// Whether a program such as systemd-run(1) created the unit at run time, without a file.
    pub transient: Option<bool>,
    /// Whether the unit's files have changed since systemd read them.
    pub need_daemon_reload: Option<bool>,
    /// `simple`, `exec`, `notify`, `notify-reload`, `forking`, …
    #[serde(rename = "type")]
    pub service_type: Option<String>,
    /// Whose messages by `sd_notify(3)` are accepted: `none`, `main`, `exec`, `all`. Never `none`
    /// with `Type=notify` or `WatchdogSec=`, even if the file says so (`service_add_extras()`).
    pub notify_access: Option<String>,
    /// The service's main process; absent if it has none.
    pub main_pid: Option<u32>,
    /// The command that systemd runs for the service now, such as that of `ExecStop=`; absent if it
    /// runs none.
    pub control_pid: Option<u32>,
    /// Which processes get the signals of a stop: `control-group`, `mixed`, `process`, `none`.
    pub kill_mode: Option<String>,
    /// Whether SIGKILL follows when the stop timeout is over.
    pub send_sigkill: Option<bool>,
    /// The effective stop timeout. Zero means SIGKILL at once, and is possible only for a transient
    /// unit: `TimeoutStopSec=0` in a file means infinite and is shown as infinite.
    pub timeout_stop: Option<Timespan>,
    /// The effective `TimeoutAbortSec=`: how long systemd waits after the signal of its watchdog.
    pub timeout_abort: Option<Timespan>,
    /// When the detailed state was entered, in microseconds of `CLOCK_MONOTONIC`; absent if never.
    pub state_change_us: Option<u64>,
    /// The effective watchdog timeout. Absent if there is none, or if the service does not run,
    /// because systemd then always shows `infinity`.
    pub watchdog: Option<Timespan>,
    /// The signal of a stop.
    pub kill_signal: Option<Signal>,
    /// The signal of a stop that is part of a restart.
    pub restart_kill_signal: Option<Signal>,
    /// The signal for processes that are left when the stop timeout is over.
    pub final_kill_signal: Option<Signal>,
    /// The signal of a reload, with `Type=notify-reload`. Since systemd 253.
    pub reload_signal: Option<Signal>,
    /// The commands of `ExecReload=`, with their arguments joined by blanks.
    pub exec_reload: Vec<String>,
    /// Its drop-in files, in the order in which they apply.
    pub drop_in_paths: Vec<String>,
    /// `RuntimeMaxSec=`; absent if there is no limit.
    pub runtime_max: Option<Timespan>,
    /// Whether systemd stops the unit when no active unit needs it.
    pub stop_when_unneeded: Option<bool>,
    /// When the unit was last started, became active, and ceased to be active, in microseconds of
    /// `CLOCK_MONOTONIC`; absent if never.
    pub inactive_exit_us: Option<u64>,
    /// See [`inactive_exit_us`](Self::inactive_exit_us).
    pub active_enter_us: Option<u64>,
    /// See [`inactive_exit_us`](Self::inactive_exit_us).
    pub active_exit_us: Option<u64>,
    /// The units by which it can be stopped, or that it stops.
    pub relations: Relations,
}

impl UnitProperties {
    /// Reads the output of [`show_arguments`]' command. Unknown keys are skipped. If a key is
    /// repeated, the first one counts, except for `ExecReload`. The first of several units counts, as
    /// shown for a pattern.
    ///
    /// ```
    /// use forensics_core::duration::Timespan;
    /// use forensics_core::systemd::UnitProperties;
    /// let unit = UnitProperties::parse("LoadState=loaded\nTimeoutStopUSec=1min 30s\nResult=\n");
    /// assert_eq!(unit.stop_timeout(), Some(Timespan::Finite(90_000_000)));
    /// assert_eq!(unit.result, None);
    /// ```
    pub fn parse(output: &str) -> Self {
        let block = output.lines().skip_while(|line| line.is_empty());
        let lines = block.take_while(|line| !line.is_empty());
        let pairs: Vec<_> = lines.filter_map(|line| line.split_once('=')).collect();
        let value = |key| {
            let (_, value) = pairs.iter().find(|(known, _)| *known == key)?;
            Some(*value).filter(|value| !value.is_empty())
        };
        let text = |key| value(key).map(str::to_owned);
        let list = |key| value(key).map(words).unwrap_or_default();
        let switch = |key| match value(key)? {
            "yes" => Some(true),
            "no" => Some(false),
            _ => None,
        };
        let span = |key| duration::parse(value(key)?).ok();
        let time = |key| value(key)?.parse().ok().filter(|&us| us != 0);
        let limit = |key| {
            span(key).filter(|&span| !matches!(span, Timespan::Finite(0) | Timespan::Infinite))
        };
        let relation = |&relation: &Relation| {
            let mut units = list(relation.property());
            units.retain(|unit| unit_name::is_valid(unit));
            (!units.is_empty()).then_some((relation, units))
        };
        let signal = |key| value(key)?.parse().ok().map(Signal::from_raw);
        let pid = |key| value(key)?.parse().ok().filter(|&pid| pid != 0);
        Self {
            id: text("Id"),
            load_state: text("LoadState"),
            active_state: text("ActiveState"),
            sub_state: text("SubState"),
            result: text("Result"),
            transient: switch("Transient"),
            need_daemon_reload: switch("NeedDaemonReload"),
            notify_access: text("NotifyAccess"),
            main_pid: pid("MainPID"),
            control_pid: pid("ControlPID"),
            kill_mode: text("KillMode"),
            send_sigkill: switch("SendSIGKILL"),
            timeout_stop: span("TimeoutStopUSec"),
            timeout_abort: span("TimeoutAbortUSec"),
            state_change_us: time("StateChangeTimestampMonotonic"),
            watchdog: limit("WatchdogUSec"),
            service_type: text("Type"),
            kill_signal: signal("KillSignal"),
            restart_kill_signal: signal("RestartKillSignal"),
            final_kill_signal: signal("FinalKillSignal"),
            reload_signal: signal("ReloadSignal"),
            exec_reload: pairs
                .iter()
                .filter(|(key, _)| *key == "ExecReload")
                .filter_map(|(_, value)| arguments(value))
                .collect(),
            drop_in_paths: list("DropInPaths"),
            runtime_max: limit("RuntimeMaxUSec"),
            stop_when_unneeded: switch("StopWhenUnneeded"),
            inactive_exit_us: time("InactiveExitTimestampMonotonic"),
            active_enter_us: time("ActiveEnterTimestampMonotonic"),
            active_exit_us: time("ActiveExitTimestampMonotonic"),
            relations: Relations(Relation::ALL.iter().filter_map(relation).collect()),
        }
    }

    /// How long systemd waits between SIGTERM and SIGKILL. `None` if systemd does not report it, or
    /// if the unit is not loaded and systemd reports its default.
    pub fn stop_timeout(&self) -> Option<Timespan> {
        self.timeout_stop.filter(|_| self.load_state.as_deref() == Some("loaded"))
    }

    /// The timer of systemd that runs while it stops the unit. `None` if it is not stopping it.
    ///
    /// This was observed with systemd 252: each state of a stop starts its own timer. While
    /// `ExecStop=` runs, its end leads to SIGTERM and to another full stop timeout. A
    /// `daemon-reload` in the middle changes the length of the timer, but not its start.
    pub fn stop_timer(&self) -> Option<StopTimer> {
        if self.active_state.as_deref() != Some("deactivating") {
            return None;
        }
        let timeout = self.stop_timeout()?;
        let (timeout, kills) = match self.sub_state.as_deref()? {
            "stop" | "stop-post" => (timeout, false),
            "stop-watchdog" | "final-watchdog" => (self.timeout_abort.unwrap_or(timeout), true),
            _ => (timeout, true),
        };
        Some(StopTimer { timeout, since_us: self.state_change_us, kills })
    }

    /// Whether the unit has become active since it was last started.
    pub(super) fn has_been_active(&self) -> bool {
        self.active_enter_us.is_some_and(|us| us >= self.inactive_exit_us.unwrap_or(0))
    }

    /// Whether the unit's main process has ended. A service with `Type=forking` can have none that systemd
    /// knows, and a scope never has one.
    pub(super) fn has_lost_main(&self) -> bool {
        let kind = self.service_type.as_deref();
        self.main_pid.is_none() && kind.is_some_and(|kind| kind != "forking")
    }

    /// When systemd began to stop the unit, in microseconds of `CLOCK_MONOTONIC`.
    pub(super) fn stop_began_us(&self) -> Option<u64> {
        let exit = self.active_exit_us.filter(|_| self.has_been_active());
        exit.filter(|&us| us >= self.active_enter_us.unwrap_or(0)).or(self.state_change_us)
    }

    /// The drop-ins that are read after the `override.conf` of `systemctl edit`, and so override
    /// it.
    pub fn late_drop_ins(&self) -> impl Iterator<Item = &str> {
        let is_late = |path: &&str| path.rsplit('/').next() > Some("override.conf");
        self.drop_in_paths.iter().map(String::as_str).filter(is_late)
    }

    /// Whether systemd accepts `sd_notify(3)` messages from the process `pid` of this service.
    /// `false` if that is not known.
    pub fn takes_notifications_of(&self, pid: u32) -> bool {
        match self.notify_access.as_deref() {
            Some("all") => true,
            // `exec` means the main process and those of ExecStop= and similar settings.
            Some("main" | "exec") => self.main_pid == Some(pid),
            _ => false,
        }
    }
}

/// A timer that systemd has started for the stop of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopTimer {
    /// How long it runs.
    pub timeout: Timespan,
    /// When it was started, in microseconds of `CLOCK_MONOTONIC`, if systemd reports it.
    pub since_us: Option<u64>,
    /// Whether SIGKILL follows at its end. Otherwise it limits a command, `ExecStop=` or
    /// `ExecStopPost=`, and the unit fails if the command takes longer.
    pub kills: bool,
}

/// The arguments in `{ path=/bin/kill ; argv[]=/bin/kill -HUP 42 ; ignore_errors=no ; … }`.
fn arguments(command: &str) -> Option<String> {
    let (_, rest) = command.split_once(" argv[]=")?;
    // An argument may contain the separator.
    rest.rsplit_once(" ; ignore_errors=").map(|(arguments, _)| arguments.to_owned())
}

/// The words of a list. Some are in double quotes, with `\` before special characters of a shell
/// (`shell_maybe_quote()`).
fn words(list: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    let mut chars = list.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            '\\' => word.get_or_insert_default().extend(chars.next()),
            ' ' if !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000;

    /// The output of systemd 252, without the properties that are not requested.
    const MIXED: &str = "\
Type=simple
NotifyAccess=none
MainPID=4100
ControlPID=0
TimeoutStopUSec=1min 30s
TimeoutAbortUSec=1min 30s
WatchdogUSec=0
Result=success
KillMode=mixed
KillSignal=15
RestartKillSignal=2
FinalKillSignal=9
SendSIGKILL=yes
ExecReload={ path=/bin/kill ; argv[]=/bin/kill -HUP $MAINPID ; ignore_errors=no ; start_time=[n/a] ; \
stop_time=[n/a] ; pid=0 ; code=(null) ; status=0/0 }
ExecReload={ path=/bin/sh ; argv[]=/bin/sh -c a ; ignore_errors= ; ignore_errors=yes ; \
start_time=[n/a] ; stop_time=[n/a] ; pid=0 ; code=(null) ; status=0/0 }
Id=aligned.service
LoadState=loaded
ActiveState=deactivating
SubState=stop-sigterm
StateChangeTimestampMonotonic=791330613
FragmentPath=/etc/systemd/system/aligned.service
DropInPaths=/etc/systemd/system/aligned.service.d/override.conf \
\"/etc/systemd/system/aligned.service.d/with space.conf\"
Job=357
RuntimeMaxUSec=infinity
StopWhenUnneeded=no
InactiveExitTimestampMonotonic=791230001
ActiveEnterTimestampMonotonic=791230002
ActiveExitTimestampMonotonic=791330612
Requires=system.slice sysinit.target
Conflicts=shutdown.target
ConflictedBy=rescue.service other.service
NeedDaemonReload=yes
Transient=no
";

    #[test]
    fn all_properties_of_a_real_service_are_read() {
        let some = |text: &str| Some(text.to_owned());
        let related = |relation, units: &[&str]| {
            (relation, units.iter().map(|&unit| unit.to_owned()).collect())
        };
        let expected = UnitProperties {
            id: some("aligned.service"),
            load_state: some("loaded"),
            active_state: some("deactivating"),
            sub_state: some("stop-sigterm"),
            result: some("success"),
            transient: Some(false),
            need_daemon_reload: Some(true),
            notify_access: some("none"),
            main_pid: Some(4100),
            control_pid: None,
            kill_mode: some("mixed"),
            send_sigkill: Some(true),
            timeout_stop: Some(Timespan::Finite(90 * SECOND)),
            timeout_abort: Some(Timespan::Finite(90 * SECOND)),
            state_change_us: Some(791_330_613),
            watchdog: None,
            service_type: some("simple"),
            kill_signal: Some(Signal::TERM),
            restart_kill_signal: Some(Signal::INT),
            final_kill_signal: Some(Signal::from_raw(9)),
            reload_signal: None,
            exec_reload: vec![
                "/bin/kill -HUP $MAINPID".to_owned(),
                "/bin/sh -c a ; ignore_errors=".to_owned(),
            ],
            drop_in_paths: vec![
                "/etc/systemd/system/aligned.service.d/override.conf".to_owned(),
                "/etc/systemd/system/aligned.service.d/with space.conf".to_owned(),
            ],
            runtime_max: None,
            stop_when_unneeded: Some(false),
            inactive_exit_us: Some(791_230_001),
            active_enter_us: Some(791_230_002),
            active_exit_us: Some(791_330_612),
            relations: Relations(vec![
                related(Relation::Requires, &["system.slice", "sysinit.target"]),
                related(Relation::Conflicts, &["shutdown.target"]),
                related(Relation::ConflictedBy, &["rescue.service", "other.service"]),
            ]),
        };
        assert_eq!(UnitProperties::parse(MIXED), expected);
    }

    #[test]
    fn stop_timeouts_of_real_units_are_read_if_the_unit_is_loaded() {
        // TimeoutStopUSec and LoadState as systemd 252 showed them, and a description of the unit.
        let cases = [
            ("3s", "loaded", Some(Timespan::Finite(3 * SECOND)), "TimeoutStopSec=3"),
            ("infinity", "loaded", Some(Timespan::Infinite), "TimeoutStopSec=infinity"),
            ("infinity", "loaded", Some(Timespan::Infinite), "TimeoutStopSec=0 in a file"),
            ("0", "loaded", Some(Timespan::Finite(0)), "systemd-run -p TimeoutStopSec=0"),
            (
                "1min 30.500000s",
                "loaded",
                Some(Timespan::Finite(90_500_000)),
                "tpl@1, TimeoutStopSec=90.5",
            ),
            (
                "1min 30s",
                "loaded",
                Some(Timespan::Finite(90 * SECOND)),
                "TimeoutStopSec=5mins, ignored",
            ),
            (
                "7s",
                "loaded",
                Some(Timespan::Finite(7 * SECOND)),
                "systemd-run --scope -p TimeoutStopSec=7",
            ),
            ("5min", "bad-setting", None, "no ExecStart="),
            ("1min 30s", "not-found", None, "no such unit"),
            ("1min 30s", "masked", None, "masked"),
            ("soon", "loaded", None, "made up"),
            ("", "loaded", None, "made up"),
        ];
        for (shown, load_state, expected, unit) in cases {
            let output = format!("TimeoutStopUSec={shown}\nLoadState={load_state}\n");
            assert_eq!(UnitProperties::parse(&output).stop_timeout(), expected, "{unit}");
        }
        // system.slice has no stop timeout at all.
        assert_eq!(UnitProperties::parse("LoadState=loaded\nTransient=no\n").stop_timeout(), None);
        assert_eq!(UnitProperties::parse("TimeoutStopUSec=3s\n").stop_timeout(), None);
    }

    #[test]
    fn each_state_of_a_stop_has_its_timer() {
        // As observed with systemd 252: ActiveState, SubState, and the timer's length and effect.
        let cases = [
            ("active", "running", None),
            ("activating", "start", None),
            ("failed", "failed", None),
            ("deactivating", "stop", Some((9, false))),
            ("deactivating", "stop-sigterm", Some((9, true))),
            ("deactivating", "stop-sigkill", Some((9, true))),
            ("deactivating", "stop-post", Some((9, false))),
            ("deactivating", "final-sigterm", Some((9, true))),
            ("deactivating", "stop-watchdog", Some((4, true))),
            ("deactivating", "final-watchdog", Some((4, true))),
        ];
        for (active, sub, expected) in cases {
            let show = format!(
                "LoadState=loaded\nActiveState={active}\nSubState={sub}\nTimeoutStopUSec=9s\n\
                 TimeoutAbortUSec=4s\nStateChangeTimestampMonotonic=17\n"
            );
            let expected = expected.map(|(seconds, kills)| StopTimer {
                timeout: Timespan::Finite(seconds * SECOND),
                since_us: Some(17),
                kills,
            });
            assert_eq!(UnitProperties::parse(&show).stop_timer(), expected, "{active} {sub}");
        }
        let bare = "LoadState=loaded\nActiveState=deactivating\nSubState=stop-watchdog\n\
                    TimeoutStopUSec=9s\nStateChangeTimestampMonotonic=0\n";
        let timeout = Timespan::Finite(9 * SECOND);
        let expected = StopTimer { timeout, since_us: None, kills: true };
        assert_eq!(UnitProperties::parse(bare).stop_timer(), Some(expected));
    }

    #[test]
    fn messages_are_accepted_from_the_main_process_or_from_all() {
        let cases = [
            ("none", false, false),
            ("main", true, false),
            ("exec", true, false),
            ("all", true, true),
        ];
        for (access, main, other) in cases {
            let unit = UnitProperties::parse(&format!("NotifyAccess={access}\nMainPID=4100"));
            let taken = [4100, 4101].map(|pid| unit.takes_notifications_of(pid));
            assert_eq!(taken, [main, other], "{access}");
        }
        let unit = UnitProperties::parse("NotifyAccess=main\nMainPID=0");
        assert!(!unit.takes_notifications_of(0));
    }

    #[test]
    fn a_watchdog_counts_only_if_it_is_effective() {
        // As systemd 252 showed it: running with a watchdog, running without, not running with one.
        for (shown, expected) in
            [("3min", Some(Timespan::Finite(180 * SECOND))), ("0", None), ("infinity", None)]
        {
            let unit = UnitProperties::parse(&format!("WatchdogUSec={shown}"));
            assert_eq!(unit.watchdog, expected, "{shown}");
        }
    }

    #[test]
    fn invalid_lines_are_skipped() {
        let read = UnitProperties::parse;
        assert_eq!(read(""), UnitProperties::default());
        assert_eq!(read("\n\nno equals sign\nId=a.service\n").id.as_deref(), Some("a.service"));
        assert_eq!(read("Result=a=b=").result.as_deref(), Some("a=b="));
        assert_eq!(read("Id=a.service\nId=b.service").id.as_deref(), Some("a.service"));
        assert_eq!(read("Id=a.service\n\nId=b.service\nResult=x").result, None);
        assert_eq!(read("SendSIGKILL=maybe\nMainPID=-1\nId=").id, None);
        assert_eq!(read("SendSIGKILL=maybe\nMainPID=-1\nId="), UnitProperties::default());
    }

    #[test]
    fn lists_are_split_as_systemd_joins_them() {
        let cases = [
            ("", &[][..]),
            ("/a /b", &["/a", "/b"]),
            (r#""/a b" /c"#, &["/a b", "/c"]),
            // From systemd 252: a drop-in of the unit bs\x2dx.service.
            (r#""/etc/bs\\x2dx.service.d/o.conf""#, &[r"/etc/bs\x2dx.service.d/o.conf"]),
            (r#""say \"hi\"" """#, &[r#"say "hi""#, ""]),
            (r#""open"#, &["open"]),
            (r"end\", &["end"]),
        ];
        for (list, expected) in cases {
            assert_eq!(words(list), expected, "{list}");
        }
    }

    #[test]
    fn every_requested_property_is_read() {
        let samples = BTreeMap::from([
            ("MainPID", "1"),
            ("ControlPID", "1"),
            ("Transient", "yes"),
            ("NeedDaemonReload", "yes"),
            ("SendSIGKILL", "yes"),
            ("TimeoutStopUSec", "1s"),
            ("TimeoutAbortUSec", "1s"),
            ("StateChangeTimestampMonotonic", "1"),
            ("WatchdogUSec", "1s"),
            ("KillSignal", "15"),
            ("RestartKillSignal", "15"),
            ("FinalKillSignal", "9"),
            ("ReloadSignal", "1"),
            ("RuntimeMaxUSec", "1s"),
            ("StopWhenUnneeded", "yes"),
            ("InactiveExitTimestampMonotonic", "1"),
            ("ActiveEnterTimestampMonotonic", "1"),
            ("ActiveExitTimestampMonotonic", "1"),
            ("ExecReload", "{ path=a ; argv[]=a ; ignore_errors=no ; pid=0 }"),
        ]);
        let relations = Relation::ALL.iter().map(|relation| (relation.property(), "a.service"));
        let plain = PROPERTIES.split(',');
        let plain = plain.map(|property| (property, *samples.get(property).unwrap_or(&"x")));
        for (property, sample) in plain.chain(relations) {
            let line = format!("{property}={sample}");
            assert_ne!(UnitProperties::parse(&line), UnitProperties::default(), "{line}");
        }
        let field_count = serde_json::to_value(UnitProperties::default()).unwrap();
        // All relations are in one field.
        assert_eq!(PROPERTIES.split(',').count() + 1, field_count.as_object().unwrap().len());
    }

    #[test]
    fn the_manager_is_named_and_the_unit_is_never_read_as_an_option() {
        let system = show_arguments(Manager::System, "-dash.service");
        assert_eq!(system[..3], ["--system", "--no-pager", "show"]);
        assert_eq!(system[4..], ["--", "-dash.service"]);
        assert!(system[3].starts_with("--property=Id,") && system[3].ends_with(",UpheldBy"));
        assert_eq!(show_arguments(Manager::User { uid: 7 }, "a")[0], "--user");
    }

    proptest! {
        #[test]
        fn reading_any_output_never_panics(output in "((Job|DropInPaths|TimeoutStopUSec|\\PC)?=?\\PC{0,8}\n?){0,8}") {
            let _ = UnitProperties::parse(&output);
        }
    }
}
