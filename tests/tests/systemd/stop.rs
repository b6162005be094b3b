//! Stops of all kinds, and how the gateway reports them.

use crate::harness::{assert_says, under_systemd};

#[test]
fn a_tight_stop_timeout_cuts_the_drain_and_keeps_the_reserved_phase() {
    let Some(said) = under_systemd(
        "start gw TimeoutStopSec=3 -- --wedge drain --drain-timeout 10s
         systemctl stop gw; systemctl show gw -p Result; log gw",
    ) else {
        return;
    };
    assert_says(
        &said,
        &[
            "Result=success",
            "gw.service: systemd gives 3s, drain 10s + headroom 30s = 40s is needed: 37s short; \
             fix: `systemctl edit gw.service` with [Service] TimeoutStopSec=40s",
            "signal=SIGTERM cause=systemd under_systemd=yes sender_pid=1 sender_name=systemd",
            "deadline 2.25s: the unit's stop timeout of 3.00s less 750ms",
            "Shutdown explained by systemd: a stop job",
            "phase=drain outcome=timed_out",
            "phase=db_close outcome=ok",
            "gw.service: Deactivated successfully.",
        ],
    );
}

#[test]
fn roomy_and_infinite_timeouts_are_aligned_and_do_not_shorten_the_deadline() {
    for timeout in ["5min", "infinity"] {
        let script = format!(
            "start gw TimeoutStopSec={timeout} -- --drain-timeout 10s
             systemctl stop gw; systemctl show gw -p Result; warnings gw; log gw"
        );
        let Some(said) = under_systemd(&script) else { return };
        let gives = format!("gw.service: systemd gives {timeout}, drain 10s");
        assert_says(
            &said,
            &["Result=success", &gives, "aligned", "(deadline 25.00s)", "warnings of gw: 0\n"],
        );
        assert!(!said.contains("short"), "{said}");
    }
}

#[test]
fn a_kill_by_another_process_is_not_attributed_to_systemd() {
    let Some(said) = under_systemd(
        "start gw TimeoutStopSec=3 -- --drain-timeout 10s
         kill $(systemctl show -P MainPID gw); until_gone gw; log gw",
    ) else {
        return;
    };
    // A builtin of the shell that runs the script. The shell has neither a terminal nor a login
    // session.
    assert_says(&said, &["cause=process under_systemd=yes", "sender_name=bash"]);
    // systemd's stop timer does not run for it.
    assert_says(&said, &["(deadline 25.00s)"]);
    assert!(!said.contains("explained by systemd"), "{said}");
}

#[test]
fn a_run_that_systemd_killed_is_reported_at_the_next_start_and_after_the_stop() {
    // Without systemctl the gateway does not know the timeout, and keeps its own
    // deadline.
    let Some(said) = under_systemd(
        "ALIGNMENT='Stop timeout not checked'
         start gw TimeoutStopSec=2 InaccessiblePaths=/usr/bin/systemctl \
             \"ExecStopPost=$FORENSICS last $SHARED/records\" \
             -- --records $SHARED/records --wedge drain
         systemctl stop gw; systemctl show gw -p Result; log gw
         systemctl reset-failed gw
         start gw InaccessiblePaths=/usr/bin/systemctl -- --records $SHARED/records; log gw",
    ) else {
        return;
    };
    assert_says(&said, &["Result=timeout", "Previous run: outcome=killed_in_phase"]);
    // By ExecStopPost=, directly after the stop.
    let post = said.lines().find(|line| line.starts_with("outcome=killed_in_phase")).unwrap();
    assert_says(post, &["phase=drain", "signal=SIGTERM cause=systemd", "sender_name=systemd"]);
}

#[test]
fn a_hardened_unit_loses_only_the_name_that_it_cannot_read() {
    let Some(said) = under_systemd(
        // It cannot ask systemd for its timeout, either: there is no system bus, and only root can
        // use the private socket.
        "ALIGNMENT='Stop timeout not checked'
         start gw DynamicUser=yes NoNewPrivileges=yes ProtectSystem=strict ProtectProc=invisible \
             PrivateTmp=yes StateDirectory=gw SystemCallFilter=@system-service \
             -- --records /var/lib/gw/records --diag-log /var/lib/gw/diag.log
         systemctl stop gw; systemctl show gw -p Result
         log gw; warnings gw; tail -n 1 /var/lib/private/gw/diag.log; ls /var/lib/private/gw/records",
    ) else {
        return;
    };
    assert_says(
        &said,
        &[
            "Result=success",
            // ProtectProc= hides process 1, but it is known by its pid and our unit.
            "cause=systemd under_systemd=yes sender_pid=1 sender_name=? sender_hidden=yes",
            "phase=db_close outcome=ok",
            "--- end of diagnostic",
            ".jsonl",
            "warnings of gw: 0\n",
        ],
    );
}

#[test]
fn the_state_directory_of_a_dynamic_user_is_used_although_it_is_a_symbolic_link() {
    let Some(said) = under_systemd(
        "ALIGNMENT='Stop timeout not checked'
         for run in no-1 no-2 yes-1 yes-2; do
             start gw-$run DynamicUser=yes User=gw StateDirectory=gw PrivateUsers=${run%-*} \
                 -- --records /var/lib/gw --diag-log /var/lib/gw/diag.log
             systemctl stop gw-$run; log gw-$run; warnings gw-$run
         done
         stat -c '%F %U' /var/lib/gw
         ls /var/lib/private/gw; grep -c 'end of diagnostic' /var/lib/private/gw/diag.log",
    ) else {
        return;
    };
    assert_says(&said, &["symbolic link root", "warnings of gw-yes-2: 0\n", "\n4\n"]);
    assert_eq!(said.matches("Previous run: outcome=clean").count(), 3, "{said}");
    assert_eq!(said.matches(".jsonl\n").count(), 4, "{said}");
    assert_eq!(said.matches(": 0\n").count(), 4, "{said}");
}

#[test]
fn the_command_line_checks_a_real_unit() {
    let Some(said) = under_systemd(
        "systemd-run -q --unit=gw -p TimeoutStopSec=45 sleep 1000
         $FORENSICS check gw --drain 60s; echo status=$?
         mkdir -p /run/systemd/system/gw.service.d
         $FORENSICS check gw --drain 10s; echo status=$?
         $FORENSICS check nothing-there --drain 10s; echo status=$?",
    ) else {
        return;
    };
    assert_says(
        &said,
        &["status=1", "systemctl edit gw.service", "TimeoutStopSec=90s", "status=0", "status=3"],
    );
}
