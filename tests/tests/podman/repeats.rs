//! Two stops of one container. The second one changes nothing.
//!
//! `STOPS=200 cargo test -p forensics-tests --test podman repeats` runs more of them.

use std::io::Read;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use forensics_tests::client::{Account, in_flight};
use forensics_tests::crowd::Crowd;
use forensics_tokio::core::record::{Event, Record, runs};

use crate::engine::{Container, Engine, RECORDS};

/// How long the requests take that are in flight during the stops.
const SLOW_MS: u32 = 2000;

/// How many of them there are.
const SLOW: usize = 4;

/// Signals that are closer together count as one, so two requests are further apart.
const APART: Duration = Duration::from_millis(300);

/// How many containers run at the same time.
const AT_A_TIME: usize = 4;

/// The double stops under load. A few, unless the variable `STOPS` names another number.
fn stops() -> usize {
    std::env::var("STOPS").map_or(20, |stops| stops.parse().unwrap())
}

/// Runs a command of podman on a thread, while `meanwhile` runs. It must succeed.
fn during<T>(mut podman: Command, meanwhile: impl FnOnce() -> T) -> T {
    let running = thread::spawn(move || podman.output().unwrap());
    let result = meanwhile();
    let output = running.join().unwrap();
    assert!(output.status.success(), "{output:?}");
    result
}

fn assert_answered(requests: &mut [impl Read]) {
    for request in requests {
        let mut answer = String::new();
        request.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with(&format!("\r\n\r\nslept {SLOW_MS} ms\n")), "{answer}");
    }
}

/// Stops the container twice: again once it has begun its teardown.
fn stop_twice(container: &Container<'_>) {
    during(container.podman(&["stop", "--time=30"]), || {
        container.program.wait_for_stderr("Shutdown context: ");
        // The rule about repeated signals is about real time.
        thread::sleep(APART);
        container.ok(&["stop", "--time=30"]);
    });
}

#[test]
fn two_stops_at_the_same_time_lose_nothing() {
    let Some(engine) = Engine::new() else { return };
    let container = engine.run(&[], &[RECORDS]);
    let mut requests = container.in_network(|| in_flight(&container.address, SLOW, SLOW_MS));
    during(container.podman(&["stop"]), || container.ok(&["stop"]));
    assert_answered(&mut requests[..SLOW]);
    container.wait().assert_well();
}

/// Stops a container twice under load. Returns what the clients have seen, and whether the second
/// stop came during the drain.
fn stop_twice_under_load(engine: &Engine) -> (Account, bool) {
    // For the end of idle connections: see the documentation of `serve`.
    let container = engine.run(&["--cap-add=NET_ADMIN"], &[RECORDS]);
    let (crowd, mut requests) = container.in_network(|| {
        let crowd = Crowd::start(&container.address, 2);
        crowd.wait_for_answers(20);
        (crowd, in_flight(&container.address, SLOW, SLOW_MS))
    });
    stop_twice(&container);
    assert_answered(&mut requests[..SLOW]);
    let account = crowd.refused();
    let stopped = container.wait();
    assert_eq!(account.lost, [""; 0], "{account}\n{}", stopped.ended.stderr);
    stopped.assert_well();

    let newest = runs(&engine.shared().join("shutdown")).unwrap().pop().unwrap();
    let events = Record::read(&newest).unwrap().entries.into_iter().map(|entry| entry.event);
    let (mut signals, mut in_drain) = (Vec::new(), false);
    for event in events {
        match event {
            Event::Signal(signal) => {
                in_drain = signals.len() == 1;
                signals.push((signal.signal.unwrap_or_default(), signal.cause));
            }
            Event::PhaseFinished(phase) if phase.phase == "drain" && signals.len() < 2 => break,
            _ => {}
        }
    }
    if in_drain {
        let signal = || ("SIGTERM".to_owned(), "container_stop".to_owned());
        assert_eq!(signals, [signal(), signal()], "{}", stopped.ended.stderr);
        stopped.ended.line("another SIGTERM: the teardown goes on as before");
    }
    (account, in_drain)
}

#[test]
fn a_second_podman_stop_under_load_loses_no_accepted_request() {
    let Some(_) = Engine::new() else { return };
    let began = Instant::now();
    let stop = || {
        let engine = Engine::new().unwrap();
        let stops = (0..stops() / AT_A_TIME).map(|_| stop_twice_under_load(&engine));
        stops.collect::<Vec<_>>()
    };
    let (mut all, mut in_drain) = (Account::default(), 0);
    thread::scope(|scope| {
        let stops: Vec<_> = (0..AT_A_TIME).map(|_| scope.spawn(stop)).collect();
        for (account, was_in_drain) in stops.into_iter().flat_map(|stop| stop.join().unwrap()) {
            all.add(account);
            in_drain += usize::from(was_in_drain);
        }
    });
    let stops = stops();
    // On a busy machine podman takes its time.
    assert!(in_drain >= stops / 2, "{in_drain} of {stops} in the drain");
    println!(
        "{stops} double stops in {:.1?}, {in_drain} of them in the drain, each with {SLOW} requests \
         of {SLOW_MS} ms, all answered; other clients: {all}",
        began.elapsed()
    );
}
