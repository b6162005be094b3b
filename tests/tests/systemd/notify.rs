//! The messages of sd_notify, and their effect in systemd.

use crate::harness::{assert_says, under_systemd};

#[test]
fn a_unit_of_type_notify_is_up_when_the_gateway_runs_and_shows_the_phase_it_is_in() {
    let Some(said) = under_systemd(
        "start gw Type=notify TimeoutStopSec=60 -- --wedge drain --drain-timeout 5s
         systemctl stop --no-block gw
         until_status 'phase drain [1-4]\\.'; until_gone gw; systemctl show gw -p Result; log gw",
    ) else {
        return;
    };
    assert_says(&said, &["Status: \"Stopping: phase drain ", "Result=success"]);
}

#[test]
fn a_kill_by_another_process_starts_the_stop_timeout_if_systemd_is_notified() {
    let Some(said) = under_systemd(
        "start gw Type=notify TimeoutStopSec=3 -- --wedge drain --drain-timeout 20s
         kill $(systemctl show gw -P MainPID); until_gone gw
         systemctl show gw -p Result; log gw",
    ) else {
        return;
    };
    assert_says(
        &said,
        &[
            "cause=process",
            "deadline 2.25s: the unit's stop timeout of 3.00s less 750ms",
            "phase=db_close outcome=ok",
            "Result=success",
        ],
    );
}

#[test]
fn a_kill_by_systemctl_is_distinguished_from_a_stop_although_systemd_is_notified() {
    let Some(said) = under_systemd(
        "start gw Type=notify TimeoutStopSec=60 -- --wedge drain --drain-timeout 20s
         systemctl kill gw; until_log gw 'explained by systemd'
         for _ in $(seq 400); do
             state=$(systemctl show gw -P SubState); [ $state = stop-sigterm ] && break; sleep .05
         done
         echo state=$state; log gw",
    ) else {
        return;
    };
    assert_says(
        &said,
        &["explained by systemd: the unit is not being stopped: only a signal was sent"],
    );
    // Only because of STOPPING=1. systemd was not asked for a stop.
    assert_says(&said, &["state=stop-sigterm"]);
}

#[test]
fn the_stop_timeout_is_extended_while_requests_are_answered_but_not_for_a_stalled_one() {
    let script = |requests: &str| {
        format!(
            "start gw Type=notify TimeoutStopSec=6 -- --drain-timeout 60s --extend 20s
             port=$(log gw | sed -n 's|^listening on http://127.0.0.1:||p')
             for ms in {requests}; do
                 (
                     exec 3<>/dev/tcp/127.0.0.1/$port
                     printf 'GET /slow?ms=%s HTTP/1.0\r\n\r\n' $ms >&3
                     : >/tmp/sent.$ms
                     tail -n 1 <&3 >/tmp/answer.$ms
                 ) &
             done
             for ms in {requests}; do
                 until [ -e /tmp/sent.$ms ]; do sleep .02; done
             done
             # Waits until the gateway has read each of them: its sockets have no unread bytes.
             hex=$(printf %04X $port)
             while awk -v port=:$hex '$4 == \"01\" && $2 ~ port && $5 !~ /:00000000$/' \
                 /proc/net/tcp | grep -q .; do sleep .02; done
             systemctl stop --no-block gw; until_status active_now=1; until_gone gw
             systemctl show gw -p Result; wait; cat /tmp/answer.*; log gw"
        )
    };
    let Some(said) = under_systemd(&script("2000 2500 3000 3500 4000 4500 5000 8000")) else {
        return;
    };
    assert_says(
        &said,
        &[
            "s active_at_start=8 active_now=1 ",
            "Result=success",
            "active_at_start=8 active_now=0",
            "slept 8000 ms",
            "systemd is asked to restart its stop timeout of 6.00s, up to 20.00s in all",
        ],
    );
    let Some(said) = under_systemd(&script("500 50000")) else { return };
    assert_says(
        &said,
        &["Result=success", "phase=drain outcome=timed_out", "phase=db_close outcome=ok"],
    );
}

/// `systemctl kill` of units without a watchdog, with one that the guard feeds, and with one that
/// nothing feeds yet.
#[test]
fn a_sigabrt_by_systemctl_kill_is_no_missed_watchdog() {
    let Some(said) = under_systemd(
        "abort() {
             name=$1; shift
             systemd-run -q --unit=$name -p NotifyAccess=main -p LimitCORE=0 \"$@\" \
                 $SUBJECT --signals SIGABRT,SIGTERM --hold || exit 1
             until_log $name 'ready'; systemctl kill -s ABRT $name
             until_log $name 'explained by systemd'; log $name | sed \"s/^/$name: /\"
             systemctl kill -s KILL $name
         }
         abort none
         abort fed -p WatchdogSec=1h -E FORENSICS_WATCHDOG=yes
         abort unfed -p WatchdogSec=1h",
    ) else {
        return;
    };
    let lines = |unit: &str, text: &str| {
        let start = format!("{unit}: ");
        let mut lines = said.lines().filter(|line| line.starts_with(&start));
        lines.find(|line| line.contains(text)).unwrap_or_else(|| panic!("{unit} {text}: {said}"))
    };
    for unit in ["none", "fed"] {
        let line = lines(unit, "signal=SIGABRT");
        assert!(line.contains("cause=systemd"), "{line}");
    }
    for unit in ["none", "fed", "unfed"] {
        let explained = lines(unit, "Shutdown explained by systemd");
        assert!(!explained.contains("cause=watchdog"), "{explained}");
        assert!(explained.contains("only a signal was sent"), "{explained}");
    }
}

#[test]
fn the_watchdog_is_fed_while_the_runtime_answers_and_its_signal_is_named() {
    let Some(said) = under_systemd(
        "start gw Type=notify WatchdogSec=3 --
         systemd-run -q --unit=blocked -p NotifyAccess=main -p WatchdogSec=3 -p LimitCORE=0 \
             $TROUBLE blocked_task /tmp/records || exit 1
         systemd-run -q --unit=unfed -p NotifyAccess=main -p WatchdogSec=3 -p TimeoutAbortSec=20 \
             $SUBJECT --signals SIGABRT,SIGTERM --hold || exit 1
         until_gone blocked; systemctl show blocked -p Result
         until_log unfed 'explained by systemd'; log unfed
         # By now both have missed their watchdog timeout. Without WATCHDOG=1 this unit would have,
         # too.
         systemctl is-active gw; log gw",
    ) else {
        return;
    };
    assert_says(
        &said,
        &[
            "Result=watchdog",
            "WatchdogSec=3s is not fed by the guard",
            "signal=SIGABRT cause=watchdog under_systemd=yes sender_pid=1 sender_name=systemd",
            "Shutdown explained by systemd: the unit missed its watchdog message",
        ],
    );
    assert!(said.lines().any(|line| line == "active"), "{said}");
}
