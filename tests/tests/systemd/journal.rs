//! The entries of a stop in the journal, and how to find them.

use std::path::Path;

use forensics_tokio::logging::MESSAGE_IDS;
use serde_json::Value;

use crate::harness::{assert_says, under_systemd};

fn message_id(event: &str) -> &'static str {
    MESSAGE_IDS.iter().find(|(name, _)| *name == event).unwrap().1
}

#[test]
fn a_stop_is_found_by_its_fields_and_explained_by_the_catalog() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let catalog = std::fs::read_to_string(root.join("docs/shutdown-forensics.catalog")).unwrap();
    let script = format!(
        "cat >/usr/lib/systemd/catalog/shutdown-forensics.catalog <<'END'\n{catalog}\nEND
         journalctl --update-catalog
         start gw -- --wedge drain --drain-timeout 1s
         systemctl stop gw
         echo '= by phase'; journalctl -q -o cat SHUTDOWN_PHASE=drain _SYSTEMD_UNIT=gw.service
         echo '= by kind'; journalctl -q -o cat MESSAGE_ID={finished}
         echo '= by sender'; journalctl -q -o json SHUTDOWN_SENDER_PID=1
         echo '= warnings'; journalctl -q -o cat -p warning -u gw
         echo '= explained'; journalctl -q -x MESSAGE_ID={context}
         echo '= end'",
        finished = message_id("phase_finished"),
        context = message_id("shutdown_context"),
    );
    let Some(said) = under_systemd(&script) else { return };
    let part = |name: &str| {
        let (_, rest) = said.split_once(&format!("= {name}\n")).unwrap();
        rest.split_once("\n= ").map_or(rest, |(part, _)| part)
    };
    assert_says(part("by phase"), &["+1.", "phase=drain outcome=timed_out took=1."]);
    assert_eq!(part("by kind").lines().count(), 6, "{said}");
    let json: Value = serde_json::from_str(part("by sender")).unwrap();
    for (field, value) in [
        ("SHUTDOWN_CAUSE", "systemd"),
        ("SHUTDOWN_SIGNAL", "SIGTERM"),
        ("SHUTDOWN_SENDER_NAME", "systemd"),
        ("SHUTDOWN_UNIT", "gw.service"),
        ("SYSLOG_IDENTIFIER", "gateway"),
        ("PRIORITY", "6"),
        ("_TRANSPORT", "journal"),
    ] {
        assert_eq!(json[field], value, "{field} in {json}");
    }
    // Only the drain, and the last line, because of the drain.
    assert_eq!(part("warnings").lines().count(), 2, "{said}");
    assert_says(part("warnings"), &["phase=drain", "Shutdown complete"]);
    assert_says(
        part("explained"),
        &[
            "░░ Subject: A service was asked to stop",
            "░░ SIGTERM, sent by process 1 (systemd), according to the kernel.",
        ],
    );
}

#[test]
fn each_layer_for_the_journal_has_each_fact_once() {
    let script = r#"for kind in journald journald_and_text tracing_journald; do
            systemd-run -q --unit=$kind -p Environment=NO_COLOR=1 "$LOG_RECEIVERS" none $kind signal /tmp/$kind
            until_log $kind ready
            systemctl stop $kind
            journalctl --sync
            echo "= $kind"; journalctl -q -o json _SYSTEMD_UNIT=$kind.service _TRANSPORT=journal
            echo "= $kind lines"; journalctl -q -o cat _SYSTEMD_UNIT=$kind.service _TRANSPORT=stdout
        done; echo '= end'"#;
    let Some(said) = under_systemd(script) else { return };
    let part = |name: &str| {
        let (_, rest) = said.split_once(&format!("= {name}\n")).unwrap_or_else(|| panic!("{said}"));
        rest.split_once("\n= ").map_or(rest, |(part, _)| part)
    };
    let context = |kind: &str| {
        let entries = part(kind).lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let is_it =
            |entry: &Value| entry["MESSAGE"].as_str().unwrap().starts_with("Shutdown context:");
        let mut found: Vec<_> = entries.filter(is_it).collect();
        assert_eq!(found.len(), 1, "{kind}: {said}");
        found.remove(0)
    };
    for kind in ["journald", "journald_and_text"] {
        let entry = context(kind);
        assert_says(entry["MESSAGE"].as_str().unwrap(), &["signal=SIGTERM cause=systemd"]);
        assert_eq!(entry["MESSAGE_ID"], message_id("shutdown_context"), "{kind}: {said}");
        for (field, value) in [("SIGNAL", "SIGTERM"), ("CAUSE", "systemd"), ("SENDER_PID", "1")] {
            assert_eq!(entry[format!("SHUTDOWN_{field}")], value, "{kind}: {said}");
        }
    }
    // What docs/logging.md says about it.
    let entry = context("tracing_journald");
    assert_eq!(entry["MESSAGE"], "Shutdown context:");
    assert_eq!((&entry["F_CAUSE"], &entry["F_SENDER_PID"]), (&"systemd".into(), &"1".into()));

    let lines = part("journald_and_text lines");
    for (text, fact) in [("Shutdown context:", "signal="), ("phase finished", "phase=work")] {
        let line =
            lines.lines().find(|line| line.contains(text)).unwrap_or_else(|| panic!("{said}"));
        assert_eq!(line.matches(fact).count(), 1, "{line}");
    }
}

#[test]
fn without_the_journals_socket_lines_on_stderr_keep_their_priority() {
    let Some(said) = under_systemd(
        "start gw InaccessiblePaths=/run/systemd/journal/socket -- --wedge drain --drain-timeout 1s
         systemctl stop gw
         journalctl -q -o json -p warning -u gw",
    ) else {
        return;
    };
    let entry = said.lines().find(|line| line.starts_with('{')).unwrap();
    let entry: Value = serde_json::from_str(entry).unwrap();
    assert_eq!((&entry["PRIORITY"], &entry["_TRANSPORT"]), (&"4".into(), &"stdout".into()));
    let message = entry["MESSAGE"].as_str().unwrap();
    assert_says(message, &["phase=drain outcome=timed_out"]);
    assert!(!message.contains("<4>"), "{message}");
}

#[test]
fn a_journal_that_is_stuck_delays_no_phase() {
    let Some(said) = under_systemd(
        "start gw -- --records /tmp/records
         kill -STOP $(systemctl show systemd-journald -P MainPID)
         python3 - <<'END'
import socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.setblocking(False)
n = 0
try:
    while True:
        s.sendto(b'MESSAGE=filler', '/run/systemd/journal/socket')
        n += 1
except BlockingIOError:
    print('full after', n)
END
         systemctl stop gw; systemctl show gw -p Result; $FORENSICS last /tmp/records
         echo phases=$(grep -c phase_finished /tmp/records/*)",
    ) else {
        return;
    };
    assert_says(&said, &["full after", "Result=success", "outcome=clean", "phases=6"]);
}

#[test]
fn the_last_words_keep_their_unit() {
    let script = format!(
        "for n in $(seq 40); do
             systemd-run -q --unit=gw$n $GATEWAY
         done
         for n in $(seq 40); do until_log gw$n 'listening on'; done
         systemctl stop 'gw*'
         journalctl --sync
         echo all=$(journalctl -q -o cat MESSAGE_ID={id} | wc -l)
         echo of units=$(journalctl -q -o cat -u 'gw*' MESSAGE_ID={id} | wc -l)",
        id = message_id("shutdown_complete"),
    );
    let Some(said) = under_systemd(&script) else { return };
    assert_says(&said, &["all=40\n", "of units=40\n"]);
}
