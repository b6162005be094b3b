//! The page of `forensics show --html`, in a real browser.
//!
//! Without Chromium these tests are skipped and say so. With `CI=true` they fail.

#![allow(clippy::unwrap_used)] // A test's unwrap is an assertion.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use forensics_core::record::*;
use serde_json::json;

/// The DOM of the loaded page, as the browser prints it. `None` without a browser.
fn dom(page: &Path) -> Option<String> {
    let mut output = browse(page);
    // On a busy machine the browser may not start in time; then it is tried again.
    for _ in 0..2 {
        if output.status.success() || output.status.code() == Some(NOT_FOUND) {
            break;
        }
        output = browse(page);
    }
    if output.status.code() == Some(NOT_FOUND) {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "there is no chromium");
        eprintln!("skipped: there is no chromium");
        return None;
    }
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

/// The exit status of timeout(1) if it cannot find the program.
const NOT_FOUND: i32 = 127;

/// Each run has a new profile.
fn browse(page: &Path) -> Output {
    let profile = tempfile::tempdir().unwrap();
    Command::new("timeout")
        .args(["60", "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"])
        .args(["--no-first-run", "--disable-background-networking", "--disable-sync"])
        .args(["--disable-component-update", "--virtual-time-budget=2000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("file://{}", page.display()))
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Writes a record and its page. Returns the page's path.
fn page(dir: &Path, events: &[Event]) -> PathBuf {
    let folder = dir.join("shutdown");
    let recorder = Recorder::create(&folder, RunStarted::new("gateway", 4100)).unwrap();
    events.iter().for_each(|event| recorder.record(event).unwrap());
    drop(recorder);
    let record = runs(&folder).unwrap().pop().unwrap();
    let page = dir.join("page.html");
    let show = Command::new(env!("CARGO_BIN_EXE_forensics"))
        .arg("show")
        .arg(record)
        .arg("--html")
        .arg(&page)
        .output()
        .unwrap();
    assert!(show.status.success(), "{}", String::from_utf8_lossy(&show.stderr));
    assert!(show.stdout.is_empty());
    page
}

fn member(name: &str, group: &str) -> Event {
    let mut started = PhaseStarted::new(name, 0);
    started.group = Some(group.to_owned());
    started.timeout_us = Some(2_000_000);
    Event::PhaseStarted(started)
}

fn signal(context: serde_json::Value) -> SignalEvent {
    let mut signal = SignalEvent::new(SignalKind::Signal, 1, "operator");
    signal.signal = Some("SIGTERM".to_owned());
    (signal.sender_pid, signal.sender_name) = (Some(4242), Some("kill".to_owned()));
    signal.deadline_us = Some(1);
    signal.context = context;
    signal
}

/// The rest of the page, from the tag that has all of these attributes.
fn tag<'a>(dom: &'a str, attributes: &[&str]) -> &'a str {
    let tags = dom.match_indices('<').map(|(at, _)| &dom[at..]);
    let has = |rest: &&str| {
        let tag = rest.split('>').next().unwrap_or_default();
        attributes.iter().all(|attribute| tag.contains(attribute))
    };
    let mut found = tags.filter(has);
    found.next().unwrap_or_else(|| panic!("no {attributes:?} in {dom}"))
}

#[test]
fn the_page_shows_phases_in_their_groups_signals_the_deadline_and_the_verdict() {
    let dir = tempfile::tempdir().unwrap();
    let mut again = SignalEvent::new(SignalKind::Signal, 2, "unknown");
    again.signal = Some("SIGINT".to_owned());
    let mut stuck = Stalled::new(StalledWhat::Phase, 1, "sleeps in futex");
    stuck.phase = Some("slack".to_owned());
    let failed = PhaseFinished::new("notify", PhaseOutcome::Failed, 1, 1);
    let page = page(
        dir.path(),
        &[
            Event::Signal(signal(json!({"sender": {"user": "ops"}}))),
            Event::PhaseStarted(PhaseStarted::new("notify", 0)),
            Event::PhaseFinished(failed),
            Event::PhaseStarted(PhaseStarted::new("adapters", 0)),
            member("slack", "adapters"),
            Event::Stalled(stuck),
            Event::Signal(again),
        ],
    );
    let Some(dom) = dom(&page) else { return };

    assert!(tag(&dom, &["id=\"outcome\""]).contains("killed_in_phase"));
    assert!(tag(&dom, &["id=\"advice\""]).starts_with("<p class=\"advice\""));
    let row = |phase: &str| {
        let rest = tag(&dom, &["class=\"row phase", &format!("data-phase=\"{phase}\"")]);
        rest.split("<div class=\"row").nth(1).unwrap()
    };
    assert!(row("notify").contains("bar bad") && row("notify").contains(">failed<"));
    assert!(
        row("slack").starts_with(" phase member\"")
            && row("slack").contains("data-group=\"adapters\"")
    );
    assert!(row("slack").contains("bar bad open") && row("slack").contains("class=\"budget\""));
    assert!(row("slack").contains("class=\"wedge\"") && !row("notify").contains("class=\"wedge\""));
    // The group comes before its member.
    assert!(dom.find("data-phase=\"adapters\"") < dom.find("data-phase=\"slack\""));
    for phase in ["notify", "adapters", "slack"] {
        assert_eq!(row(phase).matches("class=\"at\"").count(), 2, "two signals");
        assert!(row(phase).contains("class=\"deadline\""));
    }
    let marks = tag(&dom, &["id=\"marks\""]);
    assert!(marks.contains("SIGTERM from kill(4242), cause operator") && marks.contains("SIGINT"));
    assert!(tag(&dom, &["id=\"context\""]).contains("sender.user"));
    for elsewhere in ["http://", "https://", "src=", "url(", "@import", "<script", "<link"] {
        assert!(!dom.contains(elsewhere), "{elsewhere}");
    }
}

#[test]
fn hostile_text_runs_no_script_even_without_the_policy() {
    const PWN: &str = "document.title='pwned'";
    let hostile = [
        format!("<script>{PWN}</script>"),
        format!("\"><img src=x onerror=\"{PWN}\">"),
        format!("' onmouseover='{PWN}' x='"),
        format!("</style></title></pre><svg onload={PWN}>"),
        format!("]]>--><iframe srcdoc=\"<script>parent.{PWN}</script>\">"),
        format!("javascript:{PWN}"),
        "\u{0}\u{1b}[31m\u{202e}\u{2028}\n".to_owned(),
    ];
    let dir = tempfile::tempdir().unwrap();
    let all = hostile.concat();
    let mut events = vec![Event::Signal({
        let mut signal = signal(json!({ all.as_str(): all, "list": hostile }));
        signal.sender_name = Some(all.clone());
        signal.cause.clone_from(&all);
        signal.signal = Some(all.clone());
        signal
    })];
    for text in &hostile {
        let mut finished = PhaseFinished::new(text, PhaseOutcome::Failed, 1, 1);
        finished.error = Some(text.clone());
        finished.values.insert(text.clone(), json!(text));
        let mut wedged = Stalled::new(StalledWhat::Phase, 1, text);
        wedged.phase = Some(text.clone());
        events.extend([
            Event::PhaseStarted(PhaseStarted::new(text, 0)),
            member(text, text),
            Event::Stalled(wedged),
            Event::PhaseFinished(finished),
        ]);
    }
    let page = page(dir.path(), &events);
    // The policy in the page's head would forbid scripts. It is removed here, to test the escaping
    // alone.
    let text = fs::read_to_string(&page).unwrap();
    let policy = text.lines().find(|line| line.contains("Content-Security-Policy")).unwrap();
    fs::write(&page, text.replace(policy, "")).unwrap();
    let Some(dom) = dom(&page) else { return };

    assert!(dom.contains("<title>gateway[4100]: killed_in_phase</title>"), "{dom}");
    for element in ["<script", "<img", "<svg", "<iframe"] {
        assert!(!dom.contains(element), "{element} in {dom}");
    }
    // None of it becomes an attribute.
    for tag in dom.split('<').skip(1).filter_map(|rest| rest.split('>').next()) {
        let mut quoted = tag.split('"').step_by(2);
        assert!(quoted.all(|outside| !outside.contains(" on")), "<{tag}>");
    }
    assert!(!dom.chars().any(|c| matches!(c, '\0' | '\u{1b}' | '\u{202e}' | '\u{2028}')));
}

/// Sends what the browser has laid out to the page around this one: the widths of the window and of the
/// page, and the edges of each element of a track as parts of the track.
const MEASURE: &str = r#"<script>
const parts = [...document.querySelectorAll(".track > *")].map(it => {
  const [box, track] = [it, it.parentElement].map(one => one.getBoundingClientRect());
  const part = x => (x - track.left) / track.width;
  const row = it.closest(".row").dataset.phase ?? "";
  return [it.className, row, part(box.left), part(box.right), box.width, it.textContent];
});
const all = document.documentElement;
parent.postMessage(JSON.stringify({ window: innerWidth, page: all.scrollWidth, parts }), "*");
</script>"#;

#[test]
fn the_axis_is_to_scale_and_fits_a_phone_and_short_phases_stay_visible() {
    const S: u64 = 1_000_000;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("20261123T101500.000000Z-4100.jsonl");
    let event = |at: u64, rest: &str| {
        format!(r#"{{"v":1,"ts":"2026-11-23T10:15:00.000000Z","mono_us":{at},{rest}}}"#) + "\n"
    };
    let ended = |phase: &str| {
        format!(
            r#""event":"phase_finished","phase":"{phase}","outcome":"ok","took_us":1,"offset_us":1"#
        )
    };
    let began = |phase: &str| {
        format!(
            r#""event":"phase_started","phase":"{phase}","timeout_us":{},"reserve_us":{S},"offset_us":1"#,
            4 * S
        )
    };
    let lines = [
        event(
            0,
            &format!(
                r#""event":"run_started","service":"gateway","pid":4100,"version":"0","stop_timeout_us":{}"#,
                8 * S
            ),
        ),
        event(
            0,
            &format!(
                r#""event":"signal","kind":"signal","signal":"SIGTERM","ordinal":1,"sender_pid":1,"sender_name":"systemd","cause":"systemd","line":"","deadline_us":{}"#,
                7 * S
            ),
        ),
        event(0, &began("first")),
        event(100, &ended("first")),
        event(2 * S, &began("drain")),
        event(6 * S, &ended("drain")),
        event(6 * S, &began("last")),
        event(6 * S + 1, &ended("last")),
        event(7 * S, r#""event":"stopped","how":"clean","exit_code":0,"total_us":7000000"#),
    ];
    fs::write(&file, lines.concat()).unwrap();
    let page = dir.path().join("page.html");
    let show = Command::new(env!("CARGO_BIN_EXE_forensics"))
        .arg("show")
        .arg(&file)
        .arg("--html")
        .arg(&page)
        .status();
    assert!(show.unwrap().success());
    let text = fs::read_to_string(&page).unwrap();
    let policy = text.lines().find(|line| line.contains("Content-Security-Policy")).unwrap();
    fs::write(&page, text.replace(policy, "").replace("</body>", &format!("{MEASURE}</body>")))
        .unwrap();
    for width in [400_u64, 1200] {
        // The window of a browser cannot be that narrow.
        let around = dir.path().join("around.html");
        let frame = format!(
            "<script>onmessage = e => document.title = 'measured ' + e.data</script>\
             <iframe src='page.html' style='width:{width}px;height:900px;border:0'></iframe>"
        );
        fs::write(&around, frame).unwrap();
        let Some(dom) = dom(&around) else { return };
        let measured =
            dom.split("<title>measured ").nth(1).unwrap().split("</title>").next().unwrap();
        let measured: serde_json::Value = serde_json::from_str(measured).unwrap();
        assert_eq!(measured["window"], width);
        assert!(measured["page"].as_u64().unwrap() <= width, "{measured}");
        let parts = measured["parts"].as_array().unwrap();
        let find = |class: &str, row: &str| {
            let is_it = |part: &&serde_json::Value| part[0] == class && part[1] == row;
            let part =
                parts.iter().find(is_it).unwrap_or_else(|| panic!("{class} {row}: {measured}"));
            [2, 3, 4].map(|n| part[n].as_f64().unwrap())
        };
        let near = |part: f64, expected: f64| assert!((part - expected).abs() < 0.03, "{measured}");
        // The chart ends with the stop timeout, at 8 s.
        let [from, to, _] = find("bar good", "drain");
        near(from, 2.0 / 8.0);
        near(to, 6.0 / 8.0);
        near(find("deadline", "")[0], 7.0 / 8.0);
        near(find("stop-timeout", "")[0], 1.0);
        near(find("reserve", "drain")[1], 3.0 / 8.0);
        let tick = |label: &str| parts.iter().find(|part| part[5] == label).unwrap();
        near(tick("4s")[2].as_f64().unwrap(), 4.0 / 8.0);
        for phase in ["first", "last"] {
            let [from, to, wide] = find("bar good", phase);
            assert!(wide >= 7.0 && from >= 0.0 && to <= 1.0, "{phase}: {measured}");
        }
    }
}
