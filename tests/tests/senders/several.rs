//! Many signals at once. Each is reported with its own sender.

use std::collections::BTreeMap;

use forensics_tokio::core::capture::Signal;

use crate::subject::{Lingering, Stop, Subject, bash, kill};

/// Sixteen signals. The last four are real-time signals.
const BURST: [&str; 16] = [
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGUSR1",
    "SIGUSR2",
    "SIGALRM",
    "SIGTERM",
    "SIGURG",
    "SIGXCPU",
    "SIGVTALRM",
    "SIGPROF",
    "SIGPWR",
    "SIG40",
    "SIG41",
    "SIG42",
    "SIG50",
];

/// Waits until the subject has logged each signal, then lets it end.
fn stopped_after(subject: Subject, signals: &[&str]) -> Stop {
    let first = subject.program.wait_for_stderr("Shutdown context: ");
    let is_later = |signal: &&&str| !first.contains(&format!("signal={signal} "));
    for signal in signals.iter().filter(is_later) {
        subject.program.wait_for_stderr(&format!("another {signal}: "));
    }
    subject.program.kill("-WINCH");
    subject.stopped()
}

/// Each signal in the report with the pid and the name of its sender, in the order of arrival.
fn senders(stop: &Stop) -> Vec<(Signal, i32, Option<&str>)> {
    let context = &stop.report.context;
    let first = (context.signal().unwrap(), context.sender.as_ref());
    let later =
        stop.report.repeated_signals.iter().map(|later| (later.signal, later.sender.as_ref()));
    let all = std::iter::once(first).chain(later);
    all.map(|(signal, sender)| {
        let process = &sender.unwrap().process;
        (signal, process.pid, process.name.as_deref())
    })
    .collect()
}

#[test]
fn several_signals_by_one_sender_are_all_reported() {
    let subject = Subject::start(&["--hold"]);
    let script = "kill -TERM $1; kill -INT $1; kill -HUP $1; read -r _ || true";
    let sender = Lingering::start(&mut bash(script, subject.pid));
    let pid = sender.pid() as i32;
    let stop = stopped_after(subject, &["SIGTERM", "SIGINT", "SIGHUP"]);
    sender.end();
    let mut told = senders(&stop);
    told.sort_unstable();
    let of = |signal| (signal, pid, Some("bash"));
    assert_eq!(told, [of(Signal::HUP), of(Signal::INT), of(Signal::TERM)]);
}

#[test]
fn a_burst_of_sixteen_nested_signals_keeps_every_sender_apart() {
    let subject = Subject::start(&["--hold", "--signals", &BURST.join(",")]);
    // The subject is stopped, so that all signals are pending when it continues, and their handlers
    // nest.
    subject.pause();
    let mut expected = BTreeMap::new();
    let mut killers = Vec::new();
    for name in BURST {
        let signal: Signal = name.parse().unwrap();
        let number = format!("-{}", signal.as_raw());
        let killer = Lingering::start(&mut kill(&number, subject.pid));
        killer.wait_for_exit();
        expected.insert(signal, (killer.pid() as i32, Some("kill")));
        killers.push(killer);
    }
    subject.resume();
    let stop = stopped_after(subject, &BURST);
    let told = senders(&stop);
    assert_eq!(told.len(), BURST.len());
    let told: BTreeMap<_, _> = told.into_iter().map(|(s, pid, name)| (s, (pid, name))).collect();
    assert_eq!(told, expected);
    killers.into_iter().for_each(Lingering::end);
}

#[test]
fn the_kernel_keeps_only_the_first_sender_of_a_signal_that_is_pending_and_each_of_a_real_time_one()
{
    let subject = Subject::start(&["--hold", "--signals", "SIGTERM,SIG40"]);
    subject.pause();
    let send = |signal: &str| {
        let killer = Lingering::start(&mut kill(signal, subject.pid));
        killer.wait_for_exit();
        killer
    };
    let killers = [send("-TERM"), send("-TERM"), send("-40"), send("-40")];
    let pids = killers.each_ref().map(|killer| killer.pid() as i32);
    subject.resume();
    let stop = stopped_after(subject, &["SIGTERM", "SIG40"]);
    let told = senders(&stop);
    let by = |signal: Signal| -> Vec<i32> {
        told.iter().filter(|(s, ..)| *s == signal).map(|(_, pid, _)| *pid).collect()
    };
    assert_eq!(by(Signal::TERM), pids[..1]);
    // Two threads can each receive one of them, so they can be reported in either order.
    let mut of_real_time = by(Signal::from_raw(40));
    of_real_time.sort_by_key(|pid| pids.iter().position(|one| one == pid));
    assert_eq!(of_real_time, pids[2..]);
    killers.into_iter().for_each(Lingering::end);
}
