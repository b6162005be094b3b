//! What hardening settings cost: checks each row of the table in docs/systemd-details.md.

use std::path::Path;

use serde_json::Value;

use crate::harness::{assert_says, table, under_systemd};

/// The observations of a run, in the words of the table.
fn observed(entries: &[Value], diagnostic: &str) -> [String; 5] {
    let field = |name: &str| entries.iter().find_map(|entry| entry[name].as_str());
    let says = |text: &str| {
        entries.iter().any(|entry| entry["MESSAGE"].as_str().is_some_and(|m| m.contains(text)))
    };
    let native = entries
        .iter()
        .any(|entry| entry["_TRANSPORT"] == "journal" && entry["SHUTDOWN_CAUSE"].is_string());
    let sender = match says("sender_name=systemd") {
        true => "yes",
        false if says("sender_name=? sender_hidden=yes") => "hidden",
        false => "no",
    };
    let known = if says("systemd gives 1min 30s") { "yes" } else { "no" };
    let why = if says("explained by systemd: a stop job") { "yes" } else { "no" };
    let journal = if native { "fields" } else { "lines" };
    let complete = diagnostic.lines().any(|line| line.starts_with("--- end of diagnostic"));
    let diagnostic = match complete {
        true if says("in its own unit") => "own unit",
        true => "child",
        false => "no",
    };
    assert!(field("MESSAGE").is_some(), "nothing in the journal");
    // No setting may cost these.
    for text in [
        "cause=systemd",
        "phase=drain outcome=timed_out",
        "phase=db_close outcome=ok",
        "Shutdown complete",
    ] {
        assert!(says(text), "no `{text}` in {entries:#?}");
    }
    assert!(!says("Got notification message"), "{entries:#?}");
    [sender, known, why, journal, diagnostic].map(str::to_owned)
}

/// Runs the gateway as a unit with these properties, and stops it.
const RUN: &str = r#"
run() {
    local name=$1 properties=(); shift
    for property; do properties+=(-p "$property"); done
    systemd-run -q --unit=$name -p Type=notify -p StateDirectory=$name "${properties[@]}" \
        $GATEWAY --records /var/lib/$name/records --diag-log /var/lib/$name/diag.log \
        --wedge drain --drain-timeout 1s || exit 1
    until_log $name 'systemd gives\|Stop timeout not'
    systemctl stop $name
    result=$(systemctl show $name -P Result)
    [ $result = success ] || { echo "$name: $result"; log $name; exit 1; }
    # It ended as planned, except for the drain.
    $FORENSICS show --json /var/lib/$name/records/* | grep -q '"outcome":"timed_out"' || exit 1
    for _ in $(seq 400); do
        grep -q '^--- end of\|^--- diagnostic incomplete' /var/lib/$name/diag.log && return; sleep .05
    done
}
"#;

const WAIT: &str = r#"
for job in $(jobs -p); do wait $job || { echo "a row has failed"; exit 1; }; done
"#;

const COLLECT: &str = r#"
journalctl --sync
for n in $(seq 0 99); do
    [ -e /var/lib/row$n ] || break
    echo "= journal row$n"; journalctl -q -o json _SYSTEMD_UNIT=row$n.service + UNIT=row$n.service
    echo "= diagnostic row$n"; cat /var/lib/row$n/diag.log
done
echo "= end"
"#;

#[test]
fn each_setting_costs_what_the_table_says() {
    let rows = table("## Hardening");
    assert!(rows.len() > 10, "{rows:?}");
    let mut script = RUN.to_owned();
    for (n, row) in rows.iter().enumerate() {
        let settings: Vec<String> = match row[0].replace('`', "").as_str() {
            "(none)" => Vec::new(),
            settings => settings.split(", ").map(|one| format!("'{one}'")).collect(),
        };
        script.push_str(&format!("run row{n} {} &\n", settings.join(" ")));
        // Only a few at a time, because systemd has one second to start a diagnostic.
        if n % 2 == 1 {
            script.push_str(WAIT);
        }
    }
    script.push_str(WAIT);
    script.push_str(COLLECT);
    let Some(said) = under_systemd(&script) else { return };
    let part = |name: String| {
        let (_, rest) = said.split_once(&format!("= {name}\n")).unwrap();
        rest.split_once("\n= ").unwrap().0
    };
    let mut differences = Vec::new();
    for (n, row) in rows.iter().enumerate() {
        let entries: Vec<Value> = part(format!("journal row{n}"))
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let observed = observed(&entries, part(format!("diagnostic row{n}")));
        if row[1..] != observed {
            differences.push(format!("{} | {}", row[0], observed.join(" | ")));
        }
    }
    assert!(
        differences.is_empty(),
        "docs/systemd-details.md should say:\n{}",
        differences.join("\n")
    );
}

#[test]
fn the_unit_to_copy_runs_and_reports_after_its_end_how_it_ended() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = std::fs::read_to_string(root.join("docs/systemd.md")).unwrap();
    let (_, unit) = text.split_once("```ini\n").unwrap();
    let (unit, _) = unit.split_once("```").unwrap();
    let script = format!(
        "cat >/etc/systemd/system/gateway.service <<'END'\n{unit}\nEND
         systemd-analyze verify gateway.service 2>&1 | grep gateway
         systemctl daemon-reload; systemctl start gateway || exit 1
         $FORENSICS check gateway --drain 30s
         systemctl stop gateway; systemctl show gateway -p Result; log gateway
         systemctl start gateway; systemctl kill -s KILL gateway
         until_log gateway outcome=vanished; log gateway"
    );
    let Some(said) = under_systemd(&script) else { return };
    assert_says(
        &said,
        &[
            "systemd gives 1min, drain 30s + headroom 30s = 1min is needed: aligned",
            // The gateway cannot ask systemd, so it is told the same.
            "gateway: the grace period is 1min, drain 30s + headroom 30s = 1min is needed: aligned",
            "Result=success",
            "cause=systemd under_systemd=yes sender_pid=1 sender_name=? sender_hidden=yes",
            // Written by ExecStopPost=, after a stop and after a SIGKILL.
            "outcome=clean service=gateway",
            "outcome=vanished service=gateway",
        ],
    );
    assert!(!said.contains("Unknown") && !said.contains("Failed to parse"), "{said}");
}
