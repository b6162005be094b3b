//! A faulty `systemctl` or `systemd-run`, mounted over the system's own.

use crate::harness::{assert_says, under_systemd};

/// The script of each fake, and the message about it at the start.
const FAKES: [(&str, &str, &str); 6] = [
    ("sleeps", "exec sleep 1000", "systemctl did not answer within 5s"),
    ("deaf", "trap '' TERM INT HUP; sleep 1000; sleep 1000", "systemctl did not answer within 5s"),
    ("garbage", "head -c 4096 /dev/urandom", "systemctl reports no TimeoutStopUSec"),
    ("floods", "exec cat /dev/zero", "it printed more than 1 MiB"),
    ("fails", "echo 'no bus for you' >&2; exit 7", "systemctl: exit status: 7: no bus for you"),
    ("forks", "sleep 1000 & exit 0", "systemctl did not answer within 5s"),
];

#[test]
fn a_systemctl_that_hangs_or_lies_costs_only_its_information() {
    let mut script = "declare -A said\n".to_owned();
    for (name, does, said) in FAKES {
        script.push_str(&format!(
            "mkdir -p /fake/{name}; said[{name}]=\"{said}\"
             cat >/fake/{name}/systemctl <<'END'\n#!/bin/sh\n{does}\nEND\n"
        ));
    }
    script.push_str(
        r#"chmod +x /fake/*/systemctl
        run() {
            ALIGNMENT="Stop timeout not checked: .*${said[$1]}" start $1 Type=notify \
                BindReadOnlyPaths=/fake/$1/systemctl:/usr/bin/systemctl TimeoutStopSec=20 -- --drain-timeout 1s
            before=$(date +%s%N); systemctl stop $1
            echo "$1: $(systemctl show $1 -P Result) $((($(date +%s%N) - before) / 1000000)) ms"
            echo "$1: $(log $1 | grep -c 'phase finished') phases, $(warnings $1)"
        }
        for fake in "${!said[@]}"; do run $fake & done; wait
        journalctl --sync
        for fake in "${!said[@]}"; do log $fake | grep -F "$fake.service: " || :; done
        echo "left: $(pgrep -c 'sleep|systemctl|cat')""#,
    );
    let Some(said) = under_systemd(&script) else { return };
    for (name, ..) in FAKES {
        let phases = format!("{name}: 6 phases, warnings of {name}: 0");
        assert_says(&said, &[&format!("{name}: success "), &phases]);
        // The question to systemd at the signal may take a second. It runs concurrently and delays
        // nothing.
        let (_, took) = said.split_once(&format!("{name}: success ")).unwrap();
        let took: u32 = took.split(' ').next().unwrap().parse().unwrap();
        assert!(took < 10_000, "{said}");
    }
    // No fake and no process that it started remains, and systemd had to end none.
    assert_says(&said, &["left: 0"]);
    for by_force in ["Killing process", "final-sigterm", "left-over process"] {
        assert!(!said.contains(by_force), "{said}");
    }
}

#[test]
fn a_systemctl_that_loses_its_connection_is_started_again() {
    let Some(said) = under_systemd(
        r#"mkdir -p /fake/breaks /fake/no-peer /real; cp /usr/bin/systemctl /real
        # As during `systemctl daemon-reexec`: twice at the start, and twice at the stop.
        cat >/fake/breaks/systemctl <<'END'
#!/bin/sh
mkdir /tmp/1 2>/dev/null || mkdir /tmp/2 2>/dev/null || {
    [ -e /tmp/stop ] && { mkdir /tmp/3 2>/dev/null || mkdir /tmp/4 2>/dev/null; }
} || exec /real/systemctl "$@"
echo 'Failed to connect to system scope bus via local transport: Connection refused' >&2
exit 1
END
        # As with PrivatePIDs=.
        cat >/fake/no-peer/systemctl <<'END'
#!/bin/sh
[ -n "$SYSTEMCTL_FORCE_BUS" ] && unset SYSTEMCTL_FORCE_BUS && exec /real/systemctl "$@"
echo 'Failed to connect to system scope bus via local transport: No data available' >&2
exit 1
END
        chmod +x /fake/*/systemctl
        for fake in breaks no-peer; do
            start $fake BindReadOnlyPaths=/fake/$fake/systemctl:/usr/bin/systemctl -- --wedge drain --drain-timeout 2s
            : >/tmp/stop; systemctl stop $fake; log $fake
        done; ls -d /tmp/[1-4]"#,
    ) else {
        return;
    };
    assert_says(&said, &["breaks.service: systemd gives 1min", "no-peer.service: systemd gives"]);
    assert_eq!(said.matches("explained by systemd: a stop job").count(), 2, "{said}");
    assert_says(&said, &["/tmp/1\n/tmp/2\n/tmp/3\n/tmp/4"]);
}

#[test]
fn a_systemd_run_that_hangs_is_replaced_by_a_child_after_a_second() {
    let Some(said) = under_systemd(
        r#"mkdir /fake; printf '#!/bin/sh\ntrap "" TERM; sleep 1000; :\n' >/fake/systemd-run
        chmod +x /fake/systemd-run
        start gw BindReadOnlyPaths=/fake/systemd-run:/usr/bin/systemd-run TimeoutStopSec=90 -- --diag-log /tmp/diag.log
        systemctl stop gw; systemctl show gw -p Result; log gw; warnings gw; cat /tmp/diag.log
        echo "left: $(pgrep -c 'sleep|systemd-run')""#,
    ) else {
        return;
    };
    assert_says(
        &said,
        &[
            "Result=success",
            "Diagnostic written log=/tmp/diag.log",
            "warnings of gw: 0",
            "--- not in a separate unit: systemd-run did not answer within 1s",
            "--- end of diagnostic",
            "left: 0",
        ],
    );
}
