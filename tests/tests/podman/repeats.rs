//! Two stops of one container.

use std::io::Read;
use std::process::Command;
use std::thread;

use forensics_tests::client::in_flight;

use crate::engine::{Engine, RECORDS};

/// How long the requests take that are in flight during the stops.
const SLOW_MS: u32 = 1000;

/// Runs a command of podman on a thread, while `meanwhile` runs. It must succeed.
fn during<T>(mut podman: Command, meanwhile: impl FnOnce() -> T) -> T {
    let running = thread::spawn(move || podman.output().unwrap());
    let result = meanwhile();
    let output = running.join().unwrap();
    assert!(output.status.success(), "{output:?}");
    result
}

#[test]
fn two_stops_at_the_same_time_are_one() {
    let Some(engine) = Engine::new() else { return };
    let container = engine.run(&[], &[RECORDS]);
    let mut requests = container.in_network(|| in_flight(&container.address, 3, SLOW_MS));
    during(container.podman(&["stop"]), || container.ok(&["stop"]));
    assert_answered(&mut requests[..3]);
    container.wait().assert_well();
}

fn assert_answered(requests: &mut [impl Read]) {
    for request in requests {
        let mut answer = String::new();
        request.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with(&format!("\r\n\r\nslept {SLOW_MS} ms\n")), "{answer}");
    }
}
