//! systemd's reason for a stop: checks each row of the table in docs/systemd-details.md.

use crate::harness::{System, assert_says, between, table, under};

/// Units that are stopped one after the other. What each has to do with the others is in its name.
const SCRIPT: &str = r#"
gateway="$GATEWAY --listen 127.0.0.1:0 --drain-timeout 3s --wedge drain"
# unit NAME LINES...: a service, by default with the gateway. Its drain is longer than systemd takes
# to answer.
unit() {
    local name=$1; shift
    printf '%s\n' '[Service]' Type=notify NotifyAccess=all TimeoutStopSec=30 \
        "ExecStart=${run:-$gateway --records /var/lib/$name}" "$@" >/run/systemd/system/$name.service
}
other() {
    local name=$1; shift
    printf '%s\n' '[Service]' 'ExecStart=sleep 1000' "$@" >/run/systemd/system/$name.service
}
has() { systemd-run -q --collect --no-block -p "$1" true 2>/dev/null; }
why() { until_log $1 'explained by systemd'; }
pid() { systemctl show $1 -P MainPID; }

# They start without becoming ready.
silent="/usr/bin/env -u NOTIFY_SOCKET"
subject="$SUBJECT --signals SIGABRT,SIGTERM --hold"
for name in bound died part required conflicts propagated unrelated restarted; do other other-$name; done
other other-unneeded '[Unit]' 'Wants=unneeded.service'
other other-twin '[Unit]' 'PartOf=twin.service'
unit stop; unit wanted; unit restart; unit kill; unit isolated; unit gone; unit runtime RuntimeMaxSec=2
unit bound '[Unit]' 'BindsTo=other-bound.service' 'After=other-bound.service'
unit died '[Unit]' 'BindsTo=other-died.service' 'After=other-died.service'
unit part '[Unit]' 'PartOf=other-part.service'
unit restarted '[Unit]' 'PartOf=other-restarted.service'
unit required '[Unit]' 'Requires=other-required.service' 'After=other-required.service'
unit propagated '[Unit]' 'StopPropagatedFrom=other-propagated.service'
unit conflicts '[Unit]' 'Conflicts=other-conflicts.service'
unit twin '[Unit]' 'BindsTo=other-twin.service'
unit unneeded '[Unit]' StopWhenUnneeded=yes
unit unrelated '[Unit]' 'Wants=other-unrelated.service' 'After=other-unrelated.service'
unit execstop 'ExecStop=/bin/sh -c "kill $MAINPID; sleep 1"'
unit post 'ExecStartPost=/bin/sh -c "sleep .5; exit 3"' Type=simple
run="$silent $gateway" unit start-timeout TimeoutStartSec=1
run="$silent $gateway" unit start-term TimeoutStartSec=1 TimeoutStartFailureMode=abort WatchdogSignal=SIGTERM
run="$silent $subject" unit start-abrt TimeoutStartSec=1 TimeoutStartFailureMode=abort
run="$silent $gateway" unit start-kill TimeoutStartSec=infinity
run="$subject" unit watchdog Type=simple WatchdogSec=1
run="$subject" unit abrt Type=simple
run="/bin/sh -c '$gateway & sleep 2'" unit main-exited Type=simple
run="/bin/sh -c '(setsid sleep 1000 & echo \$! >/run/oom.pid); exec $gateway'" unit oom
printf '%s\n' '[Unit]' AllowIsolate=yes Requires=systemd-journald.service >/run/systemd/system/alone.target
printf '%s\n' '[Unit]' AllowIsolate=yes Wants=wanted.service >/run/systemd/system/fresh.target
systemctl daemon-reload
systemctl start other-{bound,died,part,required,propagated,unrelated,unneeded,restarted,twin} || exit 1
systemctl start --no-block start-timeout start-term start-abrt start-kill post main-exited
systemctl start stop restart kill runtime bound died part required propagated conflicts twin unneeded \
    unrelated execstop isolated restarted gone watchdog abrt oom || exit 1

systemctl stop --no-block stop; why stop
systemctl restart --no-block restart; why restart
systemctl kill kill; why kill
until_log start-kill 'listening on'; systemctl kill start-kill; why start-kill
until_log abrt 'systemd gives'; systemctl kill -s ABRT abrt; why abrt
kill -STOP $(pid gone); /bin/kill $(pid gone); kill -CONT $(pid gone)
systemctl stop --no-block other-bound; why bound
systemctl kill -s KILL other-died; why died
systemctl stop --no-block other-part; why part
systemctl restart --no-block other-restarted; why restarted
systemctl stop --no-block other-required; why required
systemctl stop --no-block other-propagated; why propagated
systemctl start --no-block other-conflicts; why conflicts
systemctl stop --no-block twin; why twin
systemctl stop --no-block other-unneeded; why unneeded
systemctl stop --no-block other-unrelated unrelated; why unrelated
systemctl stop --no-block execstop; why execstop
for name in runtime start-timeout start-term start-abrt post watchdog main-exited; do why $name; done
# In the next second no other unit has a stop job.
systemctl start fresh.target; systemctl stop --no-block wanted; why wanted
# The mark of systemd-oomd. The control groups here have no memory controller.
case $(uname -m) in x86_64) setxattr=188 ;; *) setxattr=5 ;; esac
perl -e 'exit(syscall(@ARGV[0] + 0, @ARGV[1, 2, 3], 1, 0) != 0)' $setxattr \
    /sys/fs/cgroup/system.slice/oom.service user.oomd_ooms 1 || exit 1
kill -KILL $(cat /run/oom.pid); why oom
if has Type=notify-reload; then
    unit reload Type=notify-reload; systemctl daemon-reload; systemctl start reload || exit 1
    systemctl reload --no-block reload; why reload
fi

mkdir -p /run/systemd/system/user{,-runtime-dir}@0.service.d
# Without logind and its PAM module.
printf '[Service]\nPAMName=\nEnvironment=XDG_RUNTIME_DIR=/run/user/0\n' \
    >/run/systemd/system/user@0.service.d/plain.conf
printf '[Service]\nExecStart=\nExecStart=/usr/bin/install -d -m 700 /run/user/0\n' \
    >/run/systemd/system/user-runtime-dir@0.service.d/plain.conf
systemctl daemon-reload; systemctl start user@0.service || exit 1
XDG_RUNTIME_DIR=/run/user/0 systemd-run --user -q --unit=logout -p Type=notify $gateway || exit 1
systemctl stop user@0.service

until_gone gone
systemctl isolate --no-block alone.target; why isolated
echo "systemd $(systemctl --version | head -n 1 | cut -d' ' -f2)"
for file in /run/systemd/system/*.service; do
    name=$(basename $file .service); echo "= $name"; log $name
done
echo '= logout'; journalctl -q -o cat _SYSTEMD_UNIT=user@0.service
echo '= records'
for name in restart bound; do
    $FORENSICS last /var/lib/$name; $FORENSICS list /var/lib/$name --stats
done
journalctl -q -o cat -u restart | grep 'Previous run'
echo '= end'
"#;

/// The parts of the script's output, and what the table calls them.
const SITUATIONS: [(&str, &str); 29] = [
    ("stop", "`systemctl stop`"),
    ("restart", "`systemctl restart`"),
    ("reload", "`systemctl reload` with `Type=notify-reload`"),
    ("kill", "`systemctl kill`"),
    ("start-kill", "`systemctl kill` while the unit is starting"),
    ("abrt", "`systemctl kill -s ABRT`"),
    ("start-timeout", "`TimeoutStartSec=` is over"),
    (
        "start-term",
        "`TimeoutStartSec=` is over, `TimeoutStartFailureMode=abort`, `WatchdogSignal=SIGTERM`",
    ),
    ("start-abrt", "`TimeoutStartSec=` is over, `TimeoutStartFailureMode=abort`"),
    ("runtime", "`RuntimeMaxSec=` is over"),
    ("watchdog", "`WatchdogSec=` is over"),
    ("oom", "another process of the unit is OOM-killed, `OOMPolicy=stop`"),
    ("bound", "`BindsTo=other.service`, which is stopped"),
    ("died", "`BindsTo=other.service`, which is killed"),
    ("part", "`PartOf=other.service`, which is stopped"),
    ("restarted", "`PartOf=other.service`, which is restarted"),
    ("required", "`Requires=other.service`, which is stopped"),
    ("propagated", "`StopPropagatedFrom=other.service`, which is stopped"),
    ("conflicts", "`Conflicts=other.service`, which is started"),
    ("unrelated", "`systemctl stop` of two units, one with `Wants=` and `After=` of the other"),
    ("twin", "`systemctl stop`, and another unit with `PartOf=` of this one stops as well"),
    ("unneeded", "`StopWhenUnneeded=yes`, and the only unit with `Wants=` of this one stops"),
    ("wanted", "`systemctl stop`, just after the start of a target with `Wants=` of this one"),
    ("isolated", "`systemctl isolate`"),
    ("execstop", "`systemctl stop` with `ExecStop=/bin/sh -c \"kill $MAINPID; sleep 1\"`"),
    ("main-exited", "the main process ends, and the service is another process of the unit"),
    ("post", "`ExecStartPost=` fails"),
    ("logout", "the user manager exits"),
    ("gone", "kill(1) by a process that has exited since"),
];

/// The cause, `reason=` and the text, in the words of the table.
fn observed(name: &str, said: &str) -> [String; 3] {
    let Some(line) = said.lines().find(|line| line.contains("Shutdown explained by systemd: "))
    else {
        let cause = between(said, " cause=", " ").unwrap_or("not stopped");
        return [format!("`{cause}`"), String::new(), String::new()];
    };
    let text = between(line, "Shutdown explained by systemd: ", " cause=").unwrap();
    let word = |key: &str| format!("`{}`", between(line, key, " ").unwrap());
    let text = text.replace(&format!("other-{name}.service"), "other.service");
    [word(" cause="), word(" reason="), text]
}

fn check(system: System) {
    let Some(said) = under(system, SCRIPT) else { return };
    let version = said.lines().find_map(|line| line.strip_prefix("systemd ")).unwrap();
    let part = |name: &str| {
        let rest = said.split_once(&format!("\n= {name}\n"))?.1;
        Some(rest.split_once("\n= ")?.0)
    };
    let documented = table("## Why it stops");
    let (mut differences, mut unanswered) = (Vec::new(), 0);
    for (name, situation) in SITUATIONS {
        let is_about_us = |row: &&Vec<String>| {
            row[0] == situation && (row[1] == "all" || row[1].split(", ").any(|one| one == version))
        };
        let rows: Vec<_> = documented.iter().filter(is_about_us).collect();
        let Some(part) = part(name) else {
            assert!(rows.is_empty(), "{name}: {said}");
            continue;
        };
        // On a busy machine systemd may take longer to answer than the guard waits.
        if part.contains("did not answer within") {
            unanswered += 1;
            continue;
        }
        let observed = observed(name, part);
        if rows.len() != 1 || rows[0][2..] != observed {
            differences.push(format!("| {situation} | {version} | {} |", observed.join(" | ")));
        }
    }
    assert!(unanswered < SITUATIONS.len() / 4, "{said}");
    assert!(
        differences.is_empty(),
        "docs/systemd-details.md should say:\n{}",
        differences.join("\n")
    );
    // A unit that has nothing to do with the stop is named nowhere.
    assert!(!part("unrelated").unwrap().contains("other-unrelated"), "{said}");
    // What was learned after the signal is in the record, and in everything that is made from it.
    assert_says(
        part("records").unwrap(),
        &[
            "stop_reason=restart_job",
            "stop_reason=dependency",
            "1 restart_job",
            "reasons   1 dependency",
            "Previous run: ",
        ],
    );
}

#[test]
fn systemd_252_shows_each_reason() {
    check(System::Host);
}

#[test]
fn systemd_257_shows_each_reason() {
    check(System::Trixie);
}

#[test]
fn a_system_that_goes_down_is_distinguished_from_a_stop() {
    let cases = [
        (System::Host, "poweroff", "the system is going down to poweroff.target"),
        (System::Host, "reboot", "the system is going down to reboot.target"),
        (System::Trixie, "soft-reboot", "the system is going down to soft-reboot.target"),
    ];
    let documented = table("## Why it stops");
    for (system, command, text) in cases {
        // `left` is not stopped by systemd, so systemd-shutdown ends it. systemd-shutdown also ends
        // this script, unless it ignores the signal.
        let script = format!(
            "trap '' TERM
             unit() {{
                 printf '%s\\n' '[Service]' Type=notify TimeoutStopSec=30 StandardError=append:$SHARED/log \\
                     \"ExecStart=$GATEWAY --listen 127.0.0.1:0 --drain-timeout 2s --wedge drain\" \"${{2-}}\" \\
                     >/run/systemd/system/$1.service
             }}
             unit gw; unit left KillMode=none; systemctl daemon-reload; systemctl start gw left
             systemctl {command}; sleep 10"
        );
        let Some(said) = under(system, &script) else { return };
        let row = |reason: &str| {
            let row = documented.iter().find(|row| row[3] == format!("`{reason}`"));
            row.unwrap_or_else(|| panic!("no row for {reason}"))[4].clone()
        };
        let reason = command.replace('-', "_");
        assert_eq!(row(&reason), text);
        let line = format!(
            "explained by systemd: {text} cause=reboot unit=\"gw.service\" reason={reason} "
        );
        assert_says(&said, &[&line, &format!("Shutdown complete cause=reboot reason={reason} ")]);
        if command == "reboot" {
            let text = row("final_kill");
            assert_says(
                &said,
                &[
                    "signal=SIGTERM cause=reboot under_systemd=yes sender_pid=1 sender_name=systemd-shutdow",
                    &format!(
                        "explained by systemd: {text} cause=reboot unit=\"left.service\" reason=final_kill"
                    ),
                ],
            );
        }
    }
}
