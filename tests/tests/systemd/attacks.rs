//! What another user of the machine tries against a service of root or of a user.

use crate::harness::{assert_says, under_systemd};

/// Two users with a manager each. `as_third` runs a program as another user.
const USERS: &str = r#"
as_third() { setpriv --reuid 65534 --regid 65534 --clear-groups "$@"; }
as() {
    uid=$1; shift
    setpriv --reuid $uid --regid $uid --clear-groups \
        env -i HOME=/home/u$uid PATH=$PATH XDG_RUNTIME_DIR=/run/user/$uid "$@"
}
for uid in 1777 1888; do
    echo "u$uid:x:$uid:$uid::/home/u$uid:/bin/sh" >>/etc/passwd; echo "u$uid:x:$uid:" >>/etc/group
    install -d -o $uid -g $uid /home/u$uid
    # Without logind and its PAM module, which need a system bus.
    mkdir -p /run/systemd/system/user{,-runtime-dir}@$uid.service.d
    printf '[Service]\nPAMName=\nEnvironment=XDG_RUNTIME_DIR=/run/user/%s\n' $uid \
        >/run/systemd/system/user@$uid.service.d/plain.conf
    printf '[Service]\nExecStart=\nExecStart=/usr/bin/install -d -m 700 -o %s -g %s /run/user/%s\n' \
        $uid $uid $uid >/run/systemd/system/user-runtime-dir@$uid.service.d/plain.conf
done
systemctl daemon-reload; systemctl start user@1777 user@1888 || exit 1
until_user_log() {
    for _ in $(seq 400); do journalctl -q -o cat _UID=$1 | grep -q "$2" && return; sleep .05; done
    echo "no '$2' of $1:"; journalctl -q -o cat _UID=$1; exit 1
}
"#;

/// Any user can write messages with the fields of a unit. They neither count, nor displace those of the
/// manager, nor cost much memory.
#[test]
fn only_its_manager_speaks_for_a_unit_in_the_journal() {
    let script = r#"
cat >/tmp/forge.c <<'C'
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
// forge PREFIX UNIT ID COUNT [CGROUP]: messages of "systemd", by this process
int main(int count, char **a) {
    struct sockaddr_un journal = {AF_UNIX, "/run/systemd/journal/socket"};
    int n, s = socket(AF_UNIX, SOCK_DGRAM, 0);
    static char m[100000], *end;
    prctl(PR_SET_NAME, "systemd");
    if (count > 5) dprintf(open(a[5], O_WRONLY), "%d", getpid());
    end = m + sprintf(m, "MESSAGE=x\nMESSAGE_ID=fe6faa94e7774663a0da52717891d8ef\n%sUNIT=%s\n"
        "%sINVOCATION_ID=%s\n", a[1], a[2], a[1], a[3]);
    for (n = 0; n < 20; n++) end += sprintf(end, "A%d=%04000d\n", n, n);
    for (n = 0; n < atoi(a[4]); n++)
        if (sendto(s, m, end - m, 0, (void *)&journal, sizeof journal) < 0) perror("sendto");
    sleep(1);
    return 0;
}
C
forge=/usr/local/bin/forge; cc -o $forge /tmp/forge.c || exit 1

start gw StateDirectory=gw -- --records /var/lib/gw/r
id=$(systemctl show gw -P InvocationID)
systemctl kill --signal=KILL gw; until_gone gw
as_third $forge '' gw.service $id 1100; journalctl --sync
echo "forged: $(journalctl -q -o cat UNIT=gw.service _UID=65534 | wc -l)"
echo "system: $($FORENSICS last /var/lib/gw/r)"

as 1777 systemd-run --user -q --unit=gw $GATEWAY --listen 127.0.0.1:0 --records /home/u1777/r || exit 1
until_user_log 1777 'systemd gives'
id=$(as 1777 systemctl --user show gw -P InvocationID)
as 1777 systemctl --user kill --signal=KILL gw
for _ in $(seq 400); do as 1777 systemctl --user is-failed -q gw && break; sleep .05; done
scope=/sys/fs/cgroup/user.slice/user-1888.slice/user@1888.service/init.scope/cgroup.procs
as 1888 systemd-run --user -q --unit=f $forge USER_ gw.service $id 1100 $scope || exit 1
until_user_log 1888 '^x$'; journalctl --sync
echo "in init.scope: $(journalctl -q -o json -n 1 USER_UNIT=gw.service _UID=1888 _SYSTEMD_USER_UNIT=init.scope _COMM=systemd | wc -l)"
echo "user: $($FORENSICS last /home/u1777/r)"
"#;
    let Some(said) = under_systemd(&format!("{USERS}{script}")) else { return };
    assert_says(&said, &["forged: 1100", "in init.scope: 1"]);
    for of in ["system: ", "user: "] {
        let verdict = said.lines().find_map(|line| line.strip_prefix(of)).unwrap_or_default();
        assert!(verdict.contains("reason=signal basis=observed:systemd"), "{of}{said}");
        assert!(verdict.contains("SIGKILL was sent by `systemctl kill`"), "{of}{said}");
    }
}

/// No file or manager of another user is used in place of the service's own.
#[test]
fn nothing_of_another_user_is_started_or_asked_by_a_service_of_root() {
    let script = r#"
evil() { printf '#!/bin/sh\nid -u >>/tmp/ran\n' | as_third tee "$1" >/dev/null; as_third chmod 755 "$1"; }
# The program was removed, and the path that the kernel shows for it leads to another file.
cp $GATEWAY /tmp/gw
systemd-run -q --unit=removed /tmp/gw --listen 127.0.0.1:0 --diag-log /var/log/removed.log || exit 1
until_log removed 'systemd gives'
rm /tmp/gw; evil '/tmp/gw (deleted)'
systemctl stop removed; until_gone removed; cat /var/log/removed.log
# PATH has a folder in which each user can create files, and the system has no systemctl.
touch /root/none; evil /tmp/systemctl
systemd-run -q --unit=path -p BindPaths=/root/none:/usr/bin/systemctl -p Environment=PATH=/tmp \
    $GATEWAY --listen 127.0.0.1:0 || exit 1
until_log path 'Stop timeout not checked'; log path; systemctl stop path
# A process of root in a unit of a user, as after sudo(8).
as 1777 systemd-run --user -q --unit=session sleep 60 || exit 1
group=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/$(as 1777 systemctl --user show session -P MainPID)/cgroup)
XDG_RUNTIME_DIR=/run/user/1777 sh -c 'echo $$ >'$group'/cgroup.procs
    exec '$GATEWAY' --listen 127.0.0.1:0' 2>/tmp/session.log &
for _ in $(seq 400); do grep -q 'Stop timeout\|systemd gives' /tmp/session.log && break; sleep .05; done
kill $!; wait $!; cat /tmp/session.log
echo "ran: $(cat /tmp/ran 2>/dev/null | wc -l)"
"#;
    let Some(said) = under_systemd(&format!("{USERS}{script}")) else { return };
    assert_says(
        &said,
        &[
            "--- end of diagnostic",
            "Stop timeout not checked: systemctl: the program was not found",
            "another user's manager runs the unit",
            "ran: 0",
        ],
    );
}

/// Any user can delay systemd by many calls over the bus. So a unit can start long after it was asked for.
/// By then a process of that user can have the pid of the service, and with it the descriptors that the unit
/// opens. Or the program can be another file.
#[test]
fn a_diagnostic_that_is_started_late_writes_to_no_file_of_another_user_and_runs_no_other_program() {
    let script = r#"
# In place of a systemd that is delayed.
printf '#!/bin/sh\nprintf "%%s\\0" "$@" >/run/asked.$PPID; exec sleep 60\n' >/root/later; chmod 755 /root/later
later() { systemd-run -q --unit=$1 -p BindPaths=/root/later:/usr/bin/systemd-run "${@:2}" || exit 1; }
asked() { for _ in $(seq 400); do [ -s /run/asked.$1 ] && return; sleep .05; done; exit 1; }
cat >/run/hold.py <<'P'
import os, time
victim = os.open("/etc/victim", os.O_PATH)
for n in range(3, 200): os.dup2(victim, n)
print("holds", os.getpid(), flush=True)
time.sleep(60)
P
(umask 077; echo untouched >/etc/victim)
later ended $GATEWAY --listen 127.0.0.1:0 --diag-log /var/log/ended.log
until_log ended 'systemd gives'
pid=$(systemctl show ended -P MainPID)
systemctl stop ended; until_gone ended; asked $pid
mount -o remount,bind,rw /proc/sys
for _ in $(seq 400); do
    echo $((pid - 1)) >/proc/sys/kernel/ns_last_pid
    setpriv --reuid 65534 --regid 65534 --clear-groups python3 /run/hold.py >/run/held & holder=$!
    [ $holder = $pid ] && break; kill $holder
done
for _ in $(seq 400); do grep "holds $pid" /run/held && break; sleep .05; done
xargs -0 systemd-run </run/asked.$pid; echo "late: $?"
until_gone shutdown-diagnostic-$pid
echo "victim: $(tr '\n' ' ' </etc/victim)."

# The service executes a program with the rights of another user.
cat >$SHARED/again.c <<'C'
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
__attribute__((destructor)) static void again(void) {
    if (!strstr(program_invocation_name, "gateway")) return;
    unsetenv("LD_PRELOAD");
    if (setgid(65534) || setuid(65534)) return;
    execl("/usr/bin/python3", "python3", "/run/hold.py", (char *)0);
}
C
cc -shared -fPIC -o $SHARED/again.so $SHARED/again.c || exit 1
later again -p Environment=LD_PRELOAD=$SHARED/again.so -p TimeoutStopSec=60 \
    $GATEWAY --listen 127.0.0.1:0 --diag-log /var/log/again.log
until_log again 'systemd gives'
again=$(systemctl show again -P MainPID)
systemctl stop --no-block again; until_log again "holds $again"; asked $again
xargs -0 systemd-run </run/asked.$again; echo "again: $?"
until_gone shutdown-diagnostic-$again
echo "victim then: $(tr '\n' ' ' </etc/victim)."; kill $again

cp $GATEWAY /tmp/gw
later replaced /tmp/gw --listen 127.0.0.1:0 --wedge drain --diag-log /var/log/replaced.log
until_log replaced 'systemd gives'
pid=$(systemctl show replaced -P MainPID)
systemctl stop --no-block replaced; asked $pid
for _ in $(seq 400); do grep -q 'end of diagnostic' /var/log/replaced.log && break; sleep .05; done
rm /tmp/gw; printf '#!/bin/sh\ntouch /tmp/ran\n' >/tmp/gw; chmod 755 /tmp/gw
xargs -0 systemd-run </run/asked.$pid; echo "replaced: $?"
until_gone shutdown-diagnostic-$pid
echo "diagnostics: $(grep -c 'end of diagnostic' /var/log/replaced.log)"; [ ! -e /tmp/ran ] || echo ran
"#;
    let Some(said) = under_systemd(&format!("{USERS}{script}")) else { return };
    assert_says(
        &said,
        &[
            "holds ",
            "victim: untouched .",
            "victim then: untouched .",
            "replaced: 0",
            "diagnostics: 2",
        ],
    );
    assert!(!said.contains("late: 0"), "{said}");
    assert!(!said.contains("again: 0"), "{said}");
    assert!(!said.contains("\nran\n"), "{said}");
}
