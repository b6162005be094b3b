//! Stops in which the supervisor sends more than one signal, under load. The later signals change
//! nothing.
//!
//! `STOPS=200 cargo test -p forensics-tests --test load repeated` runs more of them.

use std::thread;
use std::time::Duration;

use forensics_tests::client::{Account, Client, Fate};
use forensics_tests::crowd::Crowd;
use forensics_tests::{Program, example};
use forensics_tokio::core::record::{Event, PostMortem, Record, SignalEvent, runs};
use nix::sys::signal::Signal::{self, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use nix::sys::signal::kill;
use nix::unistd::Pid;

/// How long the request that is in flight at the stop takes, in milliseconds.
const SLOW_MS: u32 = 900;

/// A sender, and its signals, each with the milliseconds since the one before.
type Sequence = (&'static str, &'static [(Signal, u64)]);

const SEQUENCES: [Sequence; 4] = [
    ("a wrapper that has a trap and forwards, or a second stop", &[(SIGTERM, 0), (SIGTERM, 400)]),
    ("s6", &[(SIGTERM, 0), (SIGTERM, 250), (SIGHUP, 0)]),
    ("a CI runner", &[(SIGINT, 0), (SIGTERM, 500)]),
    (
        "a supervisor that repeats all it can",
        &[(SIGTERM, 0), (SIGHUP, 210), (SIGINT, 210), (SIGQUIT, 210)],
    ),
];

/// The stops of each sequence. A few, unless the variable `STOPS` names another number.
fn stops() -> u64 {
    std::env::var("STOPS").map_or(5, |stops| stops.parse().unwrap())
}

/// Stops a gateway under load, and returns what its clients have seen.
fn stop((sender, signals): Sequence, nth: u64) -> Account {
    let records = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new(example("gateway"));
    let gateway = Program::gateway_by(command.arg("--records").arg(records.path().join("r")));
    let pid = Pid::from_raw(gateway.program.pid().cast_signed());
    let crowd = Crowd::start(&gateway.address, 2);
    let mut client = Client::new(&gateway.address);
    // Connected before the stop.
    assert_eq!(client.ask(None), Fate::Answered);
    let slow = thread::spawn(move || {
        client.ask(Some(SLOW_MS));
        client.account
    });
    crowd.wait_for_answers(20);
    for &(signal, after) in signals {
        // The rule about repeated signals is about real time.
        thread::sleep(Duration::from_millis(after));
        kill(pid, signal).unwrap();
    }
    let ended = gateway.program.wait();
    ended.assert_well(signals.len() - 1);
    let mut account = crowd.refused();
    account.add(slow.join().unwrap());
    assert_eq!(account.lost, [""; 0], "{sender}, stop {nth}: {account}");

    let record = &runs(&records.path().join("r")).unwrap()[0];
    assert!(PostMortem::of(record).unwrap().is_clean(), "{sender}, stop {nth}");
    let record = Record::read(record).unwrap();
    let signal = |event: Event| match event {
        Event::Signal(SignalEvent { signal: Some(signal), cause, .. }) => Some((signal, cause)),
        _ => None,
    };
    let mut recorded: Vec<_> =
        record.entries.into_iter().filter_map(|entry| signal(entry.event)).collect();
    let cause = || "supervisor".to_owned();
    let mut sent: Vec<_> =
        signals.iter().map(|(signal, _)| (signal.to_string(), cause())).collect();
    // The kernel delivers pending signals in an order of its own. On a busy machine several are
    // pending at once. Only the first one, which began the stop, has a known place.
    recorded[1..].sort();
    sent[1..].sort();
    assert_eq!(recorded, sent, "{sender}, stop {nth}");
    account
}

#[test]
fn repeated_signals_of_a_supervisor_lose_no_request() {
    let mut all = Account::default();
    for sequence in SEQUENCES {
        for nth in 0..stops() {
            all.add(stop(sequence, nth));
        }
    }
    // Most of the slow requests had been received before the stop.
    assert!(all.slow >= stops() * SEQUENCES.len() as u64 / 2, "{all}");
    println!("{} stops by each of {} senders: {all}", stops(), SEQUENCES.len());
}
