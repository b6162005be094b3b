//! What systemd wrote to the journal about a unit.
//!
//! The messages are those of the manager itself: the field `_PID` or `_SYSTEMD_UNIT` comes from the
//! kernel, while any program can write the other fields. A message is known by its `MESSAGE_ID`,
//! which is a stable interface (systemd.journal-fields(7)). Some facts have no id, and are known by
//! their text, as of systemd 252 and 257.

use serde_json::Value;

use super::super::{RunStarted, Utc};
use super::unit::{UnitAction, UnitEnd, is_id};
use crate::escape::{MAX_NAME_CHARS, truncate};

/// The messages with an id that say something about an end (`sd-messages.h`).
const PROCESS_EXIT: &str = "98e322203f7a4ed290d09fe03c09fe15";
const FAILURE_RESULT: &str = "d9b373ed55a64feb8242e02dbe79a49c";
const SUCCESS: &str = "7ad2d189f7e94e70a38c781354912448";
const STOPPING: &str = "de5b426a63be47a7b6ac3eaac82e2f6f";
const OUT_OF_MEMORY: &str = "fe6faa94e7774663a0da52717891d8ef";
const OOMD_KILL: &str = "d989611b15e44c9dbf31e3c81256e4ed";

/// The texts without an id (`service_dispatch_timer` in `service.c`). Those about a stop count only if
/// systemd then ends the main process: with `SendSIGKILL=no` it does not, after `Stopping timed out.
/// Terminating.` it first waits again, and in the states `final-*` the main process has already ended.
const TEXTS: [(&str, UnitAction); 10] = [
    ("start operation timed out. ", UnitAction::StartTimeout),
    ("start-post operation timed out. ", UnitAction::StartTimeout),
    ("Service reached runtime time limit. ", UnitAction::RuntimeMax),
    ("Scope reached runtime time limit. ", UnitAction::RuntimeMax),
    ("Watchdog timeout (", UnitAction::Watchdog),
    ("State 'stop-sigterm' timed out. Killing.", UnitAction::StopTimeout),
    ("State 'stop-sigterm' timed out. Aborting.", UnitAction::StopTimeout),
    ("State 'stop-watchdog' timed out. Killing.", UnitAction::StopTimeout),
    ("Stopping timed out. Killing.", UnitAction::StopTimeout),
    ("Stopping timed out. Aborting.", UnitAction::StopTimeout),
];

/// The fields that are read.
const FIELDS: &str = "UNIT,INVOCATION_ID,USER_UNIT,USER_INVOCATION_ID,_PID,_UID,_COMM,_SYSTEMD_UNIT,\
    _SYSTEMD_USER_UNIT,_SOURCE_REALTIME_TIMESTAMP,MESSAGE,MESSAGE_ID,COMMAND,EXIT_CODE,EXIT_STATUS,\
    UNIT_RESULT,JOB_TYPE";

/// The arguments with which journalctl(1) prints the manager's messages about this run, as JSON, one
/// message a line. `None` if the record does not name its unit and its invocation.
pub fn journal_arguments(start: &RunStarted) -> Option<Vec<String>> {
    let (unit, id) = (start.unit.as_ref()?, start.invocation_id.as_ref()?);
    // What begins with a dash would be an option.
    if unit.starts_with('-') || !is_id(id) {
        return None;
    }
    let user = if is_of_user(start) { "USER_" } else { "" };
    let options = ["--quiet", "--no-pager", "--output=json", "--lines=1000"].map(str::to_owned);
    let fields = format!("--output-fields={FIELDS}");
    let about_us = [format!("{user}UNIT={unit}"), format!("{user}INVOCATION_ID={id}")];
    // Any user can write messages with these two fields, and only the newest thousand are read. So journalctl
    // has to select those of the manager.
    let by_manager = manager(start).into_iter().map(|(name, value)| format!("{name}={value}"));
    Some(options.into_iter().chain([fields]).chain(about_us).chain(by_manager).collect())
}

/// The fields by which a message of the manager is known. The kernel tells journald the fields that
/// begin with an underscore. A user manager runs in the unit `user@UID.service`, as the user of its
/// services.
fn manager(start: &RunStarted) -> Vec<(&'static str, String)> {
    if !is_of_user(start) {
        return vec![("_PID", "1".to_owned())];
    }
    let mut fields =
        vec![("_SYSTEMD_USER_UNIT", "init.scope".to_owned()), ("_COMM", "systemd".to_owned())];
    // Without these, a program in the `init.scope` of another user's manager would also match.
    if let Some(uid) = start.uid {
        fields.push(("_UID", uid.to_string()));
        fields.push(("_SYSTEMD_UNIT", format!("user@{uid}.service")));
    }
    fields
}

fn is_of_user(start: &RunStarted) -> bool {
    start.manager.as_deref() == Some("user")
}

/// Reads what journalctl(1) printed for [`journal_arguments`]. `None` if the manager said nothing
/// about the end of this run.
pub fn parse_journal(output: &str, start: &RunStarted) -> Option<UnitEnd> {
    let mut end = UnitEnd::default();
    for line in output.lines() {
        let Ok(message) = serde_json::from_str::<Value>(line) else { continue };
        let field = |name: &str| message[name].as_str();
        let user = if is_of_user(start) { "USER_" } else { "" };
        let is_about_us = field(&format!("{user}UNIT")) == start.unit.as_deref()
            && field(&format!("{user}INVOCATION_ID")) == start.invocation_id.as_deref();
        let is_of_manager =
            || manager(start).iter().all(|(name, value)| field(name) == Some(value.as_str()));
        if is_about_us && is_of_manager() {
            read(&mut end, &field, start);
        }
    }
    (end != UnitEnd::default()).then_some(end)
}

fn read<'a>(end: &mut UnitEnd, field: &impl Fn(&str) -> Option<&'a str>, start: &RunStarted) {
    let word = |name: &str| field(name).map(|text| truncate(text, MAX_NAME_CHARS));
    let mut did = |action| {
        if !end.actions.contains(&action) {
            end.actions.push(action);
        }
    };
    match field("MESSAGE_ID") {
        Some(PROCESS_EXIT) if field("COMMAND") == Some("ExecStart") => {
            end.exit_code = word("EXIT_CODE");
            let was_killed = matches!(end.exit_code.as_deref(), Some("killed" | "dumped"));
            let number = field("EXIT_STATUS").filter(|_| was_killed);
            let name = number.and_then(|number| signal_name(number.parse().ok()?));
            end.exit_status = name.or_else(|| word("EXIT_STATUS"));
            let time = field("_SOURCE_REALTIME_TIMESTAMP").or(field("__REALTIME_TIMESTAMP"));
            end.ended = time.and_then(|micros| Utc::from_micros(micros.parse().ok()?));
        }
        Some(FAILURE_RESULT) => end.service_result = word("UNIT_RESULT"),
        Some(SUCCESS) => end.service_result = Some("success".to_owned()),
        Some(STOPPING) => match field("JOB_TYPE") {
            Some("stop") => did(UnitAction::StopJob),
            Some("restart") => did(UnitAction::RestartJob),
            _ => {}
        },
        Some(OUT_OF_MEMORY) => did(UnitAction::OomKill),
        Some(OOMD_KILL) => did(UnitAction::OomdKill),
        Some(_) => {}
        None => {
            let text = field("MESSAGE").unwrap_or_default();
            let unit = start.unit.as_deref().unwrap_or_default();
            let Some(text) = text.strip_prefix(unit).and_then(|text| text.strip_prefix(": "))
            else {
                return;
            };
            if let Some((_, action)) = TEXTS.iter().find(|(begin, _)| text.starts_with(begin)) {
                did(*action);
            }
            end.client_signal = client_signal(text, start.pid).or(end.client_signal.take());
        }
    }
}

/// The signal in `Sent signal SIGKILL to main process 118 (sleep) on client request.`
fn client_signal(text: &str, pid: u32) -> Option<String> {
    let (signal, rest) = text.strip_prefix("Sent signal SIG")?.split_once(' ')?;
    let is_main = rest.starts_with(&format!("to main process {pid} ("));
    (is_main && rest.ends_with("on client request.")).then(|| truncate(signal, MAX_NAME_CHARS))
}

/// The name of a signal as systemd writes it: without `SIG`, real-time signals as `RTMIN+n`.
pub(super) fn signal_name(number: i32) -> Option<String> {
    /// `SIGRTMIN` and `SIGRTMAX` of glibc and musl.
    const REAL_TIME: std::ops::RangeInclusive<i32> = 34..=64;
    if REAL_TIME.contains(&number) {
        return Some(format!("RTMIN+{}", number - REAL_TIME.start()));
    }
    let known = nix::sys::signal::Signal::try_from(number).ok()?;
    known.as_str().strip_prefix("SIG").map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ID: &str = "1a095b8165d747a2917b54dcc7d1b13e";

    fn start(manager: &str) -> RunStarted {
        let mut start = RunStarted::new("gateway", 118);
        start.unit = Some("t.service".to_owned());
        start.manager = Some(manager.to_owned());
        start.invocation_id = Some(ID.to_owned());
        start
    }

    fn line(fields: &Value) -> String {
        let mut all = json!({ "_PID": "1", "UNIT": "t.service", "INVOCATION_ID": ID });
        for (name, value) in fields.as_object().unwrap() {
            all[name] = value.clone();
        }
        all.to_string()
    }

    fn exit(code: &str, status: &str) -> Value {
        json!({ "MESSAGE_ID": PROCESS_EXIT, "COMMAND": "ExecStart", "EXIT_CODE": code,
            "EXIT_STATUS": status, "_SOURCE_REALTIME_TIMESTAMP": "1795878140670097" })
    }

    fn text(text: &str) -> Value {
        json!({ "MESSAGE": format!("t.service: {text}") })
    }

    #[test]
    fn the_managers_messages_are_read_by_their_ids_and_else_by_their_texts() {
        let id = |id: &str| json!({ "MESSAGE_ID": id, "JOB_TYPE": "stop" });
        let killed = |end: &UnitEnd| end.signal().unwrap_or_default();
        let did = |end: &UnitEnd| format!("{:?}", end.actions);
        type Shown<'a> = &'a dyn Fn(&UnitEnd) -> String;
        let cases: [(Value, Shown<'_>, &str); 18] = [
            (exit("killed", "9"), &killed, "SIGKILL"),
            (exit("dumped", "11"), &killed, "SIGSEGV"),
            (exit("killed", "12"), &killed, "SIGUSR2"),
            (exit("killed", "37"), &killed, "SIGRTMIN+3"),
            (exit("exited", "3"), &|end| format!("{:?}", end.status()), "Some(3)"),
            (
                json!({ "MESSAGE_ID": FAILURE_RESULT, "UNIT_RESULT": "watchdog" }),
                &|end| end.service_result.clone().unwrap_or_default(),
                "watchdog",
            ),
            (id(STOPPING), &did, "[StopJob]"),
            (id(OUT_OF_MEMORY), &did, "[OomKill]"),
            (id(OOMD_KILL), &did, "[OomdKill]"),
            (text("State 'stop-sigterm' timed out. Killing."), &did, "[StopTimeout]"),
            (text("start operation timed out. Terminating."), &did, "[StartTimeout]"),
            (text("start-post operation timed out. Terminating."), &did, "[StartTimeout]"),
            (text("State 'stop-sigterm' timed out. Aborting."), &did, "[StopTimeout]"),
            (text("Stopping timed out. Killing."), &did, "[StopTimeout]"),
            (text("Scope reached runtime time limit. Stopping."), &did, "[RuntimeMax]"),
            (text("Service reached runtime time limit. Stopping."), &did, "[RuntimeMax]"),
            (text("Watchdog timeout (limit 1s)!"), &did, "[Watchdog]"),
            (
                text("Sent signal SIGKILL to main process 118 (sleep) on client request."),
                &|end| end.client_signal.clone().unwrap_or_default(),
                "KILL",
            ),
        ];
        for (message, shown, expected) in cases {
            let end = parse_journal(&line(&message), &start("system"));
            assert_eq!(end.as_ref().map(shown).as_deref(), Some(expected), "{message}");
        }
        let end = parse_journal(&line(&exit("killed", "9")), &start("system")).unwrap();
        assert_eq!(end.ended.unwrap().to_string(), "2026-11-28T15:02:20.670097Z");
    }

    #[test]
    fn messages_of_others_and_about_others_say_nothing() {
        let about = |change: Value| {
            let mut message = exit("killed", "9");
            for (name, value) in change.as_object().unwrap() {
                message[name] = value.clone();
            }
            parse_journal(&line(&message), &start("system"))
        };
        assert!(about(json!({})).is_some());
        // Any program can write these fields, except its own pid.
        assert_eq!(about(json!({ "_PID": "4100" })), None);
        assert_eq!(about(json!({ "UNIT": "other.service" })), None);
        assert_eq!(about(json!({ "INVOCATION_ID": ID.replace('1', "2") })), None);
        assert_eq!(about(json!({ "COMMAND": "ExecStop" })), None);
        let other = text("Sent signal SIGKILL to main process 119 (x) on client request.");
        assert_eq!(parse_journal(&line(&other), &start("system")), None);
        // systemd did not end the main process.
        for said in [
            "State 'stop-sigterm' timed out. Skipping SIGKILL.",
            "Stopping timed out. Terminating.",
            "Stopping timed out. Skipping SIGKILL.",
            "State 'final-sigterm' timed out. Killing.",
            "State 'stop-post' timed out. Killing.",
            "Reload operation timed out. Killing reload process.",
        ] {
            assert_eq!(parse_journal(&line(&text(said)), &start("system")), None, "{said}");
        }
        let text = json!({ "MESSAGE": "gateway: start operation timed out. Terminating." });
        assert_eq!(parse_journal(&line(&text), &start("system")), None);
        assert_eq!(parse_journal("not json\n{}\n[1]\n\"x\"", &start("system")), None);
    }

    #[test]
    fn a_user_manager_is_known_by_its_unit() {
        let mut message = json!({ "USER_UNIT": "t.service", "USER_INVOCATION_ID": ID, "_UID": "7",
            "_SYSTEMD_UNIT": "user@7.service", "_SYSTEMD_USER_UNIT": "init.scope",
            "_COMM": "systemd", "MESSAGE_ID": FAILURE_RESULT, "UNIT_RESULT": "signal" });
        let of = |uid| RunStarted { uid, ..start("user") };
        let read = |message: &Value, uid| parse_journal(&message.to_string(), &of(uid));
        assert!(read(&message, Some(7)).is_some());
        // In a user namespace the record does not have the uid.
        assert!(read(&message, None).is_some());
        // The manager of another user, who can move a program with this name into its `init.scope`.
        assert_eq!(read(&message, Some(8)), None);
        message["_SYSTEMD_USER_UNIT"] = "app.service".into();
        assert_eq!(read(&message, Some(7)), None);
    }

    /// The newest thousand messages are read, and anyone can write messages with the other fields.
    #[test]
    fn only_messages_of_the_manager_are_asked_for() {
        let asked = |start: &RunStarted| journal_arguments(start).unwrap();
        assert!(asked(&start("system")).contains(&"_PID=1".to_owned()));
        let of_user = RunStarted { uid: Some(7), ..start("user") };
        for field in ["_UID=7", "_SYSTEMD_UNIT=user@7.service", "USER_UNIT=t.service"] {
            assert!(asked(&of_user).contains(&field.to_owned()), "{field}");
        }
        // All fields that are read are printed, and no others, which can be long.
        let source = include_str!("journal.rs").split("mod tests").next().unwrap();
        let read = source.split("field(\"").skip(1).chain(source.split("word(\"").skip(1));
        for name in read.filter_map(|rest| rest.split('"').next()) {
            let is_printed = FIELDS.split(',').any(|field| field == name);
            assert!(is_printed || name.starts_with("__"), "{name}");
        }
    }

    #[test]
    fn only_a_unit_and_an_invocation_id_are_asked_for() {
        let with = |unit: &str, id: &str| {
            let mut start = start("system");
            (start.unit, start.invocation_id) = (Some(unit.to_owned()), Some(id.to_owned()));
            journal_arguments(&start)
        };
        assert!(with("t.service", ID).unwrap().contains(&"UNIT=t.service".to_owned()));
        assert_eq!(with("--flush", ID), None);
        assert_eq!(with("t.service", "x --flush"), None);
        assert_eq!(journal_arguments(&RunStarted::new("gateway", 1)), None);
    }
}
