//! Versions of systemd, with and without a system bus: checks each row of the table in
//! docs/systemd-details.md that concerns the system that it runs in.

use crate::harness::{System, assert_says, between, table, under};

/// Units that are stopped one after the other, so that no job of another unit is in the way.
const SCRIPT: &str = r#"
ALIGNMENT='systemd gives\|Stop timeout not checked'
# gateway NAME PROPERTIES...
gateway() {
    local name=$1; shift
    start $name StateDirectory=$name TimeoutStopSec=20 "$@" -- --drain-timeout 10s \
        --records /var/lib/$name/records --diag-log /var/lib/$name/diag.log
}
# Whether this systemd has a setting. Otherwise $refused is what it says.
has() { refused=$(systemd-run -q --collect --no-block -p "$1" true 2>&1); }
# request NAME MS: a request that takes so long, and that the gateway has read
request() {
    local port=$(said $1 | sed -n 's|^listening on http://127.0.0.1:||p' | tail -n 1)
    (
        exec 3<>/dev/tcp/127.0.0.1/$port
        printf 'GET /slow?ms=%s HTTP/1.0\r\n\r\n' $2 >&3
        : >/tmp/sent.$1
        tail -n 1 <&3 >/tmp/answer.$1
    ) &
    until [ -e /tmp/sent.$1 ]; do sleep .02; done
    while awk -v port=:$(printf %04X $port) '$4 == "01" && $2 ~ port && $5 !~ /:00000000$/' \
        /proc/net/tcp | grep -q .; do sleep .02; done
}
said() { if [ -e /tmp/$1.log ]; then cat /tmp/$1.log; else log $1; fi; }
# What is known about the stop of NAME, as root.
report() {
    wait $(jobs -p)
    echo "= $1"; said $1; systemctl show $1 -p Result; cat /tmp/answer.$1
    $FORENSICS last /var/lib/$1/records
    for _ in $(seq 400); do grep -h '^--- end of' /var/lib/$1/diag.log && return; sleep .05; done
}
systemctl --version | head -n 1; echo "bus: $(systemctl is-active dbus.socket)"

systemd-run -q --unit=watchdog -p NotifyAccess=main -p WatchdogSec=1 -p TimeoutAbortSec=20 \
    $SUBJECT --signals SIGABRT,SIGTERM --hold || exit 1

gateway simple
request simple 800; systemctl stop simple; report simple

gateway notify Type=notify
request notify 800; systemctl restart notify; until_log notify 'Previous run'
systemctl stop notify; report notify

gateway user User=nobody
echo '= check'
setpriv --reuid nobody --regid nogroup --clear-groups $FORENSICS check user --drain 10s 2>&1
request user 800; systemctl stop user; report user

gateway dynamic DynamicUser=yes Type=notify
request dynamic 800; systemctl stop dynamic; report dynamic

gateway killed Type=notify
request killed 800; systemctl kill killed; until_gone killed; report killed

mkdir -p /var/lib/scoped
systemd-run -q --scope --unit=scoped -p TimeoutStopSec=20 $GATEWAY --drain-timeout 10s \
    --records /var/lib/scoped/records --diag-log /var/lib/scoped/diag.log &>/tmp/scoped.log &
until grep -q "$ALIGNMENT" /tmp/scoped.log; do sleep .05; done
request scoped 800; systemctl stop scoped.scope; report scoped

gateway reexec Type=notify
request reexec 1200; systemctl stop --no-block reexec; systemctl daemon-reexec
until_gone reexec; report reexec

gateway reexec-user Type=notify User=nobody
request reexec-user 1200; systemctl stop --no-block reexec-user; systemctl daemon-reexec
until_gone reexec-user; report reexec-user

if has Type=notify-reload; then
    systemd-run -q --unit=reload -p Type=notify-reload $SUBJECT --signals SIGTERM --reload || exit 1
    until_log reload 'systemd gives'; before=$(systemctl show reload -P MainPID)
    systemctl reload reload; until_log reload 'reloaded'
    echo '= reload'; log reload; systemctl is-active reload
    [ $before = $(systemctl show reload -P MainPID) ]; echo "same process: $?"
    systemctl stop reload; echo '= reload, then stop'; log reload; systemctl show reload -p Result

    gateway reload-hup Type=notify-reload
    request reload-hup 800; systemctl reload reload-hup; until_gone reload-hup; report reload-hup
else
    for name in reload reload-hup; do echo "= $name"; echo "$refused"; done
fi

until_log watchdog 'explained by systemd'
echo '= watchdog'; log watchdog; systemctl show watchdog -p Result
systemctl kill -s KILL watchdog

# systemd 257 sometimes takes the process for not its child. It is then killed at once in a stop.
# So it is started again. Journal and record are emptied, because they show how that process ended.
own_pids() {
    gateway "$@"
    while log $1 | grep -q 'which is not our child'; do
        systemctl kill -s KILL $1; until_gone $1; systemctl reset-failed $1
        journalctl --rotate; journalctl --vacuum-time=1us; rm -rf /var/lib/$1/*
        gateway "$@"
    done
}
if has PrivatePIDs=yes; then
    own_pids pids PrivatePIDs=yes Type=notify
    request pids 800; systemctl stop pids; report pids
    own_pids pids-user PrivatePIDs=yes User=nobody
    request pids-user 800; systemctl stop pids-user; report pids-user
else
    for name in pids pids-user; do echo "= $name"; echo "$refused"; done
fi

echo '= end'
"#;

/// The parts of the script's output, and what the table calls them.
const SITUATIONS: [(&str, &str); 14] = [
    ("simple", "`systemctl stop`"),
    ("notify", "`Type=notify`, `systemctl restart`"),
    ("user", "`User=`, `systemctl stop`"),
    ("dynamic", "`DynamicUser=yes`, `systemctl stop`"),
    ("check", "`forensics check` by another user"),
    ("killed", "`systemctl kill`"),
    ("scoped", "`systemd-run --scope`, `systemctl stop`"),
    ("reexec", "`systemctl daemon-reexec` during a stop"),
    ("reexec-user", "`systemctl daemon-reexec` during a stop with `User=`"),
    ("watchdog", "`WatchdogSec=` missed"),
    (
        "reload",
        "`Type=notify-reload`, `systemctl reload`, without SIGHUP among the guard's signals",
    ),
    ("reload-hup", "`Type=notify-reload`, `systemctl reload`, with SIGHUP among them"),
    ("pids", "`PrivatePIDs=yes`, `systemctl stop`"),
    ("pids-user", "`PrivatePIDs=yes`, `User=`, `systemctl stop`"),
];

/// Stop timeout, cause and reason, in the words of the table.
fn observed(name: &str, said: &str) -> [String; 3] {
    if said.contains("Unknown assignment") || said.contains("Invalid Type setting") {
        return ["no such setting", "", ""].map(str::to_owned);
    }
    let known = if said.contains(": systemd gives ") { "yes" } else { "no" };
    let cause = between(said, "Shutdown context: signal=", " under_systemd=");
    let (signal, cause) = cause.and_then(|text| text.split_once(" cause=")).unwrap_or_default();
    if cause.is_empty() {
        let none = if name == "check" { "" } else { "no stop" };
        return [known, none, ""].map(str::to_owned);
    }
    let why = between(said, "Shutdown explained by systemd: ", " cause=").unwrap_or("not known");
    [known.to_owned(), format!("`{cause}`, {signal}"), why.to_owned()]
}

/// What a stop of the gateway must never cost.
fn assert_nothing_is_lost(name: &str, said: &str) {
    assert_says(
        said,
        &[
            "\nslept ",
            "phase=drain outcome=ok",
            "phase=db_close outcome=ok",
            "Shutdown complete",
            "exit_status=0",
            "Result=success",
            "outcome=clean service=gateway",
            "--- end of diagnostic",
        ],
    );
    for wrong in ["SIGKILL", "Failed with result", "Got notification message", "container"] {
        assert!(!said.contains(wrong), "{name}: {wrong} in {said}");
    }
    let sender = match name {
        "pids" | "pids-user" => "sender_pid=0 sender_name=? sender_uid=0",
        _ => "sender_pid=1 sender_name=systemd sender_uid=0",
    };
    assert_says(said, &[sender]);
}

fn check(system: System) {
    let Some(said) = under(system, SCRIPT) else { return };
    let part = |name: &str| {
        let (_, rest) = said
            .split_once(&format!("\n= {name}\n"))
            .unwrap_or_else(|| panic!("no {name}: {said}"));
        rest.split_once("\n= ").unwrap().0
    };
    let version = between(&said, "systemd ", " (").unwrap();
    let bus = if said.contains("\nbus: active") { "" } else { " without a bus" };
    let system = format!("{version}{bus}");
    let documented = table("## Versions of systemd");
    let mut differences = Vec::new();
    for (name, situation) in SITUATIONS {
        let observed = observed(name, part(name));
        let is_about_us = |row: &&Vec<String>| {
            row[0] == situation && (row[1] == "all" || row[1].split(", ").any(|one| one == system))
        };
        let rows: Vec<_> = documented.iter().filter(is_about_us).collect();
        // On a busy machine a daemon-reexec takes longer than the guard waits for the answer.
        let compared = if name.starts_with("reexec") && observed[2] == "not known" { 2 } else { 3 };
        if rows.len() != 1 || rows[0][2..][..compared] != observed[..compared] {
            differences.push(format!("| {situation} | {system} | {} |", observed.join(" | ")));
        }
    }
    assert!(
        differences.is_empty(),
        "docs/systemd-details.md should say:\n{}",
        differences.join("\n")
    );

    for name in ["simple", "notify", "user", "dynamic", "killed", "scoped", "reexec", "reexec-user"]
    {
        assert_nothing_is_lost(name, part(name));
    }
    assert_says(part("notify"), &["Previous run: outcome=clean service=gateway"]);
    assert_says(part("watchdog"), &["Result=watchdog", "sender_pid=1 sender_name=systemd"]);
    if version != "252" {
        assert_says(part("reload"), &["reloaded", "\nactive\n", "same process: 0"]);
        assert!(!part("reload").contains("Shutdown context"), "{said}");
        let stop = part("reload, then stop");
        assert_says(stop, &["signal=SIGTERM cause=systemd", "Result=success"]);
        assert_nothing_is_lost("reload-hup", part("reload-hup"));
        assert_nothing_is_lost("pids", part("pids"));
        assert_nothing_is_lost("pids-user", part("pids-user"));
    }
}

#[test]
fn systemd_252_without_a_bus() {
    check(System::Host);
}

#[test]
fn systemd_252_with_a_bus() {
    check(System::HostWithBus);
}

#[test]
fn systemd_257_with_a_bus() {
    check(System::Trixie);
}
