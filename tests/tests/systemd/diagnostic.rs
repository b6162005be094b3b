//! The diagnostic of a unit that is killed during its stop, and of one that is stopped by a
//! shutdown of the system.

use crate::harness::{assert_says, under_systemd};

#[test]
fn it_outlives_a_unit_that_is_killed_during_its_stop() {
    let script = r#"
         until_end() {
             for _ in $(seq 400); do grep -q 'end of diagnostic' $1 && return; sleep .05; done
             echo "no end in $1:"; cat $1; exit 1
         }
         start gw TimeoutStopSec=1h -- --wedge drain --diag-log /tmp/gw.log
         systemd-run -q --unit=slow -p TimeoutStopSec=1h $TROUBLE slow_diagnostic /tmp/slow
         until_log slow 'systemd gives'
         systemctl stop --no-block gw slow
         until_log gw 'continues in its own unit'; until_log slow 'continues in its own unit'
         systemctl show 'shutdown-diagnostic-*' -p Environment -p ExecStart -p Description
         systemctl kill -s KILL gw slow; until_gone gw; until_gone slow
         systemctl show gw slow -p Result; log gw; cat /tmp/gw.log
         until_end /tmp/slow/diag.log; cat /tmp/slow/diag.log
         journalctl -q --no-pager -o cat | grep 'Shutdown diagnostic'"#;
    let Some(said) = under_systemd(script) else { return };
    assert_eq!(said.matches("Result=signal").count(), 2, "{said}");
    assert_says(
        &said,
        &[
            "Diagnostic continues in its own unit log=/tmp/gw.log unit=\"shutdown-diagnostic-",
            "=== gateway[",
            "--- subtree of ",
            // Three seconds after the signal, and after the unit was killed.
            "late with signal=SIGTERM cause=systemd",
            "Environment=FORENSICS_PID=",
            "Shutdown diagnostic of gateway[",
            "Shutdown diagnostic of trouble[",
        ],
    );
    assert_eq!(said.matches("\n--- end of diagnostic").count(), 2, "{said}");
    assert!(!said.contains("not in a separate unit"), "{said}");
    // Every user can read the settings of a unit.
    let settings = |line: &&str| line.starts_with("Environment=") || line.starts_with("ExecStart=");
    for line in said.lines().filter(settings) {
        assert!(!line.contains("signal="), "{line}");
    }
}

/// In a pid namespace of its own, the pid of the service is that of another process outside.
#[test]
fn in_a_pid_namespace_of_its_own_it_is_a_child() {
    let Some(said) = under_systemd(
        "start gw -- --diag-log /tmp/outside.log; systemctl stop gw
         systemd-run -q --unit=inside -p Type=simple unshare --pid --fork --kill-child --mount-proc \
             $GATEWAY --listen 127.0.0.1:0 --diag-log /tmp/inside.log || exit 1
         until_log inside 'listening on'
         systemctl kill inside; until_gone inside; log inside; cat /tmp/outside.log /tmp/inside.log
         echo \"units: $(journalctl -q -o cat | grep -c 'Started.*Shutdown diagnostic')\"",
    ) else {
        return;
    };
    assert_eq!(said.matches("\n--- end of diagnostic").count(), 2, "{said}");
    assert_says(&said, &["units: 1"]);
}

#[test]
fn without_privileges_it_is_a_child_that_ends_before_the_unit_is_killed() {
    let Some(said) = under_systemd(
        "ALIGNMENT='Stop timeout not checked'
         start gw DynamicUser=yes StateDirectory=gw TimeoutStopSec=2 \
             -- --wedge drain --diag-log /var/lib/gw/diag.log
         systemctl stop gw; systemctl show gw -p Result; log gw; cat /var/lib/private/gw/diag.log
         journalctl -q --no-pager -o cat | grep 'Shutdown diagnostic' || :",
    ) else {
        return;
    };
    assert_says(&said, &["Result=timeout", "--- subtree of ", "--- end of diagnostic"]);
    assert!(!said.contains("Shutdown diagnostic of"), "{said}");
}

#[test]
fn it_is_written_while_the_system_shuts_down() {
    let Some(said) =
        under_systemd("start gw -- --diag-log $SHARED/log; systemctl poweroff; sleep 20")
    else {
        return;
    };
    assert_says(&said, &["=== gateway[", "--- end of diagnostic"]);
    assert!(!said.contains("not in a separate unit"), "{said}");
}
