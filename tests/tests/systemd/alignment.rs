//! The effective stop timeout of units of all kinds, as the gateway and the command line report it.

use crate::harness::{assert_says, under_systemd};

#[test]
fn the_effective_timeout_is_found_wherever_it_is_set() {
    let Some(said) = under_systemd(
        r#"mkdir -p /run/systemd/system.conf.d
        printf '[Manager]\nDefaultTimeoutStopSec=7s\n' >/run/systemd/system.conf.d/default.conf
        # system.conf is only read at the start.
        systemctl daemon-reexec; until systemctl is-system-running -q; do sleep .05; done
        cd /run/systemd/system
        service="[Service]\nExecStart=$GATEWAY --drain-timeout 10s\n"
        printf "$service" >default.service
        printf "${service}TimeoutStopSec=5" >gw@.service
        mkdir gw@.service.d 'gw@b\x2dc.service.d'
        printf '[Service]\nTimeoutStopSec=50' >gw@.service.d/a.conf
        printf '[Service]\nTimeoutStopSec=20s' >'gw@b\x2dc.service.d/z.conf'
        systemctl daemon-reload
        systemctl start default gw@a 'gw@b\x2dc'
        cat >/usr/local/bin/delegated <<'END'
#!/bin/bash
path=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)
mkdir "$path/ours"; echo 0 >"$path/ours/cgroup.procs"
exec /usr/local/bin/gateway --drain-timeout 10s
END
        chmod +x /usr/local/bin/delegated
        systemd-run -q --unit=delegated -p Delegate=yes -p TimeoutStopSec=6 /usr/local/bin/delegated
        systemd-run -q --scope --unit=scoped -p TimeoutStopSec=8 \
            $GATEWAY --drain-timeout 10s --records /tmp/scoped 2>/tmp/scoped.log &
        for unit in default gw@a 'gw@b\x2dc' delegated; do until_log $unit 'systemd gives'; done
        until grep -q 'systemd gives' /tmp/scoped.log; do sleep .05; done
        for unit in default gw@a 'gw@b\x2dc' delegated; do log $unit; done
        cat /tmp/scoped.log
        cat /proc/$(systemctl show delegated -P MainPID)/cgroup
        systemctl stop scoped.scope; wait; $FORENSICS last /tmp/scoped
        echo '= checks'
        for unit in default gw@a 'gw@b\x2dc' delegated; do $FORENSICS check $unit --drain 10s; done; :"#,
    ) else {
        return;
    };
    assert_says(
        &said,
        &[
            "default.service: systemd gives 7s",
            "gw@a.service: systemd gives 50s, drain 10s + headroom 30s = 40s is needed: aligned",
            r"gw@b\x2dc.service: systemd gives 20s",
            // The command, ready to be typed.
            r"fix: `systemctl edit 'gw@b\x2dc.service'` with [Service] TimeoutStopSec=40s",
            "delegated.service: systemd gives 6s",
            "/system.slice/delegated.service/ours",
            "scoped.scope: systemd gives 8s",
            "fix: `systemctl edit scoped.scope` with [Scope] TimeoutStopSec=40s",
            "outcome=clean service=gateway",
        ],
    );
    let (_, checks) = said.split_once("= checks").unwrap();
    assert_says(
        checks,
        &[
            "default.service: systemd gives 7s",
            "gw@a.service: systemd gives 50s",
            "delegated.service: systemd gives 6s",
            // A drop-in by `systemctl edit` would change nothing.
            r"To fix it, in /run/systemd/system/gw@b\x2dc.service.d/z.conf, which overrides",
        ],
    );
}

#[test]
fn other_settings_that_affect_a_stop_are_found_in_real_units() {
    let Some(said) = under_systemd(
        "systemd-run -q --unit=odd -p KillMode=none -p SendSIGKILL=no -p WatchdogSec=9 \
             -p Type=notify -p NotifyAccess=none -p TimeoutStopSec=infinity --no-block sleep 1000
         systemd-run -q --unit=left -p KillMode=process sleep 1000
         $FORENSICS check odd --drain 10s; $FORENSICS check left --drain 10s
         systemctl show odd -p NotifyAccess
         $FORENSICS check odd --drain 10s --json",
    ) else {
        return;
    };
    assert_says(
        &said,
        &[
            "odd.service: systemd gives infinity",
            "warning: TimeoutStopSec=infinity: ",
            "error: KillMode=none: ",
            "warning: SendSIGKILL=no: ",
            "ok: WatchdogSec=9s: ",
            "warning: KillMode=process: ",
            // systemd sets it for every unit with Type=notify.
            "NotifyAccess=main",
        ],
    );
    let json = said.lines().find(|line| line.starts_with('{')).unwrap();
    let json: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!(json["timeout_stop_us"], "infinity");
    assert_eq!(json["findings"].as_array().unwrap().len(), 6, "{json}");
}

#[test]
fn a_user_unit_asks_its_own_manager_is_stopped_by_it_and_runs_its_diagnostic_there() {
    let Some(said) = under_systemd(
        "echo 'svc:x:1777:1777::/home/svc:/bin/sh' >>/etc/passwd
         echo 'svc:x:1777:' >>/etc/group
         mkdir -p /home/svc; chown 1777:1777 /home/svc
         # Without logind and its PAM module, which need a system bus.
         mkdir -p /run/systemd/system/user{,-runtime-dir}@1777.service.d
         printf '[Service]\\nPAMName=\\nEnvironment=XDG_RUNTIME_DIR=/run/user/1777\\n' \
             >/run/systemd/system/user@1777.service.d/plain.conf
         printf '[Service]\\nExecStart=\\nExecStart=/usr/bin/install -d -m 700 -o 1777 -g 1777 %s\\n' \
             /run/user/1777 >/run/systemd/system/user-runtime-dir@1777.service.d/plain.conf
         systemctl daemon-reload; systemctl start user@1777.service || exit 1
         as_user() {
             setpriv --reuid 1777 --regid 1777 --clear-groups \
                 env -i HOME=/home/svc PATH=$PATH XDG_RUNTIME_DIR=/run/user/1777 \"$@\"
         }
         as_user systemd-run --user -q --unit=gw -p TimeoutStopSec=3 -p Type=notify \
             $GATEWAY --drain-timeout 10s --wedge drain --diag-log /home/svc/diag.log || exit 1
         until journalctl -q -o cat _UID=1777 | grep -q 'systemd gives'; do sleep .05; done
         as_user $FORENSICS check gw --user --drain 10s; echo status=$?
         as_user systemctl --user stop gw
         as_user systemctl --user show gw -p Result
         journalctl -q -o cat _UID=1777
         until grep -q '^--- end of' /home/svc/diag.log; do sleep .05; done",
    ) else {
        return;
    };
    assert_says(
        &said,
        &[
            "gw.service: systemd gives 3s",
            "fix: `systemctl --user edit gw.service` with [Service] TimeoutStopSec=40s",
            "status=1",
            "cause=systemd under_systemd=yes sender_pid=",
            "sender_name=systemd sender_uid=1777",
            "deadline 2.25s: the unit's stop timeout of 3.00s less 750ms",
            "explained by systemd: a stop job, as by systemctl stop",
            "Diagnostic continues in its own unit",
            "phase=db_close outcome=ok",
            "Result=success",
        ],
    );
}
