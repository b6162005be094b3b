//! Boots a systemd and runs a script in it.

use std::path::{Path, PathBuf};
use std::process::Command;

use forensics_tests::{example, forensics};

/// The exit status of `boot` if this machine cannot run it.
const CANNOT: i32 = 77;

/// Shell functions for the scripts. They wait by polling, for at most 20 s.
const PRELUDE: &str = r#"
set -u
# A path that is also visible to a unit with a private /tmp or /home.
cp "$GATEWAY" "$FORENSICS" "$SUBJECT" "$TROUBLE" "$HAMMER" "$LOG_RECEIVERS" /usr/local/bin/
GATEWAY=/usr/local/bin/gateway FORENSICS=/usr/local/bin/forensics
SUBJECT=/usr/local/bin/subject TROUBLE=/usr/local/bin/trouble HAMMER=/usr/local/bin/hammer
LOG_RECEIVERS=/usr/local/bin/log_receivers
log() { journalctl -q --no-pager -o cat -u "$1"; }
warnings() { echo "warnings of $1: $(journalctl -q -o cat -p warning -u "$1" | wc -l)"; }
until_log() {
    for _ in $(seq 400); do log "$1" | grep -q "$2" && return; sleep .05; done
    echo "no '$2' in the log of $1:"; log "$1"; exit 1
}
until_gone() {
    for _ in $(seq 400); do
        case $(systemctl is-active "$1") in inactive | failed) return ;; esac
        sleep .05
    done
    echo "$1 does not end:"; log "$1"; exit 1
}
until_status() {
    for _ in $(seq 400); do systemctl status gw | grep "Status:.*$1" && return; sleep .05; done
    echo "no status '$1'"; log gw; exit 1
}
# start UNIT PROPERTIES... -- ARGUMENTS...: the gateway as a service, up and asked for its timeout
start() {
    unit=$1 properties=(); shift
    while [ "$1" != -- ]; do properties+=(-p "$1"); shift; done; shift
    systemd-run -q --unit="$unit" -p RemainAfterExit=no "${properties[@]}" "$GATEWAY" "$@" || exit 1
    until_log "$unit" 'listening on'
    until_log "$unit" "${ALIGNMENT:-systemd gives}"
}
"#;

/// A system to boot.
#[derive(Debug, Clone, Copy)]
pub(crate) enum System {
    /// The host's systemd, without a system bus.
    Host,
    /// The host's systemd, with a system bus.
    HostWithBus,
    /// The systemd of Debian trixie, with a system bus. `tests/systemd/trixie` makes its root.
    Trixie,
}

/// Boots the host's systemd, without a system bus, and runs a script in it, as [`under`].
pub(crate) fn under_systemd(script: &str) -> Option<String> {
    under(System::Host, script)
}

/// Boots a systemd and runs a script in it. `None` if this machine cannot boot it. The script finds the gateway as `$GATEWAY`, the command line tool as `$FORENSICS`, this package's programs
/// as `$SUBJECT`, `$TROUBLE`, `$HAMMER` and `$LOG_RECEIVERS`, and a folder shared with the host as `$SHARED`.
pub(crate) fn under(system: System, script: &str) -> Option<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (gateway, forensics) = (example("gateway"), forensics());
    let subject = PathBuf::from(env!("CARGO_BIN_EXE_subject"));
    let trouble = PathBuf::from(env!("CARGO_BIN_EXE_trouble"));
    let hammer = PathBuf::from(env!("CARGO_BIN_EXE_hammer"));
    let log_receivers = PathBuf::from(env!("CARGO_BIN_EXE_log_receivers"));
    let shared = tempfile::tempdir().unwrap();
    let folder = |path: &PathBuf| path.parent().unwrap().to_owned();
    let variables = format!(
        "GATEWAY='{}' FORENSICS='{}' SUBJECT='{}' TROUBLE='{}' HAMMER='{}' LOG_RECEIVERS='{}' SHARED='{}'\n",
        gateway.display(),
        forensics.display(),
        subject.display(),
        trouble.display(),
        hammer.display(),
        log_receivers.display(),
        shared.path().display(),
    );
    let trixie = root.join("../target/trixie");
    let mut boot = Command::new(root.join("systemd/boot"));
    match system {
        System::Host => {}
        System::HostWithBus => drop(boot.arg("-d")),
        System::Trixie => drop(boot.arg("-d").arg("-r").arg(&trixie)),
    }
    // In seconds. `STOPS` asks for many more stops than usual.
    let limit = if std::env::var_os("STOPS").is_some() { "1800" } else { "100" };
    let output = boot
        .arg("-b")
        .arg(folder(&gateway))
        .arg("-b")
        .arg(folder(&forensics))
        .arg("-b")
        .arg(shared.path())
        .args(["timeout", limit, "bash", "-c", &format!("{variables}{PRELUDE}{script}")])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(CANNOT) {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "must not be skipped: {stderr}");
        eprintln!("skipped: {stderr}");
        return None;
    }
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    // A script that shuts the system down is ended before it can print its log.
    if let Ok(log) = std::fs::read_to_string(shared.path().join("log")) {
        said.push_str(&log);
    } else {
        assert!(output.status.success(), "{stderr}\n{said}");
    }
    Some(said)
}

/// The text after `start` and before `end`, in the first line that has both.
pub(crate) fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    text.lines().find_map(|line| Some(line.split_once(start)?.1.split_once(end)?.0))
}

/// The rows of the first table below a heading of docs/systemd-details.md.
pub(crate) fn table(heading: &str) -> Vec<Vec<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = std::fs::read_to_string(root.join("docs/systemd-details.md")).unwrap();
    let (_, section) = text.split_once(&format!("{heading}\n")).unwrap();
    let table = section.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    let row =
        |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    table.take_while(|line| line.starts_with('|')).map(row).collect()
}

/// Asserts that the text contains each of these.
pub(crate) fn assert_says(text: &str, expected: &[&str]) {
    for expected in expected {
        assert!(text.contains(expected), "no `{expected}` in:\n{text}");
    }
}
