//! Checks the signals that a unit sends to its service against those that the service's guard handles.
//!
//! `ExecReload=` is a command, so what it sends is read from its words: kill(1), pkill(1), killall(1)
//! and `systemctl kill`, also inside a shell's command line. A script that sends a signal is not
//! recognized.

use super::lint::{Finding, Severity, finding};
use super::show::UnitProperties;
use crate::capture::Signal;
use crate::escape::Escaped;

/// The signals that a guard handles by default.
pub const DEFAULT_SIGNALS: [Signal; 4] = [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT];

const SIGKILL: Signal = Signal::from_raw(nix::libc::SIGKILL);

/// Checks the signals of a unit whose guard handles `guarded`. No findings if nothing is wrong, if the
/// unit is not loaded, or if the guard handles no signals at all.
pub fn lint_signals(unit: &UnitProperties, guarded: &[Signal]) -> Vec<Finding> {
    let mut found = Vec::new();
    if unit.load_state.as_deref() != Some("loaded") || guarded.is_empty() {
        return found;
    }
    let guard = format!("the guard's signals ({})", list_signals(guarded));
    let mut add = |severity, what: String, fix: &str| found.push(finding(severity, what, fix));
    let is_handled = |signal: &Signal| guarded.contains(signal);
    let handled = if is_handled(&Signal::TERM) { Signal::TERM } else { guarded[0] };
    if let Some(signal) = unit.kill_signal.filter(|signal| !is_handled(signal)) {
        let what = format!("KillSignal={signal} is not among {guard}, so it starts no teardown");
        add(Severity::Error, what, &format!("KillSignal={handled}"));
    }
    let restart = unit.restart_kill_signal.filter(|_| unit.restart_kill_signal != unit.kill_signal);
    if let Some(signal) = restart.filter(|signal| !is_handled(signal)) {
        let what =
            format!("RestartKillSignal={signal} is not among {guard}, so it starts no teardown");
        add(Severity::Warning, what, &format!("RestartKillSignal={handled}"));
    }
    let last = unit.final_kill_signal.filter(|&signal| signal != SIGKILL);
    if let Some(signal) = last.filter(|signal| !is_handled(signal)) {
        let what =
            format!("FinalKillSignal={signal} is not among {guard}, so it starts no teardown");
        add(Severity::Warning, what, "FinalKillSignal=SIGKILL");
    }
    for command in &unit.exec_reload {
        if let Some(signal) = sent_signals(command).into_iter().find(is_handled) {
            let what = format!(
                "ExecReload={} sends {signal}, which the guard takes for a request to stop",
                Escaped(command)
            );
            let fix = format!(
                "an empty ExecReload=, which turns systemctl reload off; or a service that handles \
                 {signal} itself, and leaves it out of Builder::signals"
            );
            add(Severity::Warning, what, &fix);
        }
    }
    let notifies = unit.service_type.as_deref() == Some("notify-reload");
    let reload = unit.reload_signal.unwrap_or(Signal::HUP);
    if notifies && is_handled(&reload) {
        let what = format!(
            "Type=notify-reload: a reload sends {reload}, which the guard takes for a request to stop"
        );
        let fix = format!(
            "Type=notify, which turns systemctl reload off; or a service that handles {reload} itself, \
             and leaves it out of Builder::signals"
        );
        add(Severity::Warning, what, &fix);
    }
    found
}

/// The names, separated by commas.
pub fn list_signals(signals: &[Signal]) -> String {
    signals.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The signals that a command line sends.
fn sent_signals(command: &str) -> Vec<Signal> {
    // What separates the commands of a shell's command line.
    let commands = command.split([';', '&', '|', '(', ')', '{', '}', '`', '\n']);
    commands.filter_map(sent_signal).collect()
}

/// The signal that a simple command sends.
fn sent_signal(command: &str) -> Option<Signal> {
    let words = command.split_whitespace().map(|word| word.trim_matches(['"', '\'']));
    let mut words =
        words.map(|word| word.rsplit_once('/').map_or(word, |(_, name)| name)).peekable();
    let mut before = "";
    let program = loop {
        match words.next()? {
            // These programs have a command `kill` for other targets.
            "kill" if matches!(before, "docker" | "podman" | "nerdctl" | "kubectl") => return None,
            program @ ("kill" | "pkill" | "killall" | "skill") => break program,
            other => before = other,
        }
    };
    while let Some(word) = words.next() {
        let Some(option) = word.strip_prefix('-') else { continue };
        let value = match option {
            "-signal" | "s" if option != "s" || program != "pkill" => words.next()?,
            "n" if program == "kill" => words.next()?,
            "l" | "L" | "-list" | "-table" if program != "pkill" => return None,
            _ => {
                let attached = option.strip_prefix("-signal=");
                attached
                    .or(option.strip_prefix('s').filter(|_| program != "pkill"))
                    .unwrap_or(option)
            }
        };
        // Signal 0 sends nothing.
        if value == "0" {
            return None;
        }
        let named = signal(value).or_else(|| signal(option));
        if named.is_some() {
            return named;
        }
    }
    Some(Signal::TERM)
}

/// Reads `HUP`, `SIGHUP`, `hup` or `1`.
fn signal(text: &str) -> Option<Signal> {
    if let Ok(number) = text.parse() {
        return (1..=64).contains(&number).then(|| Signal::from_raw(number));
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        .then(|| format!("SIG{name}").parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signal_that_a_reload_command_sends_is_found() {
        let (hup, usr1) = (Some(Signal::HUP), Some(Signal::from_raw(nix::libc::SIGUSR1)));
        let cases = [
            ("/bin/kill -HUP $MAINPID", hup),
            ("/usr/bin/kill -SIGHUP $MAINPID", hup),
            ("kill -hup $MAINPID", hup),
            ("kill -1 $MAINPID", hup),
            ("kill -s HUP $MAINPID", hup),
            ("kill -s SIGHUP $MAINPID", hup),
            ("kill -s 1 $MAINPID", hup),
            ("kill -sHUP $MAINPID", hup),
            ("kill -n 1 $MAINPID", hup),
            ("kill --signal HUP $MAINPID", hup),
            ("kill --signal=SIGHUP -- $MAINPID", hup),
            ("kill --verbose -HUP $MAINPID", hup),
            ("/bin/busybox kill -HUP $MAINPID", hup),
            ("/usr/bin/env kill -HUP $MAINPID", hup),
            ("/bin/sh -c kill -HUP $MAINPID", hup),
            (r#"/bin/sh -c "kill" '-HUP' $MAINPID"#, hup),
            ("/bin/sh -c gateway --check && kill -HUP $MAINPID", hup),
            ("/bin/sh -c test -e x || exit 1; kill -s HUP $(cat /run/gw.pid)", hup),
            ("/bin/sh -c { kill -HUP $MAINPID; }", hup),
            ("pkill -HUP gateway", hup),
            ("/usr/bin/pkill -x --signal HUP gateway", hup),
            ("pkill -s 1 -HUP gateway", hup),
            ("pkill -1 -f gateway", hup),
            ("killall -s HUP gateway", hup),
            ("killall -q -HUP gateway", hup),
            ("systemctl kill -s HUP gw.service", hup),
            ("/usr/bin/systemctl kill --kill-who=main --signal=SIGHUP gw.service", hup),
            ("kill -USR1 $MAINPID", usr1),
            ("kill -USR1 -HUP", usr1),
            // Without an option SIGTERM is sent.
            ("kill $MAINPID", Some(Signal::TERM)),
            ("pkill -f gateway", Some(Signal::TERM)),
            ("systemctl kill gw.service", Some(Signal::TERM)),
            // These send nothing to us.
            ("kill -0 $MAINPID", None),
            ("kill -s 0 $MAINPID", None),
            ("kill -l HUP", None),
            ("docker kill -s HUP web", None),
            ("/usr/sbin/nginx -s reload", None),
            ("/usr/local/bin/gateway reload", None),
            ("/usr/bin/curl -X POST http://localhost/-/reload", None),
            ("/bin/true", None),
            ("", None),
        ];
        for (command, expected) in cases {
            assert_eq!(sent_signals(command).first().copied(), expected, "{command}");
        }
    }

    #[test]
    fn each_signal_that_the_guard_does_not_expect_is_reported_with_its_fix() {
        const PLAIN: &str = "LoadState=loaded\nType=notify\nKillSignal=15\nRestartKillSignal=15\n\
            FinalKillSignal=9\nReloadSignal=1\n";
        let usr1 = nix::libc::SIGUSR1;
        let cases = [
            (String::new(), None),
            ("KillSignal=2\nRestartKillSignal=2".to_owned(), None),
            (
                format!("KillSignal={usr1}\nRestartKillSignal={usr1}"),
                Some(("KillSignal=SIGUSR1 is not among", "KillSignal=SIGTERM")),
            ),
            ("KillSignal=9\nRestartKillSignal=15".to_owned(), Some(("KillSignal=SIGKILL", "KillSignal=SIGTERM"))),
            (
                format!("RestartKillSignal={usr1}"),
                Some(("RestartKillSignal=SIGUSR1 is not among", "RestartKillSignal=SIGTERM")),
            ),
            ("FinalKillSignal=6".to_owned(), Some(("FinalKillSignal=SIGABRT", "FinalKillSignal=SIGKILL"))),
            (
                "ExecReload={ path=/bin/kill ; argv[]=/bin/kill -HUP $MAINPID ; ignore_errors=no ; }".to_owned(),
                Some(("ExecReload=/bin/kill -HUP $MAINPID sends SIGHUP", "an empty ExecReload=")),
            ),
            (
                "ExecReload={ path=/bin/kill ; argv[]=/bin/kill -USR2 $MAINPID ; ignore_errors=no ; }".to_owned(),
                None,
            ),
            ("Type=notify-reload".to_owned(), Some(("Type=notify-reload: a reload sends SIGHUP", "Type=notify,"))),
            (format!("Type=notify-reload\nReloadSignal={usr1}"), None),
            (format!("LoadState=not-found\nKillSignal={usr1}"), None),
        ];
        for (lines, expected) in cases {
            let unit = UnitProperties::parse(format!("{lines}\n{PLAIN}").trim_start());
            let found = lint_signals(&unit, &DEFAULT_SIGNALS);
            assert_eq!(found.len(), usize::from(expected.is_some()), "{lines}: {found:?}");
            if let Some((what, fix)) = expected {
                assert!(found[0].what.starts_with(what), "{found:?}");
                assert!(found[0].fix.as_ref().unwrap().starts_with(fix), "{found:?}");
            }
            assert_eq!(lint_signals(&unit, &[]), []);
        }
        // A guard without SIGHUP.
        let reload = "ExecReload={ path=/bin/kill ; argv[]=/bin/kill -HUP 1 ; ignore_errors=no ; }";
        let unit = UnitProperties::parse(&format!("{PLAIN}Type=notify-reload\n{reload}\n"));
        assert_eq!(lint_signals(&unit, &[Signal::TERM]), []);
    }
}
