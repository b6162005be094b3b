//! The post-mortem as a block for people: what happened, who did it, why, in which phase, what to
//! change, and where to look.
//!
//! Each statement says what it rests on.

use std::io::{self, Write};

use forensics_core::escape::truncate;
use forensics_core::record::{
    PostMortem, Reason, Run, RunOutcome, SentSignal, Source, Witness, phase_name,
};
use serde_json::Value;

use crate::format::{name, seconds, short, text, unread_lines, utc};
use crate::layout::{Style, Tone, safe};
use crate::timeline::{Bar, Kind, Timeline};

/// Longest name, and longest text of the record, in characters.
const MAX_NAME: usize = 80;
const MAX_TEXT: usize = 400;

/// Longest evidence or advice, in characters. It can name many phases.
const MAX_EVIDENCE: usize = 4000;

/// Longest name of a unit (systemd.unit(5)), and longest path in a command, in bytes.
const MAX_UNIT: usize = 255;
const MAX_PATH: usize = 1024;

/// How many phases are named.
const MAX_PHASES: usize = 8;

type Texts = Vec<(Tone, String)>;

/// Writes the block.
pub(crate) fn write(
    out: &mut dyn Write,
    run: &Run,
    timeline: &Timeline,
    style: Style,
) -> io::Result<()> {
    let last = &run.post_mortem;
    let service = format!("{}[{}]", name(&last.service, MAX_NAME), last.pid);
    style.text(out, tone(last), &format!("{service} {} ({})", happened(last), last.outcome))?;
    style.labelled(out, "When", &when(last, timeline))?;
    style.labelled(out, "Who", &who(last, timeline))?;
    let basis = format!("reason {}, {}", last.reason, last.basis.sentence());
    let why = [(Tone::PLAIN, &last.evidence), (Tone::FAINT, &basis)];
    style.labelled(out, "Why", &why.map(|(tone, text)| (tone, truncate(text, MAX_EVIDENCE))))?;
    style.labelled(out, "Phases", &phases(last, timeline))?;
    let advice = last.advice.iter().map(|advice| (Tone::STRONG, truncate(advice, MAX_EVIDENCE)));
    style.labelled(out, "Change", &advice.collect::<Texts>())?;
    style.labelled(out, "Note", &notes(run))?;
    let mut label = "Look";
    for command in commands(run, timeline) {
        style.command(out, label, &command)?;
        label = "";
    }
    Ok(())
}

/// How good or bad the end was.
pub(crate) fn tone(run: &PostMortem) -> Tone {
    match run.outcome {
        RunOutcome::Clean => Tone::GOOD,
        RunOutcome::Running | RunOutcome::MaybeAlive => Tone::STRONG,
        RunOutcome::TimedOut | RunOutcome::CutShort | RunOutcome::Rebooted => Tone::WARNING,
        _ => Tone::BAD,
    }
}

/// What happened, after the name of the service.
fn happened(run: &PostMortem) -> &'static str {
    // The process may live on as another program.
    if run.reason == Reason::Exec {
        return "recorded no end, but its process lives";
    }
    match run.outcome {
        RunOutcome::Clean => "ended as planned",
        RunOutcome::TimedOut => "ended by itself, but not all of its teardown was done",
        RunOutcome::CutShort => "ended by itself, but its teardown was cut short",
        RunOutcome::Failed => "ended by itself, but something failed",
        RunOutcome::Abandoned => "dropped its guard before the end of a teardown",
        RunOutcome::Forced => "was forced to end",
        RunOutcome::Exited => "exited and recorded no end",
        RunOutcome::KilledInPhase => "died in its teardown",
        RunOutcome::KilledBeforeTeardown => "was asked to stop, and died before its teardown",
        RunOutcome::KilledAfterTeardown => "recorded its end, and a signal ended it after that",
        RunOutcome::Panicked => "panicked",
        RunOutcome::Vanished => "died, and its record has no request to stop",
        RunOutcome::Rebooted => "recorded no end before its machine was booted again",
        RunOutcome::Running => "is running",
        RunOutcome::MaybeAlive => "may be running",
        _ => "ended",
    }
}

fn when(run: &PostMortem, timeline: &Timeline) -> Texts {
    let mut last = format!("last event {} UTC", utc(run.last));
    if run.signal.is_some() {
        last += &format!(", {} after the request to stop", short(timeline.end));
    }
    if let Some(us) = run.died_within_us {
        last += &format!(", died within {} of it", short(us));
    }
    vec![(Tone::PLAIN, format!("started {} UTC, {last}", utc(run.started)))]
}

/// Who asked it to stop, and who killed it, as far as that is known.
fn who(run: &PostMortem, timeline: &Timeline) -> Texts {
    let mut who = Vec::new();
    let cause = run.cause.as_ref().map(|cause| name(cause, MAX_NAME)).unwrap_or_default();
    match (run.signal.as_deref(), &run.sender) {
        (None, _) => {}
        (Some("request"), _) => {
            who.push((Tone::PLAIN, "the program itself requested the stop".to_owned()));
        }
        (Some("service_ended"), _) => {
            who.push((Tone::PLAIN, "the service ended by itself, which began the stop".to_owned()));
        }
        (Some(signal), None) => {
            who.push((Tone::PLAIN, format!("{}, cause {cause}", name(signal, MAX_NAME))));
        }
        (Some(signal), Some(sender)) => {
            let signal = name(signal, MAX_NAME);
            let uid = sender.uid.map(|uid| format!(", uid {uid}")).unwrap_or_default();
            let from = match &sender.name {
                Some(sender_name) => format!("{}({})", name(sender_name, MAX_NAME), sender.pid),
                None if sender.pid == 0 => "a process outside its pid namespace".to_owned(),
                None => format!("process {}, whose name is not known", sender.pid),
            };
            who.push((Tone::PLAIN, format!("{signal} from {from}{uid}, cause {cause}")));
            let basis = match (cause.as_str(), sender.uid) {
                ("unverified", _) => "pid and uid as the sender wrote them (sigqueue)",
                (_, Some(_)) => "pid and uid observed by the kernel",
                (_, None) => "pid observed by the kernel",
            };
            who.push((Tone::FAINT, basis.to_owned()));
        }
    }
    // What systemd showed later may have changed the cause.
    if let (Some(evidence), None) = (&timeline.cause_evidence, &run.explained) {
        let evidence = truncate(evidence, MAX_TEXT);
        who.push((Tone::FAINT, format!("the cause follows from: {evidence}")));
    }
    if let Some(explained) = &run.explained {
        let (detail, reason) =
            (text(&explained.detail, MAX_TEXT), name(&explained.reason, MAX_NAME));
        who.push((Tone::PLAIN, format!("systemd: {detail} ({reason})")));
        who.push((Tone::FAINT, truncate(explained.basis.sentence(), MAX_TEXT)));
    }
    for sent in run.witnesses.iter().filter_map(sent_signal) {
        who.push((Tone::PLAIN, sent.to_string()));
        who.push((Tone::FAINT, "observed by the audit log".to_owned()));
    }
    who
}

/// What the audit log said.
fn sent_signal(witness: &Witness) -> Option<SentSignal> {
    let fields = Value::Object(witness.fields.clone());
    (witness.source == Source::AuditLog).then(|| serde_json::from_value(fields).ok()).flatten()
}

/// The phases that did not end well, or how many did.
fn phases(run: &PostMortem, timeline: &Timeline) -> Texts {
    let mut texts = Vec::new();
    let is_good = |bar: &&Bar| bar.tone().class == Tone::GOOD.class;
    let bad: Vec<_> = timeline.bars.iter().filter(|bar| !is_good(bar)).collect();
    for bar in bad.iter().take(MAX_PHASES) {
        texts.push((bar.tone(), phase(bar)));
        // An error that the evidence already shows is not repeated. The evidence has its start at least.
        let start: String = bar.error.chars().take(100).collect();
        let is_told = !start.is_empty() && run.evidence.contains(&text(&start, 100));
        for note in bar.notes().skip(usize::from(is_told)) {
            texts.push((Tone::PLAIN, truncate(text(&note, MAX_TEXT), MAX_TEXT)));
        }
        let stalls = timeline.marks.iter().rev();
        let is_its =
            |kind: &Kind| matches!(kind, Kind::Stall { phase: Some(it) } if *it == bar.name);
        if let Some(stall) = stalls.filter(|_| bar.outcome.is_none()).find(|m| is_its(&m.kind)) {
            texts.push((
                Tone::PLAIN,
                format!("+{} {}", seconds(stall.at), truncate(&stall.text, MAX_TEXT)),
            ));
        }
    }
    if let Some(more) = bad.len().checked_sub(MAX_PHASES).filter(|&more| more > 0) {
        texts.push((Tone::PLAIN, format!("and {more} more")));
    }
    if let Some(after) = &run.after_phase {
        texts.push((Tone::PLAIN, format!("{} was the last to end", name(after, MAX_NAME))));
    }
    let good = timeline.bars.iter().filter(is_good).count();
    match (timeline.bars.len(), run.signal.is_some()) {
        (0, true) => texts.push((Tone::PLAIN, "none had begun".to_owned())),
        (0, false) => {}
        (all, _) => texts.push((Tone::FAINT, format!("{good} of {all} ended well"))),
    }
    texts
}

fn phase(bar: &Bar) -> String {
    let phase = name(&phase_name(&bar.name, bar.group.as_deref()), MAX_NAME);
    format!("{phase}: {}, {}", bar.word(), bar.used())
}

fn notes(run: &Run) -> Texts {
    let last = &run.post_mortem;
    let place = last.pod.as_ref().map(|pod| format!("pod {}", name(pod, MAX_NAME)));
    let host = last.host.as_ref().map(|host| format!("on host {}", name(host, MAX_NAME)));
    let foreign = last
        .file_uid
        .map(|uid| format!("the record belongs to uid {uid}, who may have made it up"));
    let facts = place.into_iter().chain(host).chain(unread_lines(&run.record));
    let facts = facts.map(|fact| (Tone::PLAIN, fact));
    facts.chain(foreign.map(|text| (Tone::WARNING, text))).collect()
}

/// Commands that show more.
fn commands(run: &Run, timeline: &Timeline) -> Vec<Vec<String>> {
    let words = |words: &[&str]| words.iter().map(|word| quoted(word)).collect::<Vec<_>>();
    let mut commands = vec![words(&["forensics", "show", &run.path().to_string_lossy()])];
    let start = &run.record.start;
    if let Some(unit) = start.unit.as_ref().filter(|unit| unit.len() <= MAX_UNIT) {
        let since = format!("{} UTC", utc(run.post_mortem.started));
        let manager = start.manager.as_deref().filter(|manager| *manager == "user");
        let mut command = words(&["journalctl"]);
        command.extend(manager.map(|_| "--user".to_owned()));
        command.extend(words(&["-u", unit, "--since", &since]));
        commands.push(command);
    }
    // A longer path was cut when it was read, and names no file. What does not begin with a slash can be an
    // option of less(1).
    let is_path = |file: &&String| file.starts_with('/') && file.len() <= MAX_PATH;
    if let Some(file) = timeline.diagnostic.as_ref().filter(is_path) {
        commands.push(words(&["less", file]));
    }
    commands
}

/// A word of a command for a shell. It is escaped before it is quoted, so that the quotes stay as they
/// are.
fn quoted(word: &str) -> String {
    let word = safe(word);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word;
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use forensics_core::escape::is_safe;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::layout::width;
    use crate::timeline::Collector;

    #[test]
    fn a_word_of_a_command_is_quoted_for_a_shell() {
        let cases = [
            ("/var/lib/gw/1.jsonl", "/var/lib/gw/1.jsonl"),
            ("", "''"),
            ("a b", "'a b'"),
            ("it's; rm $HOME", r"'it'\''s; rm $HOME'"),
            // The escape is a part of the quoted word.
            ("x';\u{1b}", r"'x'\'';\u{1b}'"),
        ];
        for (word, expected) in cases {
            assert_eq!(quoted(word), expected);
        }
    }

    /// A record in which every text is `text`.
    fn record(text: &str) -> String {
        let t = text;
        let inferred = json!({ "inferred": { "from": [t] } });
        let events = [
            json!({ "event": "run_started", "service": t, "pid": 4100, "unit": t, "pod": t, "host": t,
                "version": t, "stop_timeout_us": 9 }),
            json!({ "event": "signal", "kind": "signal", "signal": t, "ordinal": 1, "sender_pid": 1,
                "sender_name": t, "sender_uid": 0, "cause": t, "line": t, "deadline_us": 9,
                "context": { "verdict": { "evidence": t } } }),
            json!({ "event": "explained", "reason": t, "detail": t, "cause": t, "basis": inferred }),
            json!({ "event": "phase_started", "phase": t, "group": t, "reserve_us": 2, "offset_us": 0 }),
            json!({ "event": "phase_progress", "phase": t, "group": t, "values": { t: t }, "offset_us": 0 }),
            json!({ "event": "wedged", "what": "phase", "phase": t, "for_us": 1, "detail": t }),
            json!({ "event": "phase_finished", "phase": "other", "outcome": "failed", "error": t,
                "took_us": 1, "offset_us": 1 }),
            json!({ "event": "diag", "state": "finished", "path": t }),
            json!({ "event": "witness", "source": "systemd", "service_result": t, "exit_status": t }),
            json!({ "event": "witness", "source": "audit_log", "signal": "SIGKILL",
                "sent": "2026-11-23T10:15:00.000000Z", "sender_pid": 1, "sender_uid": 0,
                "sender_name": t, "sender_exe": t, "sender_login": t, "sender_tty": t }),
        ];
        let line = |(at, mut event): (usize, Value)| {
            let head = json!({ "v": 1, "ts": "2026-11-23T10:15:00.000000Z", "mono_us": at });
            event.as_object_mut().unwrap().extend(head.as_object().unwrap().clone());
            format!("{event}\n")
        };
        events.into_iter().enumerate().map(line).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_line_is_too_wide_and_no_text_of_a_record_controls_the_terminal(
            text in any::<String>(),
            style in (20_usize..200).prop_map(|width| Style { color: false, wraps: true, width }),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("20261123T101500.000000Z-4100.jsonl");
            fs::write(&file, record(&text)).unwrap();
            let run = Run::read(&file).unwrap();
            let mut collector = Collector::default();
            run.file.read(|entry, _| collector.add(entry)).unwrap();
            let timeline = collector.timeline(run.post_mortem.stop_timeout_us);
            let mut out = Vec::new();
            write(&mut out, &run, &timeline, style).unwrap();
            crate::text::draw(&mut out, &timeline, style).unwrap();
            for line in String::from_utf8(out).unwrap().lines() {
                // A command is not divided in the middle of a word.
                let command = line.trim_start_matches("Look").trim_start();
                let is_command = ["forensics show ", "less "].iter().any(|it| command.starts_with(it));
                let fits = width(line) <= style.width || is_command;
                prop_assert!(line.chars().all(is_safe) && fits, "{}", line);
            }
        }
    }
}
