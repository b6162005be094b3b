//! Tables of what systemd reports, and the explanation.

use proptest::prelude::*;

use super::*;
use crate::capture::{SiCode, Signal};
use crate::cause::CauseDecision;
use crate::context::{Sender, StartupInfo, Trigger};
use crate::process::ProcessSummary;

const UNIT: &str = "gateway.service";

/// A stop by a signal from the process `pid`, with that cause.
fn context(cause: Cause, pid: Option<i32>) -> ShutdownContext {
    let trigger = Trigger::Signal { signal: Signal::TERM };
    let mut context = ShutdownContext::start(&StartupInfo::collect(), trigger, None);
    context.sender = pid.map(|pid| Sender::new(ProcessSummary::unknown(pid), SiCode::User));
    context.decision = Some(CauseDecision { cause, evidence: String::new() });
    context
}

fn by_manager() -> ShutdownContext {
    context(Cause::Systemd, Some(1))
}

/// The output of `systemctl show` for our unit, which began to stop at 500 s.
fn shown(state: &str, more: &str) -> UnitProperties {
    let (active, sub) = state.split_once('/').unwrap();
    // An empty line would end the unit.
    let more = more.trim_end();
    UnitProperties::parse(&format!(
        "{more}\nActiveState={active}\nSubState={sub}\nResult=success\nMainPID=4100\n\
         InactiveExitTimestampMonotonic=100000000\nActiveEnterTimestampMonotonic=100000001\n\
         ActiveExitTimestampMonotonic=500000000\nStateChangeTimestampMonotonic=500000000\n"
    ))
}

fn related(name: &str, rest: &str) -> String {
    format!("Id={name}\n{rest}\n\n")
}

const STOP: &str = "deactivating/stop-sigterm";

/// The explanation, as `REASON CAUSE UNITS`.
fn explained(
    context: &ShutdownContext,
    properties: &UnitProperties,
    jobs: &str,
    related: &str,
) -> String {
    let unit = CgroupUnit { unit: UNIT.to_owned(), manager: Manager::System };
    let facts = StopFacts {
        unit: &unit,
        properties,
        jobs,
        related,
        system_jobs: None,
        manager_stops: false,
        is_booting: false,
    };
    match explain_stop(context, &facts) {
        Some(why) => [why.reason, why.cause, why.units.join(",")].join(" ").trim_end().to_owned(),
        None => "none".to_owned(),
    }
}

#[test]
fn each_reason_is_recognized_by_what_systemd_reports_about_the_unit() {
    let stop = "812 gateway.service stop running\n";
    let restart = "812 gateway.service restart running\n";
    let down = |target: &str| {
        format!(
            "900 gateway.service stop running\n901 shutdown.target start waiting\n902 {target} start waiting\n"
        )
    };
    let start = "812 gateway.service start running\n";
    let never = "Result=timeout\nActiveEnterTimestampMonotonic=0\n";
    let cases = [
        ("active/running", "", "", "signal systemd"),
        ("active/running", "", "7 other.service stop running\n", "signal systemd"),
        ("activating/start", "", start, "signal systemd"),
        (
            "reloading/reload-signal",
            "Type=notify-reload",
            "8 gateway.service reload running",
            "reload_job systemd",
        ),
        (
            "active/running",
            "Type=notify-reload",
            "8 gateway.service reload waiting",
            "reload_job systemd",
        ),
        (STOP, "", stop, "stop_job systemd"),
        // The unit is still active in the first moment.
        ("active/running", "", stop, "stop_job systemd"),
        (STOP, "", restart, "restart_job systemd"),
        (STOP, "", &down("reboot.target"), "reboot reboot"),
        (STOP, "", &down("poweroff.target"), "poweroff reboot"),
        (STOP, "", &down("halt.target"), "halt reboot"),
        (STOP, "", &down("kexec.target"), "kexec reboot"),
        (STOP, "", &down("soft-reboot.target"), "soft_reboot reboot"),
        (STOP, "", &down("exit.target"), "exit reboot"),
        (STOP, "", &down("other.target"), "shutdown reboot"),
        ("active/running", "", "902 reboot.target start waiting", "signal systemd"),
        (STOP, "Result=timeout\nRuntimeMaxUSec=2s", "", "runtime_max systemd"),
        (STOP, "Result=timeout\nRuntimeMaxUSec=infinity", "", "unknown systemd"),
        (STOP, never, start, "start_timeout systemd"),
        (STOP, never, "", "start_timeout systemd"),
        ("deactivating/stop-watchdog", never, start, "start_timeout systemd"),
        // A start that waits for the end of this stop is not the reason for it.
        (
            STOP,
            "Result=timeout\nRuntimeMaxUSec=2s",
            "812 gateway.service start waiting\n",
            "runtime_max systemd",
        ),
        (STOP, "", "812 gateway.service start waiting\n", "unknown systemd"),
        // Restarted directly, so that the times are those of the run before.
        (STOP, "Result=timeout\nRuntimeMaxUSec=2s", start, "start_timeout systemd"),
        (STOP, "Result=timeout", stop, "stop_job systemd"),
        ("deactivating/stop-watchdog", "Result=watchdog", "", "watchdog watchdog"),
        (STOP, "Result=oom-kill", "", "oom_policy systemd"),
        (STOP, "MainPID=0\nType=simple", "", "main_exited systemd"),
        (STOP, "MainPID=0\nType=forking", "", "unknown systemd"),
        (STOP, "MainPID=0", "", "unknown systemd"),
        (STOP, "Result=exit-code", "No jobs running.\n", "unknown systemd"),
        (STOP, "", "No jobs running.\n", "unknown systemd"),
        ("inactive/dead", "", "", "unknown systemd"),
    ];
    for (state, more, jobs, expected) in cases {
        let properties = shown(state, more);
        assert_eq!(
            explained(&by_manager(), &properties, jobs, ""),
            expected,
            "{state} {more} {jobs}"
        );
    }
    assert_eq!(explained(&by_manager(), &UnitProperties::default(), stop, ""), "none");
}

#[test]
fn another_unit_is_named_only_if_the_stop_can_follow_from_it() {
    let stop = "812 gateway.service stop running\n";
    let with = |other: &str| format!("{stop}{other}\n");
    // Ended 10 ms before, 10 s before, or never.
    let just = "ActiveState=inactive\nActiveExitTimestampMonotonic=499990000";
    let crashed = "ActiveState=failed\nResult=signal\nActiveExitTimestampMonotonic=499990000";
    let long_ago = "ActiveState=inactive\nActiveExitTimestampMonotonic=490000000";
    let slow = "ActiveState=inactive\nActiveExitTimestampMonotonic=480000000\n\
                InactiveEnterTimestampMonotonic=499990000";
    let active = "ActiveState=active";
    let started = "ActiveState=activating\nInactiveExitTimestampMonotonic=499999000";
    let started_target =
        "ActiveState=active\nAllowIsolate=yes\nActiveEnterTimestampMonotonic=499999000";
    let target = &format!(
        "{started_target}\n\nId=multi-user.target\nActiveState=inactive\n\
         ActiveExitTimestampMonotonic=499999000"
    );
    let no_isolate = "ActiveState=active\nAllowIsolate=no\nActiveEnterTimestampMonotonic=499999000";
    let old = "ActiveState=active\nAllowIsolate=yes\nActiveEnterTimestampMonotonic=400000000";
    let needing = &format!("{target}\n\nId=db.service\nActiveState=active");
    let (db, named) = ("db.service", "dependency systemd db.service");
    let cases = [
        ("BindsTo=db.service", with("811 db.service stop running"), db, active, named),
        ("PartOf=db.service", with("811 db.service stop waiting"), db, active, named),
        ("Requires=db.service", with(""), db, just, named),
        ("Requisite=db.service", with(""), db, slow, named),
        ("StopPropagatedFrom=db.service", with(""), db, just, named),
        // A crash stops our unit only with BindsTo=.
        ("BindsTo=db.service", with(""), db, crashed, named),
        ("Requires=db.service", with(""), db, crashed, "stop_job systemd"),
        ("PartOf=db.service", with(""), db, crashed, "stop_job systemd"),
        // A crash that was followed by a restart.
        ("BindsTo=db.service", with("814 db.service start running"), db, just, "stop_job systemd"),
        ("PartOf=db.service", with(""), db, long_ago, "stop_job systemd"),
        ("BindsTo=db.service", with(""), db, active, "stop_job systemd"),
        // Its job is younger than ours: it follows from ours, or has nothing to do with it.
        ("PartOf=db.service", with("813 db.service stop running"), db, active, "stop_job systemd"),
        // Each stops with the other, and no job shows which came first.
        ("BindsTo=db.service\nConsistsOf=db.service", with(""), db, just, "stop_job systemd"),
        (
            "BindsTo=db.service\nBoundBy=db.service",
            with("811 db.service stop running"),
            db,
            just,
            named,
        ),
        // In no relation, or only in one that stops nothing.
        ("", with("811 db.service stop running"), db, just, "stop_job systemd"),
        (
            "RequiredBy=db.service",
            with("811 db.service stop running"),
            db,
            just,
            "stop_job systemd",
        ),
        ("WantedBy=db.service", with("811 db.service stop running"), db, just, "stop_job systemd"),
        ("Conflicts=db.service", with("811 db.service start waiting"), db, active, named),
        ("ConflictedBy=db.service", with(""), db, started, named),
        ("Conflicts=db.service", with("811 db.service stop running"), db, just, "stop_job systemd"),
        ("", with("811 db.service start running"), db, started, "stop_job systemd"),
        (
            "PartOf=db.service",
            "812 gateway.service restart running\n811 db.service start running".to_owned(),
            db,
            just,
            "restart_job systemd db.service",
        ),
        (
            "PartOf=db.service",
            "812 gateway.service restart running\n811 db.service restart waiting".to_owned(),
            db,
            active,
            "restart_job systemd db.service",
        ),
        (
            "StopWhenUnneeded=yes\nWantedBy=db.service",
            with(""),
            db,
            just,
            "stop_when_unneeded systemd",
        ),
        ("StopWhenUnneeded=yes\nWantedBy=db.service", with(""), db, active, "stop_job systemd"),
        ("StopWhenUnneeded=no\nWantedBy=db.service", with(""), db, just, "stop_job systemd"),
        (
            "",
            with("811 other.target start waiting"),
            "other.target",
            old,
            "isolate systemd other.target",
        ),
        ("", with("813 other.target start waiting"), "other.target", old, "stop_job systemd"),
        ("", with(""), "other.target", target, "isolate systemd other.target"),
        // It was only started: no other target has stopped.
        ("", with(""), "other.target", started_target, "stop_job systemd"),
        ("", with(""), "other.target", no_isolate, "stop_job systemd"),
        ("", with(""), "other.target", old, "stop_job systemd"),
        // An isolate does not stop a unit that was started after the target, or that is needed.
        (
            "InactiveExitTimestampMonotonic=499999500\nActiveEnterTimestampMonotonic=499999600",
            with(""),
            "other.target",
            target,
            "stop_job systemd",
        ),
        ("WantedBy=other.target", with(""), "other.target", target, "stop_job systemd"),
        (
            "WantedBy=other.target",
            with("811 other.target start waiting"),
            "other.target",
            old,
            "stop_job systemd",
        ),
        ("RequiredBy=db.service", with(""), "other.target", needing, "stop_job systemd"),
        (
            "RequiredBy=db.service",
            with("811 db.service stop running"),
            "other.target",
            needing,
            "isolate systemd other.target",
        ),
        // An isolate also stops what our unit depends on.
        (
            "Requires=db.service",
            with("810 other.target start waiting\n811 db.service stop running"),
            "other.target",
            old,
            "isolate systemd other.target",
        ),
        // A name that is not valid is never shown.
        (
            "BindsTo=\u{1b}[2J.service",
            with("811 \u{1b}[2J.service stop waiting"),
            db,
            just,
            "stop_job systemd",
        ),
    ];
    for (more, jobs, name, state, expected) in cases {
        let explained = explained(&by_manager(), &shown(STOP, more), &jobs, &related(name, state));
        assert_eq!(explained, expected, "{more} {jobs} {name} {state}");
    }
}

#[test]
fn the_end_of_a_user_manager_is_no_reboot() {
    let exit = "5 gateway.service stop running\n6 exit.target start waiting\n";
    let stop = "5 gateway.service stop running\n";
    let reboot = "5 user@7.service stop running\n6 reboot.target start waiting\n";
    let cases = [
        (exit, Some("No jobs running."), false, "logout", "the system is not going down"),
        (exit, None, false, "logout", "whether the system is going down is not known"),
        (exit, Some(reboot), false, "reboot", "going down to reboot.target"),
        (stop, Some(stop), true, "logout", "enable-linger"),
        (stop, Some(stop), false, "stop_job", "systemctl stop"),
    ];
    for (jobs, system_jobs, manager_stops, reason, detail) in cases {
        let unit = CgroupUnit { unit: UNIT.to_owned(), manager: Manager::User { uid: 7 } };
        let properties = &shown(STOP, "");
        let (related, is_booting) = ("", false);
        let facts = StopFacts {
            unit: &unit,
            properties,
            jobs,
            related,
            system_jobs,
            manager_stops,
            is_booting,
        };
        let why = explain_stop(&by_manager(), &facts).unwrap();
        assert_eq!(why.reason, reason);
        assert!(why.detail.contains(detail), "{why:?}");
    }
}

#[test]
fn the_jobs_of_the_boot_are_no_isolate() {
    let unit = CgroupUnit { unit: UNIT.to_owned(), manager: Manager::System };
    let facts = StopFacts {
        unit: &unit,
        properties: &shown(STOP, ""),
        jobs: "812 gateway.service stop running\n1 multi-user.target start waiting\n",
        related: &related("multi-user.target", "AllowIsolate=yes"),
        system_jobs: None,
        manager_stops: false,
        is_booting: true,
    };
    assert_eq!(explain_stop(&by_manager(), &facts).unwrap().reason, "stop_job");
}

#[test]
fn what_systemd_shows_never_contradicts_what_the_kernel_said_about_the_sender() {
    let stop = "812 gateway.service stop running\n";
    let down = "812 gateway.service stop running\n9 reboot.target start waiting\n";
    let requested = {
        let trigger = Trigger::Request { reason: "by HTTP".to_owned() };
        ShutdownContext::start(&StartupInfo::collect(), trigger, None)
    };
    let gone = context(Cause::Unknown, Some(222));
    let outside = context(Cause::Unknown, Some(0));
    let not_seen = context(Cause::Unknown, None);
    let by_kill = context(Cause::Process, Some(222));
    let by_person = context(Cause::Operator, Some(222));
    let cases = [
        (&gone, "active/running", "", "none"),
        (&gone, STOP, stop, "stop_job unknown"),
        (&gone, STOP, down, "reboot unknown"),
        (&by_kill, "active/running", "", "none"),
        (&by_kill, STOP, stop, "stop_job process"),
        (&by_kill, "deactivating/stop-watchdog", "", "unknown process"),
        (&by_person, STOP, down, "reboot operator"),
        (&requested, STOP, stop, "stop_job requested"),
        (&requested, "active/running", "", "none"),
        // systemd may be the sender, because the kernel has not said otherwise.
        (&outside, STOP, stop, "stop_job systemd"),
        (&outside, "active/running", "", "unknown unknown"),
        (&not_seen, STOP, stop, "stop_job systemd"),
        (&not_seen, "active/running", "", "unknown unknown"),
    ];
    for (context, state, jobs, expected) in cases {
        let explained = explained(context, &shown(state, ""), jobs, "");
        assert_eq!(explained, expected, "{:?} {state} {jobs}", context.sender);
    }
    // A stop that systemd begins 1.5 s after the signal is not the reason for it.
    let facts = StopFacts {
        unit: &CgroupUnit { unit: UNIT.to_owned(), manager: Manager::System },
        properties: &shown(STOP, ""),
        jobs: stop,
        related: "",
        system_jobs: None,
        manager_stops: false,
        is_booting: false,
    };
    for (pid, mono_us, is_later) in [
        (222, 498_500_000, true),
        (222, 500_000_100, false),
        (222, 499_990_000, false),
        (1, 498_500_000, false),
    ] {
        let cause = if pid == 1 { Cause::Systemd } else { Cause::Process };
        let mut context = context(cause, Some(pid));
        context.mono_us = mono_us;
        let why = explain_stop(&context, &facts).unwrap();
        let later = "1.5s after this stop had begun, systemd stops the unit, too: a stop job";
        assert_eq!(why.detail.starts_with(later), is_later, "{why:?}");
    }
    assert!(explain_final_kill(&gone).is_none());
    let why = explain_final_kill(&context(Cause::Reboot, Some(1))).unwrap();
    assert_eq!((why.reason.as_str(), why.cause.as_str()), ("final_kill", "reboot"));
}

proptest! {
    /// Random answers of systemd: no text claims more than they contain.
    #[test]
    fn no_explanation_claims_more_than_its_facts_contain(
        state in prop_oneof![Just("active/running"), Just("activating/start"), Just(STOP),
            Just("deactivating/stop-watchdog"), Just("reloading/reload")],
        result in "success|timeout|watchdog|oom-kill|exit-code|\\PC{0,5}",
        relations in proptest::collection::vec(("BindsTo|PartOf|Conflicts|RequiredBy|WantedBy", "[ab]\\.service"), 0..4),
        switches in "(RuntimeMaxUSec=2s\n|StopWhenUnneeded=yes\n|MainPID=0\nType=exec\n|Type=notify-reload\n){0,3}",
        jobs in proptest::collection::vec((1..9_u32, "gateway\\.service|[abc]\\.service|reboot\\.target|c\\.target",
            "start|stop|restart|reload"), 0..4),
        others in proptest::collection::vec(("[abc]\\.(service|target)", 499_000_000..501_000_000_u64, any::<bool>()), 0..4),
        sender in prop_oneof![Just((Cause::Systemd, Some(1))), Just((Cause::Unknown, Some(222))),
            Just((Cause::Unknown, Some(0))), Just((Cause::Process, Some(222)))],
    ) {
        let more: String = relations.iter().map(|(relation, unit)| format!("{relation}={unit}\n")).collect();
        let properties = shown(state, &format!("Result={result}\n{switches}{more}"));
        let jobs: String = jobs.iter().map(|(id, unit, kind)| format!("{id} {unit} {kind} running\n")).collect();
        let others: String = others.iter().map(|(name, us, isolate)| {
            let isolate = if *isolate { "yes" } else { "no" };
            related(name, &format!("ActiveState=active\nAllowIsolate={isolate}\n\
                ActiveEnterTimestampMonotonic={us}\nActiveExitTimestampMonotonic={us}\nInactiveExitTimestampMonotonic={us}"))
        }).collect();
        let unit = CgroupUnit { unit: UNIT.to_owned(), manager: Manager::System };
        let facts = StopFacts { unit: &unit, properties: &properties, jobs: &jobs, related: &others,
            system_jobs: None, manager_stops: false, is_booting: false };
        let context = context(sender.0, sender.1);
        let Some(why) = explain_stop(&context, &facts) else { return Ok(()) };
        // What a text may say, and what must be in the facts for that.
        let has_job = |kind: &str| jobs.contains(&format!("{UNIT} {kind} "));
        let claims = [
            ("a stop job", has_job("stop")),
            ("a restart job", has_job("restart")),
            ("a reload job", has_job("reload")),
            ("RuntimeMaxSec=", switches.contains("RuntimeMax") && result == "timeout"),
            ("TimeoutStartSec=", result == "timeout"),
            ("watchdog", result == "watchdog"),
            ("OOM", result == "oom-kill"),
            ("main process has ended", switches.contains("MainPID=0")),
            ("StopWhenUnneeded=", switches.contains("StopWhenUnneeded")),
            ("going down", jobs.contains("reboot.target")),
            ("isolate", others.contains("AllowIsolate=yes")),
            ("systemctl kill", sender.0 == Cause::Systemd && !state.starts_with("deactivating")),
        ];
        for (claim, holds) in claims {
            prop_assert!(holds || !why.detail.contains(claim), "{:?}", why);
        }
        for name in ["a.service", "b.service", "c.service", "a.target", "c.target"] {
            prop_assert!(!why.detail.contains(name) || why.units.iter().any(|unit| unit == name), "{:?}", why);
        }
        let stops_us = |unit: &String| relations.iter().any(|(relation, other)| {
            other == unit && matches!(relation.as_str(), "BindsTo" | "PartOf" | "Conflicts")
        });
        prop_assert!(why.units.iter().all(|unit| unit.ends_with(".target") || stops_us(unit)), "{:?}", why);
        if sender.1 == Some(222) {
            prop_assert_eq!(why.cause, sender.0.to_string());
        }
        prop_assert!(!why.detail.chars().any(char::is_control));
    }
}
