//! Stops and restarts by systemd under load.

use crate::harness::{assert_says, under_systemd};

const RESTARTS: u32 = 50;

/// The stops of each kind. A few, unless the variable `STOPS` names another number.
fn stops() -> usize {
    std::env::var("STOPS").map_or(10, |stops| stops.parse().unwrap())
}

#[test]
fn a_stop_by_systemd_or_by_a_kill_in_exec_stop_loses_no_request() {
    let script = r#"
        for stop in '' '/bin/kill $MAINPID' '/bin/sh -c "kill $MAINPID; sleep .3"'; do
            cat >/run/systemd/system/gw.service <<UNIT
[Unit]
StartLimitIntervalSec=0
[Service]
Type=notify
ExecStart=$GATEWAY --listen 127.0.0.1:8080 --drain-timeout 10s
ExecStop=$stop
UNIT
            systemctl daemon-reload
            for nth in $(seq STOPS); do
                systemctl start gw || exit 1
                # A random moment, so that the stops are not synchronised with the clients.
                $HAMMER --stop 127.0.0.1:8080 4 \
                    bash -c 'sleep .0$((RANDOM % 10)); systemctl stop gw' || exit 1
                systemctl show gw -p Result
            done
        done
        echo "clean: $(log gw | grep -c 'Shutdown complete .* outcome=clean ')""#;
    let script = script.replace("STOPS", &stops().to_string());
    let Some(said) = under_systemd(&script) else { return };
    let count = |text: &str| said.lines().filter(|line| line.contains(text)).count();
    let all = 3 * stops();
    assert_says(&said, &[&format!("clean: {all}\n")]);
    assert_eq!(
        (count("Result=success"), count("requests="), count(" lost=0")),
        (all, all, all),
        "{said}"
    );
    let sum = |key: &str| -> u64 {
        let values = said.lines().filter_map(|line| line.split_once(key)?.1.split(' ').next());
        values.filter_map(|value| value.parse::<u64>().ok()).sum()
    };
    println!("{all} stops: requests={} answered={}", sum("requests="), sum(" answered="));
}

/// systemd keeps the listening socket open, so connections between two runs wait for the next
/// gateway.
#[test]
fn fifty_restarts_behind_a_socket_unit_lose_no_request_and_refuse_no_connection() {
    let script = format!(
        r#"
cat >/run/mix.lua <<'LUA'
{mix}
LUA
cat >/run/systemd/system/gw.socket <<UNIT
[Socket]
ListenStream=127.0.0.1:8080
UNIT
cat >/run/systemd/system/gw.service <<UNIT
[Unit]
StartLimitIntervalSec=0
[Service]
Type=notify
ExecStart=$GATEWAY --drain-timeout 10s
UNIT
systemctl daemon-reload && systemctl start gw.socket || exit 1
# No gateway runs yet. The first request starts the service.
wrk -t 1 -c 32 -d 10m --timeout 30s -s /run/mix.lua http://127.0.0.1:8080/ >/run/wrk & load=$!
$HAMMER 127.0.0.1:8080 6 bash -c '
    for nth in $(seq {RESTARTS}); do
        # A random moment, so that the restarts are not synchronised with the clients.
        sleep .0$((RANDOM % 10))
        systemctl restart gw.service || exit 1
    done' || exit 1
kill -INT $load; wait $load
systemctl stop gw.socket gw.service
systemctl show gw -p Result
echo "stops: $(log gw | grep -c 'Shutdown complete cause=systemd .*outcome=clean phases=4')"
log gw | grep 'Shutdown complete' | grep -v 'cause=systemd .*outcome=clean phases=4'
cat /run/wrk; warnings gw; journalctl -q -o cat -p warning -u gw"#,
        mix = include_str!("../load/mix.lua"),
    );
    let Some(said) = under_systemd(&script) else { return };
    let account = said.lines().find(|line| line.starts_with("requests=")).unwrap();
    let stops = format!("stops: {}\n", RESTARTS + 1);
    assert_says(&said, &["Result=success", &stops, "warnings of gw: 0\n"]);
    for none in [" refused=0 ", " lost=0"] {
        assert!(account.contains(none), "{said}");
    }
    // Rarely a request crosses the end of its idle connection. Nothing of it was received.
    let (_, turned_away) = account.split_once(" turned_away=").unwrap();
    let turned_away: u32 = turned_away.split(' ').next().unwrap().parse().unwrap();
    assert!(turned_away <= RESTARTS / 10, "{account}");
    // wrk prints these lines only if the counts are not zero.
    assert!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "{said}");
    println!("{account}; wrk: {}", said.lines().find(|line| line.contains("requests in")).unwrap());
}
