//! What systemd says about the end of a run: the rows `ExecStopPost=` and `journal` of the table in
//! docs/who-killed-me.md.

use forensics_tests::ends::{assert_all, ends};

use crate::harness::{assert_says, under_systemd};

/// A library whose thread calls exit() once a file is there.
const EXIT: &str = r#"
cat >$SHARED/exit.c <<'C'
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static void *run(void *none) {
    while (access(getenv("EXIT_FILE"), F_OK)) usleep(20000);
    exit(atoi(getenv("EXIT_STATUS")));
    return none;
}
__attribute__((destructor)) static void end(void) {
    if (strstr(program_invocation_name, "gateway") && getenv("END_STATUS")) _exit(atoi(getenv("END_STATUS")));
}
__attribute__((constructor)) static void start(void) {
    pthread_t thread; sigset_t all, before;
    // Not in the programs that the gateway or systemd starts.
    if (!strstr(program_invocation_name, "gateway") || !getenv("EXIT_FILE")) return;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    pthread_create(&thread, 0, run, 0);
    pthread_sigmask(SIG_SETMASK, &before, 0);
}
C
cc -shared -fPIC -pthread -o $SHARED/exit.so $SHARED/exit.c || exit 1
exits() { echo Environment=LD_PRELOAD=$SHARED/exit.so EXIT_FILE=$SHARED/$1 EXIT_STATUS=$2; }
"#;

const FUNCTIONS: &str = r#"
post=ExecStopPost=-$FORENSICS
# gateway UNIT PROPERTIES... -- ARGUMENTS...: as `start`, with a record, and with ExecStopPost=
recorded() {
    name=$1; shift; before=()
    while [ "$1" != -- ]; do before+=("$1"); shift; done; shift
    start "$name" "StateDirectory=$name" "${before[@]}" -- --records "/var/lib/$name/r" "$@"
}
gateway() {
    name=$1; shift
    recorded "$name" "$post last /var/lib/$name/r" LimitCORE=0 "$@"
}
pid() { systemctl show "$1" -P MainPID; }
# said UNIT WHAT: what ExecStopPost= has printed
said() {
    until_gone "$1"; until_log "$1" '^outcome='
    echo "ExecStopPost=: $2: $(log "$1" | grep '^outcome=' | tail -n 1)"
}
# asked UNIT WHAT: what an operator is told afterwards, once systemd's last messages are in the journal
asked() { until_gone "$1"; journalctl --sync; echo "journal: $2: $($FORENSICS last "/var/lib/$1/r")"; }
"#;

/// Each case ends with `said` or `asked`, with the first cell of its row.
const CASES: &str = r#"
ALIGNMENT='Stop timeout not checked'
gateway stop TimeoutStopSec=2 User=nobody InaccessiblePaths=/run/systemd/private -- --wedge drain --drain-timeout 60s
ALIGNMENT='systemd gives'
systemctl stop stop; said stop 'SIGKILL when `TimeoutStopSec=` was over'

for how in said asked; do
    [ $how = said ] && last="$post last /var/lib/start-$how/r" || last=ExecStopPost=-/bin/true
    systemd-run -q --no-block --unit=start-$how -p Type=forking -p TimeoutStartSec=2 -p StateDirectory=start-$how \
        -p TimeoutStartFailureMode=kill -p "$last" $GATEWAY --records /var/lib/start-$how/r
    until_log start-$how 'listening on'; until_log start-$how 'start operation timed out'
    $how start-$how 'SIGKILL when `TimeoutStartSec=` was over'
done

gateway max RuntimeMaxSec=2 --; said max 'a good stop when `RuntimeMaxSec=` was over'
gateway wd Type=notify WatchdogSec=1 --; kill -STOP $(pid wd); said wd 'SIGABRT for a missed watchdog'
for one in ABRT:'SIGABRT by hand' KILL:'SIGKILL by hand' USR1:SIGUSR1 ALRM:SIGALRM XCPU:SIGXCPU 37:'a real-time signal'; do
    signal=${one%%:*}
    gateway by-$signal --; kill -$signal $(pid by-$signal); said by-$signal "${one#*:}"
done

recorded client --; systemctl kill --signal=KILL client; asked client 'SIGKILL by `systemctl kill`'

gateway exit3 "$(exits exit3 3)" -- --wedge drain --drain-timeout 60s
systemctl stop --no-block exit3
for _ in $(seq 400); do grep -q '"phase":"drain"' /var/lib/exit3/r/*.jsonl && break; sleep .05; done
touch $SHARED/exit3; said exit3 'exit() during the teardown'
recorded exit4 "$(exits exit4 4)" --; touch $SHARED/exit4; asked exit4 'exit() while it served'

# systemd's word is about the main process, which here is a shell.
systemd-run -q --unit=wrapped -p StateDirectory=wrapped -p "$post last /var/lib/wrapped/r" \
    sh -c "$GATEWAY --listen 127.0.0.1:0 --records /var/lib/wrapped/r; exit \$?"
until_log wrapped 'listening on'; pkill -KILL -P $(pid wrapped)
said wrapped 'SIGKILL by hand, of a process that a shell started'
gateway late RuntimeMaxSec=2 TimeoutStopSec=60 -- --wedge drain --drain-timeout 60s
until_log late 'Shutdown explained'; kill -KILL $(pid late)
said late 'SIGKILL by hand, after `RuntimeMaxSec=` was over'
gateway end3 "Environment=LD_PRELOAD=$SHARED/exit.so END_STATUS=3" --; systemctl stop end3
said end3 'a good teardown, then exit status 3'
# A stop timeout that ends another process, or none.
printf '#!/bin/sh\ntrap "" TERM; sleep 600 &\n' >$SHARED/child; chmod +x $SHARED/child
recorded exit0 TimeoutStopSec=3 "ExecStartPost=$SHARED/child" "$(exits exit0 0)" -- --wedge drain --drain-timeout 60s
systemctl stop --no-block exit0
for _ in $(seq 400); do grep -q '"phase":"drain"' /var/lib/exit0/r/*.jsonl && break; sleep .05; done
touch $SHARED/exit0; asked exit0 'exit(0) during the teardown, and a child that is killed at the stop timeout'
ALIGNMENT='Stop timeout not checked'
recorded left TimeoutStopSec=2 SendSIGKILL=no User=nobody InaccessiblePaths=/run/systemd/private -- --wedge drain --drain-timeout 60s
ALIGNMENT='systemd gives'
left=$(pid left); systemctl stop left; kill -KILL $left; while [ -e /proc/$left ]; do sleep .05; done
asked left 'SIGKILL by hand, after a stop timeout with `SendSIGKILL=no`'

# The next start asks the journal, and keeps the answer in the record.
systemctl reset-failed client; recorded client --; until_log client "Previous run, with what others report"
echo "next: $(log client | grep "Previous run, with what others report" | tail -n 1)"
for _ in $(seq 400); do cat /var/lib/client/r/*.jsonl | grep '"event":"witness"' && break; sleep .05; done
systemctl stop client
# What ExecStopPost= has added, the next start knows at once.
systemctl reset-failed by-USR1; gateway by-USR1 --; log by-USR1 | grep 'Previous run: '
# A living run is not touched.
id=$(systemctl show by-USR1 -P InvocationID)
INVOCATION_ID=$id SERVICE_RESULT=timeout EXIT_CODE=killed EXIT_STATUS=KILL $FORENSICS last /var/lib/by-USR1/r 2>&1
newest=$(ls /var/lib/by-USR1/r/*.jsonl | tail -n 1); echo "witnesses of the living: $(grep -c witness $newest)"
"#;

#[test]
fn each_end_that_systemd_knows_has_its_own_words() {
    let rows = ends(&["ExecStopPost=", "journal"]);
    let Some(said) = under_systemd(&format!("{EXIT}{FUNCTIONS}{CASES}")) else { return };
    let mut cases = Vec::new();
    for row in &rows {
        let head = format!("{}: {}: ", row.from, row.what);
        let line = said.lines().find_map(|line| line.strip_prefix(&head));
        row.assert_said(line.unwrap_or_else(|| panic!("no `{head}` in:\n{said}")));
        cases.push(row.what.as_str());
    }
    assert_all(&rows, &cases);
    assert_says(
        &said,
        &[
            "next: ",
            "SIGKILL was sent by `systemctl kill`",
            r#""event":"witness","source":"systemd""#,
            "service_result=signal killed_by=SIGUSR1 reason=signal",
            "no run in /var/lib/by-USR1/r has the invocation id",
            "witnesses of the living: 0",
        ],
    );
}
