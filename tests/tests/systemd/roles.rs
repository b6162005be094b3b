//! Which process of a unit notifies systemd of what.

use crate::harness::{assert_says, under_systemd};

/// Shell functions for a unit with several processes.
const PROCESSES: &str = r#"
    # In one call, because the unit may change between two.
    state() { echo "$1:" $(systemctl show gw -p ActiveState -p SubState --value); }
    main_pid() { systemctl show gw -P MainPID; }
    gone() { while kill -0 $1 2>/dev/null; do sleep .05; done; }
    # Starts the gateway as another process of the unit, and prints its pid. $1: when it becomes the
    # main process: `never`, `first`, `ready` (after it is ready). $2: its drain timeout.
    another() {
        cat >/tmp/another <<'END'
#!/bin/bash
echo $$ >/sys/fs/cgroup/system.slice/gw.service/cgroup.procs
export NOTIFY_SOCKET=/run/systemd/notify SYSTEMD_EXEC_PID=$2
[ $1 != first ] || systemd-notify MAINPID=$$
exec $GATEWAY --listen 127.0.0.1:0 --drain-timeout $3 --wedge drain
END
        GATEWAY=$GATEWAY setsid bash /tmp/another $1 $(main_pid) $2 >/tmp/another.log 2>&1 &
        pid=$!
        for _ in $(seq 400); do grep -qs 'systemd gives' /tmp/another.log && break; sleep .05; done
        if [ $1 = ready ]; then
            # systemd-notify speaks for its parent, so bash must not execute it in its own place.
            bash -c 'echo $$ >/sys/fs/cgroup/system.slice/gw.service/cgroup.procs
                NOTIFY_SOCKET=/run/systemd/notify systemd-notify MAINPID='$pid'; :'
        fi
    }
"#;

#[test]
fn a_helper_with_a_guard_does_not_stop_its_unit() {
    let script = PROCESSES.to_owned()
        + r#"
        start gw Type=notify NotifyAccess=all TimeoutStopSec=5 -- --drain-timeout 1s
        systemctl show gw -P StatusText
        another never 1s
        # Until systemd has read everything that the helper has sent.
        kill $pid; gone $pid; cat /tmp/another.log; sleep 1
        state after; systemctl show gw -P StatusText | sed 's/^/status: /'
        systemctl stop gw; echo "result: $(systemctl show gw -P Result)""#;
    let Some(said) = under_systemd(&script) else { return };
    assert_says(&said, &["Shutdown complete", "after: active running", "result: success"]);
    assert!(!said.contains("status: Stopping"), "{said}");
}

#[test]
fn after_a_handover_the_new_process_speaks_for_the_unit_and_the_old_one_does_not() {
    for when in ["first", "ready"] {
        let script = PROCESSES.to_owned()
            + &format!("when={when}\n")
            + r#"
            start gw Type=notify NotifyAccess=all TimeoutStopSec=5 -- --drain-timeout 1s --wedge drain
            old=$(main_pid); another $when 4s
            [ $(main_pid) = $pid ] || echo "no handover"
            kill $old; gone $old; sleep 1; state old
            # It looks itself whether it has become the main process.
            [ $when = first ] || sleep 2
            kill $pid
            for _ in $(seq 400); do state new | grep deactivating && break; sleep .05; done; gone $pid; until_gone gw
            echo "result: $(systemctl show gw -P Result)"; cat /tmp/another.log"#;
        let Some(said) = under_systemd(&script) else { return };
        assert_says(
            &said,
            &[
                "old: active running",
                "new: deactivating stop-sigterm",
                "result: success",
                "deadline 4.00s: the unit's stop timeout of 5.00s less 1.00s",
            ],
        );
        assert!(!said.contains("no handover"), "{said}");
    }
}

#[test]
fn a_unit_behind_a_script_becomes_ready() {
    let Some(said) = under_systemd(
        "printf '%s\\n' '#!/bin/sh' \"$GATEWAY --listen 127.0.0.1:0 --drain-timeout 1s &\" \
             'trap \"kill $!\" TERM' 'wait; wait' >/usr/local/bin/wrapper
         chmod +x /usr/local/bin/wrapper
         systemd-run -q --unit=gw -p Type=notify -p NotifyAccess=all /usr/local/bin/wrapper; echo started=$?
         systemctl stop gw; echo \"result: $(systemctl show gw -P Result)\"",
    ) else {
        return;
    };
    assert_says(&said, &["started=0", "result: success"]);
}
