//! Writes and reads one line of a record.

use std::borrow::Cow;

use serde::de::Error;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::few::{Checked, MAX_VALUES};
use super::shorten::{fits, shortened};
use super::{Event, Unknown, Utc, Witness};
use crate::json;

/// The version of the schema that this crate writes and reads completely.
pub const VERSION: u32 = 1;

/// One line: an event and when it was written.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// The version of the schema it was written in.
    pub v: u32,
    /// The wall clock. It may have jumped since the previous line.
    pub ts: Utc,
    /// [`crate::clock::mono_us`]: what durations are computed from.
    pub mono_us: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// The fields that every line has.
#[derive(Deserialize)]
struct Head<'a> {
    v: u32,
    ts: Utc,
    mono_us: u64,
    #[serde(borrow)]
    event: Cow<'a, str>,
}

impl Entry {
    /// Reads a line, with or without its newline. Unknown fields are skipped.
    ///
    /// An unknown event becomes [`Event::Unknown`]. So does a known event from a newer writer whose
    /// fields do not fit. The line is parsed once for each purpose, because parsing it once into a
    /// general value takes up to a hundred times its size in memory.
    ///
    /// # Errors
    /// If it is not a JSON object, is nested too deep, lacks a field that every line has, or is of
    /// this version and lacks a field of its event.
    pub fn parse(line: &[u8]) -> Result<Self, serde_json::Error> {
        let text = str::from_utf8(line).map_err(Error::custom)?;
        // serde also accepts the fields of a struct as a list.
        if !text.trim_start().starts_with('{') {
            return Err(Error::custom("not an object"));
        }
        let count = serde_json::from_str::<Checked>(text)?.0;
        let Head { v, ts, mono_us, event } = serde_json::from_str(text)?;
        if v == 0 {
            return Err(Error::custom("there is no version 0"));
        }
        let unknown = || Event::Unknown(Unknown { event: event.clone().into_owned() });
        let event = match Event::parse(&event, text, count) {
            Ok(event) => event.unwrap_or_else(unknown),
            Err(_) if v > VERSION => unknown(),
            Err(error) => return Err(error),
        };
        Ok(Self { v, ts, mono_us, event })
    }
}

impl Event {
    /// Reads the event of that name from its line of `count` values. `None` if this version does not
    /// know it, or if its lists are too long to be those of a service.
    fn parse(name: &str, line: &str, count: usize) -> Result<Option<Self>, serde_json::Error> {
        use serde_json::from_str;
        Ok(Some(match name {
            "run_started" => Event::RunStarted(from_str(line)?),
            "signal" => Event::Signal(from_str(line)?),
            "explained" if count <= MAX_VALUES => Event::Explained(from_str(line)?),
            "witness" if count <= MAX_VALUES => Event::Witness(Witness::parse(line)?),
            "deadline_moved" => Event::DeadlineMoved(from_str(line)?),
            "phase_started" => Event::PhaseStarted(from_str(line)?),
            "phase_progress" => Event::PhaseProgress(from_str(line)?),
            "phase_finished" => Event::PhaseFinished(from_str(line)?),
            "wedged" => Event::Stalled(from_str(line)?),
            "alive" => Event::Alive,
            "diag" => Event::Diag(from_str(line)?),
            "stopped" => Event::Stopped(from_str(line)?),
            _ => return Ok(None),
        }))
    }
}

impl Witness {
    fn parse(line: &str) -> Result<Self, serde_json::Error> {
        let mut fields: Map<String, Value> = serde_json::from_str(line)?;
        for name in ["v", "ts", "mono_us", "event"] {
            fields.remove(name);
        }
        let source = serde_json::from_value(fields.remove("source").unwrap_or_default())?;
        Ok(Self { source, fields })
    }
}

/// The line for an event, newline included. It is one line with any text, and [`Entry::parse`] can
/// read it back.
pub(super) fn line(ts: Utc, mono_us: u64, event: &Event) -> Result<Vec<u8>, serde_json::Error> {
    let entry = Entry { v: VERSION, ts, mono_us, event: event.clone() };
    let mut line = json::to_vec(&entry)?;
    if !fits(&line) {
        line = shortened(&serde_json::to_value(&entry)?)?;
    }
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::event::*;
    use super::super::phase::*;
    use super::*;
    use crate::basis::{Basis, Source};
    use crate::duration::Timespan;

    const TS: &str = "2026-11-23T10:15:00.123456Z";

    /// The line for an event as JSON, without the fields that every line has. Also checks that it
    /// reads back as the same event.
    fn round_trip(event: &Event) -> Value {
        let line = line(TS.parse().unwrap(), 7, event).unwrap();
        assert_eq!(line.iter().filter(|&&byte| byte == b'\n').count(), 1);
        assert_eq!(line.last(), Some(&b'\n'));
        let entry = Entry::parse(&line).unwrap();
        let again = Entry { v: 1, ts: TS.parse().unwrap(), mono_us: 7, event: event.clone() };
        assert_eq!(entry, again);
        let mut value: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(serde_json::to_value(&entry).unwrap(), value);
        let fields = value.as_object_mut().unwrap();
        for (name, expected) in [("v", json!(1)), ("ts", json!(TS)), ("mono_us", json!(7))] {
            assert_eq!(fields.remove(name), Some(expected));
        }
        value
    }

    fn map(value: Value) -> Map<String, Value> {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn every_event_is_written_flat_and_reads_back() {
        let mut start = RunStarted::new("gateway", 4100);
        start.version = "0.1.0".to_owned();
        let mut full = start.clone();
        full.start_time = Some(123);
        full.boot_id = Some("b".to_owned());
        full.exe = Some("/usr/bin/gateway".to_owned());
        full.cmdline = Some("gateway --listen :80".to_owned());
        full.unit = Some("gateway.service".to_owned());
        full.manager = Some("system".to_owned());
        full.stop_timeout_us = Some(Timespan::Finite(3_000_000));
        full.deadline_us = Some(2_700_000);
        full.drain_timeout_us = Some(2_000_000);
        full.oom_kill = Some(0);
        full.cgroup_inode = Some(1260);
        let mut endless = start.clone();
        endless.stop_timeout_us = Some(Timespan::Infinite);
        let mut signal = SignalEvent::new(SignalKind::Signal, 1, "operator");
        signal.signal = Some("SIGTERM".to_owned());
        signal.sender_pid = Some(4242);
        signal.sender_name = Some("kill".to_owned());
        signal.sender_uid = Some(1000);
        signal.line = "signal=SIGTERM cause=operator".to_owned();
        signal.context = json!({ "sender": { "pid": 4242 }, "event": "nested, so no matter" });
        signal.deadline_us = Some(2_700_000);
        let mut started = PhaseStarted::new("telegram", 5);
        started.group = Some("adapters".to_owned());
        (started.timeout_us, started.reserve_us) = (Some(9), Some(4));
        let progress = PhaseProgress::new("drain", map(json!({ "v": 3, "left": [1, null] })), 6);
        let mut finished = PhaseFinished::new("drain", PhaseOutcome::Failed, 8, 13);
        finished.error = Some("two\nlines".to_owned());
        finished.values = map(json!({ "active_at_start": 7 }));
        let mut wedged = Stalled::new(StalledWhat::Runtime, 11, "no task ran");
        wedged.phase = Some("drain".to_owned());
        wedged.threads = json!([{ "tid": 1 }]);
        let mut diag = Diag::new(DiagState::Failed);
        diag.pid = Some(5);
        diag.path = Some("/var/log/d".to_owned());
        diag.error = Some("no such file".to_owned());
        let mut panicked = Stopped::new(ExitKind::Panicked, 1, 17);
        panicked.panic = Some("oh".to_owned());
        panicked.location = Some("src/main.rs:3:5".to_owned());
        panicked.oom_kill = Some(1);
        let unknown = Unknown { event: "moon_phase".to_owned() };
        let cases = [
            (
                Event::RunStarted(start.into()),
                json!({ "event": "run_started", "service": "gateway", "pid": 4100, "version": "0.1.0" }),
            ),
            (
                Event::RunStarted(full.into()),
                json!({ "event": "run_started", "service": "gateway", "pid": 4100, "start_time": 123, "boot_id": "b",
                    "exe": "/usr/bin/gateway", "cmdline": "gateway --listen :80",
                    "unit": "gateway.service", "manager": "system", "stop_timeout_us": 3_000_000,
                    "deadline_us": 2_700_000, "drain_timeout_us": 2_000_000,
                    "version": "0.1.0", "oom_kill": 0, "cgroup_inode": 1260 }),
            ),
            (
                Event::RunStarted(endless.into()),
                json!({ "event": "run_started", "service": "gateway", "pid": 4100, "stop_timeout_us": "infinity",
                    "version": "0.1.0" }),
            ),
            (
                Event::Signal(signal),
                json!({ "event": "signal", "kind": "signal", "signal": "SIGTERM", "ordinal": 1, "sender_pid": 4242,
                    "sender_name": "kill", "sender_uid": 1000, "cause": "operator",
                    "line": "signal=SIGTERM cause=operator",
                    "context": { "sender": { "pid": 4242 }, "event": "nested, so no matter" },
                    "deadline_us": 2_700_000 }),
            ),
            (
                Event::Signal(SignalEvent::new(SignalKind::ServiceEnded, 1, "service_ended")),
                json!({ "event": "signal", "kind": "service_ended", "ordinal": 1, "cause": "service_ended",
                    "line": "" }),
            ),
            (
                Event::DeadlineMoved(DeadlineMoved {
                    deadline_us: Some(3_000_000),
                    stop_timeout_us: Some(Timespan::Infinite),
                }),
                json!({ "event": "deadline_moved", "deadline_us": 3_000_000,
                    "stop_timeout_us": "infinity" }),
            ),
            (
                Event::PhaseStarted(started),
                json!({ "event": "phase_started", "phase": "telegram", "group": "adapters", "timeout_us": 9,
                    "reserve_us": 4, "offset_us": 5 }),
            ),
            (
                Event::PhaseProgress(progress),
                json!({ "event": "phase_progress", "phase": "drain", "values": { "v": 3, "left": [1, null] },
                    "offset_us": 6 }),
            ),
            (
                Event::PhaseFinished(finished),
                json!({ "event": "phase_finished", "phase": "drain", "outcome": "failed", "error": "two\nlines",
                    "took_us": 8, "offset_us": 13, "values": { "active_at_start": 7 } }),
            ),
            (
                Event::Stalled(wedged),
                json!({ "event": "wedged", "what": "runtime", "phase": "drain", "for_us": 11,
                    "detail": "no task ran", "threads": [{ "tid": 1 }] }),
            ),
            (
                Event::Diag(diag),
                json!({ "event": "diag", "state": "failed", "pid": 5, "path": "/var/log/d",
                    "error": "no such file" }),
            ),
            (
                Event::Stopped(panicked),
                json!({ "event": "stopped", "how": "panicked", "exit_code": 1, "total_us": 17, "panic": "oh",
                    "location": "src/main.rs:3:5", "oom_kill": 1 }),
            ),
            (
                Event::Explained(Explained {
                    units: vec!["db.service".to_owned()],
                    ..Explained::new(
                        "dependency",
                        "with db.service",
                        "systemd",
                        Basis::observed(Source::Systemd),
                    )
                }),
                json!({ "event": "explained", "reason": "dependency", "detail": "with db.service",
                    "units": ["db.service"], "cause": "systemd",
                    "basis": { "observed": { "by": "systemd" } } }),
            ),
            (
                Event::Witness(Witness {
                    source: Source::Systemd,
                    fields: map(json!({ "service_result": "timeout", "exit_code": "killed" })),
                }),
                json!({ "event": "witness", "source": "systemd", "service_result": "timeout",
                    "exit_code": "killed" }),
            ),
            (Event::Alive, json!({ "event": "alive" })),
            (Event::Unknown(unknown), json!({ "event": "moon_phase" })),
        ];
        for (event, fields) in cases {
            assert_eq!(round_trip(&event), fields);
        }
    }

    #[test]
    fn additions_of_a_newer_writer_do_not_hide_known_fields() {
        let parse = |text: &str| Entry::parse(text.as_bytes()).unwrap();
        let more = format!(
            r#"{{"v":1,"ts":"{TS}","mono_us":1,"event":"stopped","how":"evaporated","exit_code":0,
            "total_us":1,"mood":{{"deep":[1]}}}}"#
        );
        assert_eq!(parse(&more).event, Event::Stopped(Stopped::new(ExitKind::Other, 0, 1)));
        let version_2 = more.replace(r#""v":1"#, r#""v":2"#);
        let entry = parse(&version_2);
        assert!(entry.v == 2 && matches!(entry.event, Event::Stopped(_)), "{entry:?}");
        let changed = version_2.replace(r#""total_us":1"#, r#""total":"long""#);
        let Event::Unknown(unknown) = parse(&changed).event else { panic!("{changed}") };
        assert_eq!(unknown.event, "stopped");
    }

    #[test]
    fn a_stop_timeout_is_microseconds_or_infinity_in_either_form() {
        let finite = Timespan::Finite(3_000_000);
        let cases = [
            ("3000000", Some(Some(finite))),
            (r#""infinity""#, Some(Some(Timespan::Infinite))),
            ("18446744073709551615", Some(Some(Timespan::Infinite))),
            ("null", Some(None)),
            (r#""3s""#, None),
            ("-1", None),
            ("1.5", None),
        ];
        for (written, expected) in cases {
            let text = format!(
                r#"{{"v":1,"ts":"{TS}","mono_us":1,"event":"run_started","service":"g","pid":1,
                "version":"0","stop_timeout_us":{written}}}"#
            );
            let read = Entry::parse(text.as_bytes()).ok().map(|entry| match entry.event {
                Event::RunStarted(start) => start.stop_timeout_us,
                other => panic!("{other:?}"),
            });
            assert_eq!(read, expected, "{written}");
        }
    }

    #[test]
    fn lines_that_no_writer_writes_are_errors() {
        for text in [
            "".to_owned(),
            "null".to_owned(),
            "[1]".to_owned(),
            "{}".to_owned(),
            format!(r#"{{"v":1,"ts":"{TS}","mono_us":1}}"#),
            format!(r#"{{"v":0,"ts":"{TS}","mono_us":1,"event":"diag","state":"started"}}"#),
            format!(r#"{{"v":1,"ts":"{TS}","mono_us":-1,"event":"diag","state":"started"}}"#),
            r#"{"v":1,"ts":"now","mono_us":1,"event":"diag","state":"started"}"#.to_owned(),
            format!(r#"{{"v":1,"ts":"{TS}","mono_us":1,"event":"diag"}}"#),
            format!(r#"[1,"{TS}",1,"moon_phase"]"#),
            format!(r#"{{"v":1,"ts":"{TS}","mono_us":1,"event":"moon_phase","x":"\ud800"}}"#),
            format!(r#"{{"v":1,"ts":"{TS}","mono_us":1,"event":"moon_phase","x":1e999}}"#),
            format!(
                r#"{{"v":1,"ts":"{TS}","mono_us":1,"event":"moon_phase","x":{}1{}}}"#,
                "[".repeat(200),
                "]".repeat(200)
            ),
            format!(r#"{{"v":1,"ts":"{TS}","mono_us":1,"event":"diag","state":"started"}} x"#),
        ] {
            assert!(Entry::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_of_a_phase_stays_on_its_line_and_reads_back(
            phase in any::<String>(), group in any::<Option<String>>(),
            error in any::<Option<String>>(), key in any::<String>(), value in any::<String>(),
            took in any::<u64>(), offset in any::<u64>(),
        ) {
            let mut finished = PhaseFinished::new(phase, PhaseOutcome::Failed, took, offset);
            finished.group = group;
            finished.error = error;
            finished.values.insert(key, value.into());
            round_trip(&Event::PhaseFinished(finished));
        }

        #[test]
        fn reading_any_bytes_never_panics(bytes in any::<Vec<u8>>()) {
            let _ = Entry::parse(&bytes);
        }
    }
}
