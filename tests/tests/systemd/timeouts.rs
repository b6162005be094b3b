//! The deadline and systemd's stop timeouts.

use crate::harness::{assert_says, under_systemd};

/// A shell function: the gateway as the unit NAME with these lines, started and ready.
const UNIT: &str = r#"
    unit() {
        name=$1; shift
        printf '%s\n' '[Service]' NotifyAccess=none TimeoutStopSec=6 "$@" \
            >/run/systemd/system/$name.service
        systemctl daemon-reload
        systemctl start --no-block $name
        until_log $name 'listening on'; until_log $name 'systemd gives'
    }
    # What systemd and the gateway said about each unit, one line per fact.
    report() {
        for name in "$@"; do
            echo "$name: $(systemctl show $name -P Result) $(systemctl show $name -P ExecMainStatus)"
            log $name | grep -v listening | sed "s/^/$name: /"
        done
    }
    stalls="$GATEWAY --listen 127.0.0.1:0 --drain-timeout 20s --wedge drain"
"#;

#[test]
fn a_stop_timeout_that_was_changed_while_the_service_runs_applies_to_its_stop() {
    let script = UNIT.to_owned()
        + r#"
        change() {
            mkdir -p /run/systemd/system/$1.service.d
            printf '[Service]\nTimeoutStopSec=%s\n' $2 >/run/systemd/system/$1.service.d/new.conf
        }
        unit shorter TimeoutStopSec=90 "ExecStart=$stalls"
        unit longer TimeoutStopSec=3 "ExecStart=$GATEWAY --listen 127.0.0.1:0 --drain-timeout 4s --wedge drain"
        unit later TimeoutStopSec=90 "ExecStart=$stalls"
        unit silently TimeoutStopSec=90 "ExecStart=$stalls"
        change shorter 4; change longer 20; systemctl daemon-reload
        systemctl restart shorter & systemctl stop longer & systemctl stop --no-block later silently
        # In the middle of a stop. The next signal makes the gateway ask again, and so does time.
        until_log later 'explained by systemd'; until_log silently 'explained by systemd'
        change later 4; change silently 8; systemctl daemon-reload; systemctl kill -s HUP later
        wait; until_gone later; until_gone silently
        report shorter longer later silently"#;
    let Some(said) = under_systemd(&script) else { return };
    assert_says(
        &said,
        &[
            "shorter: success 0",
            "longer: success 0",
            "later: success 0",
            "silently: success 0",
            "Deadline moved by systemd's answer (deadline 3.0",
            "the unit's stop timeout of 4.00s less 1.00s)",
        ],
    );
    for unit in ["shorter", "longer", "later", "silently"] {
        let closed = |line: &&str| line.starts_with(unit) && line.contains("phase=db_close");
        let closed = said.lines().find(closed).unwrap_or_else(|| panic!("{unit}: {said}"));
        assert!(closed.contains("outcome=ok"), "{closed}");
    }
    // It was not cut after 1.25 s, but had its own timeout.
    let drained = |line: &&str| line.starts_with("longer: ") && line.contains("phase=drain");
    let drained = said.lines().find(drained).unwrap();
    assert!(drained.contains("still running after 4.0"), "{drained}");
}

#[test]
fn a_signal_by_exec_stop_belongs_to_the_stop_of_systemd_for_every_type_of_service() {
    let script = UNIT.to_owned()
        + r#"
        kills='ExecStop=/bin/kill $MAINPID'
        for type in simple exec notify; do
            access=none; [ $type = notify ] && access=main
            unit $type Type=$type NotifyAccess=$access "ExecStart=$stalls" "$kills"
        done
        unit hup "ExecStart=$stalls" 'ExecStop=/bin/kill -HUP $MAINPID'
        unit forking Type=forking PIDFile=/run/forking.pid "$kills" \
            "ExecStart=/bin/sh -c '$stalls & echo \$! >/run/forking.pid'"
        unit oneshot Type=oneshot "ExecStart=$stalls" "$kills"
        # Scripts that do something else before, and that wait for the end.
        unit waits "ExecStart=$stalls" \
            'ExecStop=/bin/sh -c "sleep 1.5; kill $MAINPID; exec tail --pid=$MAINPID -f /dev/null"'
        unit late "ExecStart=$stalls" 'ExecStop=/bin/sh -c "sleep 5.5; kill $MAINPID"'
        all='simple exec notify hup forking oneshot waits late'
        systemctl stop $all; report $all"#;
    let Some(said) = under_systemd(&script) else { return };
    let all = ["simple", "exec", "notify", "hup", "forking", "oneshot", "waits", "late"];
    for unit in all {
        let of_unit = |line: &&str| line.starts_with(&format!("{unit}: "));
        let text: Vec<&str> = said.lines().filter(of_unit).collect();
        let text = text.join("\n");
        // Either the signal of kill(1) comes first, or systemd's own, so the cause differs.
        assert_says(
            &text,
            &[
                &format!("{unit}: success 0"),
                "explained by systemd: a stop job",
                "phase=drain outcome=timed_out",
                "phase=db_close outcome=ok",
            ],
        );
    }
}

#[test]
fn each_command_of_exec_stop_has_its_own_stop_timeout() {
    let script = UNIT.to_owned()
        + r#"
        # The first command uses up most of the stop timeout of 6 s, the second one waits.
        unit gw "ExecStart=$GATEWAY --listen 127.0.0.1:0 --drain-timeout 3s --wedge drain" \
            'ExecStop=/bin/sleep 4.5' \
            'ExecStop=/bin/sh -c "kill $MAINPID; exec tail --pid=$MAINPID -f /dev/null"'
        systemctl stop gw; report gw"#;
    let Some(said) = under_systemd(&script) else { return };
    assert_says(&said, &["gw: success 0", "phase=db_close outcome=ok"]);
    let drained = said.lines().find(|line| line.contains("phase=drain outcome=")).unwrap();
    assert!(drained.contains("still running after 3.0"), "{said}");
}

#[test]
fn a_service_that_cannot_ask_systemd_goes_by_the_configured_stop_timeout() {
    let script = UNIT.replace("'systemd gives'", "'Stop timeout not checked'")
        + r#"
        for stop in '' 'ExecStop=/bin/kill $MAINPID'; do
            unit gw DynamicUser=yes TimeoutStopSec=4 Environment=FORENSICS_STOP_TIMEOUT=4s \
                "ExecStart=$stalls" "$stop"
            systemctl stop gw; report gw
        done"#;
    let Some(said) = under_systemd(&script) else { return };
    assert_eq!(said.matches("gw: success 0").count(), 2, "{said}");
    assert_eq!(said.matches("phase=db_close outcome=ok").count(), 3, "{said}");
    assert_says(
        &said,
        &[
            "fix: `systemctl edit gw.service` with [Service] TimeoutStopSec=50s, and the same \
             stop_timeout in the service",
            "deadline 3.00s: the configured stop timeout of 4.00s less 1.00s",
        ],
    );
}

#[test]
fn a_stop_by_systemd_that_begins_during_the_teardown_bounds_it() {
    let script = UNIT.to_owned()
        + r#"
        unit gw TimeoutStopSec=5 "ExecStart=$stalls"
        kill $(systemctl show gw -P MainPID); until_log gw 'Teardown started (deadline 35.00s)'
        systemctl stop gw; report gw"#;
    let Some(said) = under_systemd(&script) else { return };
    assert_says(
        &said,
        &[
            "gw: success 0",
            "Deadline moved by systemd's answer (deadline 4.",
            "the unit's stop timeout of 5.00s",
            "phase=db_close outcome=ok",
        ],
    );
}

#[test]
fn a_blocked_thread_ends_the_process_before_systemd_does_with_any_timeout() {
    let script = UNIT.to_owned()
        + r#"
        for timeout in 1 2 3 4 8; do
            # The phase blocks its thread, and another one uses all time that is left. With one
            # second, all of it is reserved for the last phase.
            stalls='--block drain --wedge db_close'; [ $timeout = 1 ] && stalls='--block db_close'
            unit t$timeout TimeoutStopSec=$timeout "ExecStart=$GATEWAY --listen 127.0.0.1:0 \
                --drain-timeout 20s $stalls --records /tmp/t$timeout"
            systemctl stop t$timeout
            report t$timeout; echo "t$timeout: $($FORENSICS last /tmp/t$timeout)"
        done"#;
    let Some(said) = under_systemd(&script) else { return };
    for timeout in [1, 2, 3, 4, 8] {
        assert_says(&said, &[&format!("t{timeout}: exit-code 70")]);
        let last = |line: &&str| line.starts_with(&format!("t{timeout}: outcome="));
        let last = said.lines().find(last).unwrap();
        assert_says(last, &["outcome=forced", "exit_code=70"]);
    }
    assert!(!said.contains("SIGKILL"), "{said}");
}

#[test]
fn a_user_unit_is_limited_by_the_service_of_its_manager_as_well() {
    let Some(said) = under_systemd(
        "mkdir -p /run/systemd/system/user{,-runtime-dir}@0.service.d
         # Without logind and its PAM module, which need a system bus.
         printf '[Service]\\nPAMName=\\nTimeoutStopSec=4\\nEnvironment=XDG_RUNTIME_DIR=/run/user/0\\n' \
             >/run/systemd/system/user@0.service.d/plain.conf
         printf '[Service]\\nExecStart=\\nExecStart=/usr/bin/install -d -m 700 /run/user/0\\n' \
             >/run/systemd/system/user-runtime-dir@0.service.d/plain.conf
         systemctl daemon-reload; systemctl start user@0.service || exit 1
         export XDG_RUNTIME_DIR=/run/user/0
         systemd-run --user -q --unit=gw -p TimeoutStopSec=90 -p Type=notify \
             $GATEWAY --listen 127.0.0.1:0 --drain-timeout 20s --wedge drain || exit 1
         until journalctl -q -o cat _SYSTEMD_UNIT=user@0.service | grep -q 'systemd gives'; do sleep .05; done
         $FORENSICS check gw --user --drain 20s; echo status=$?
         $FORENSICS check gw --user --drain 20s --json
         systemctl stop user@0.service
         echo result=$(systemctl show user@0.service -P Result)
         journalctl -q -o cat _SYSTEMD_UNIT=user@0.service",
    ) else {
        return;
    };
    assert_says(
        &said,
        &[
            "user@0.service: systemd gives 4s, drain 20s + headroom 30s = 50s is needed: 46s short; \
             fix: `systemctl edit user@0.service` with [Service] TimeoutStopSec=50s",
            "status=1",
            "deadline 3.00s: the stop timeout of user@0.service of 4.00s less 1.00s",
            "phase=db_close outcome=ok",
            "result=success",
        ],
    );
    let json = said.lines().find(|line| line.starts_with('{')).unwrap();
    let json: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!((&json["unit"], &json["aligned"]), (&"gw.service".into(), &false.into()));
    assert_eq!(json["timeout_stop_us"], 90_000_000);
    assert_eq!(json["user_manager"]["unit"], "user@0.service");
    assert_eq!(json["user_manager"]["timeout_stop_us"], 4_000_000);
    assert_eq!(json["user_manager"]["drop_in"]["setting"], "TimeoutStopSec=50s");
}
