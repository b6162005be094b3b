//! The signals that a unit sends to its service, and whether the fixes that are recommended work.

use crate::harness::{assert_says, under_systemd};

#[test]
fn signals_that_the_guard_does_not_expect_are_reported_and_the_fixes_work() {
    let Some(said) = under_systemd(
        r#"cd /run/systemd/system
        unit() {
            name=$1; shift
            printf '%s\n' '[Service]' Type=notify "ExecStart=$GATEWAY" TimeoutStopSec=60 "$@" >$name.service
        }
        drop_in() { mkdir $1.service.d; printf '%s\n' '[Service]' "${@:2}" >$1.service.d/fix.conf; }
        unit reloads 'ExecReload=/bin/kill -HUP $MAINPID'
        unit deaf KillSignal=SIGUSR1 RestartKillSignal=SIGUSR2 FinalKillSignal=SIGABRT
        unit plain 'ExecReload=/bin/true'
        systemctl daemon-reload; systemctl start reloads deaf plain
        for unit in reloads deaf plain; do until_log $unit 'systemd gives'; done
        for unit in reloads deaf plain; do warnings $unit; log $unit; done
        for unit in reloads deaf plain; do $FORENSICS check $unit --drain 30s; done
        echo '= fixed'
        drop_in reloads ExecReload=
        drop_in deaf KillSignal=SIGTERM RestartKillSignal=SIGTERM FinalKillSignal=SIGKILL
        systemctl daemon-reload
        for unit in reloads deaf; do $FORENSICS check $unit --drain 30s; done
        systemctl reload reloads; echo "reload=$?"; systemctl is-active reloads
        systemctl stop deaf; log deaf"#,
    ) else {
        return;
    };
    let (before, after) = said.split_once("= fixed").unwrap();
    let guarded =
        "the guard's signals (SIGTERM, SIGINT, SIGHUP, SIGQUIT), so it starts no teardown";
    let signals = [
        ("KillSignal=SIGUSR1", "KillSignal=SIGTERM"),
        ("RestartKillSignal=SIGUSR2", "RestartKillSignal=SIGTERM"),
        ("FinalKillSignal=SIGABRT", "FinalKillSignal=SIGKILL"),
    ];
    for (setting, fix) in signals {
        assert_says(before, &[&format!("{setting} is not among {guarded}; fix: {fix} unit=")]);
        assert_says(before, &[&format!(": {setting} is not among {guarded}\n  fix: {fix}\n")]);
    }
    let reload = "ExecReload=/bin/kill -HUP $MAINPID sends SIGHUP, which the guard takes for a request to stop";
    assert_says(
        before,
        &[
            &format!("\n{reload}; fix: an empty ExecReload="),
            &format!("warning: {reload}\n  fix: an empty ExecReload="),
            "warnings of reloads: 1\n",
            "warnings of deaf: 3\n",
            "warnings of plain: 0\n",
        ],
    );
    assert!(!after.contains("warning: ") && !after.contains("error: "), "{after}");
    assert_says(
        after,
        &["reload=3\nactive\n", "signal=SIGTERM cause=systemd", "Shutdown complete"],
    );
}

#[test]
fn if_sigchld_is_ignored_systemds_answers_are_read_and_the_diagnostic_runs() {
    let Some(said) = under_systemd(
        r#"GATEWAY="/usr/bin/env --ignore-signal=CHLD $GATEWAY"
        systemd-run -q --unit=gw -p TimeoutStopSec=50 $GATEWAY --drain-timeout 10s --wedge drain \
            --diag-log /tmp/diag.log
        until_log gw 'systemd gives'
        systemctl stop --no-block gw
        until_log gw 'Shutdown explained'; until_log gw 'Diagnostic '
        until grep -q '^--- end of' /tmp/diag.log; do sleep .05; done
        log gw; cat /tmp/diag.log; systemctl kill -s KILL gw"#,
    ) else {
        return;
    };
    assert_says(
        &said,
        &[
            "gw.service: systemd gives 50s, drain 10s + headroom 30s = 40s is needed: aligned",
            "explained by systemd: a stop job, as by systemctl stop",
            "Diagnostic continues in its own unit",
        ],
    );
    assert!(!said.contains("not in a separate unit"), "{said}");
}
