//! Waits for conditions that have no event, by polling.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Instant;

use forensics_tokio::core::record::{Entry, Event, Record, runs};

use crate::LIMIT;

/// Polls until the condition is true, for at most [`LIMIT`].
///
/// # Panics
/// If it is not true within [`LIMIT`].
#[track_caller]
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < end, "waited too long: {what}");
        thread::yield_now();
    }
}

/// Waits until the process has a handler for SIGTERM.
///
/// # Panics
/// If it installs none, or has ended.
#[track_caller]
pub fn until_guarded(pid: u32) {
    const SIGTERM: u32 = 15;
    until("SIGTERM is handled", || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it is there");
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = u64::from_str_radix(caught.expect("the kernel says so").trim(), 16);
        caught.expect("a mask") & (1 << (SIGTERM - 1)) != 0
    });
}

/// Waits until the newest record in `records` says that this phase has started.
///
/// # Panics
/// If it does not start, or there is no record.
#[track_caller]
pub fn until_started(records: &Path, phase: &str) {
    let is_it = |entry: &Entry| match &entry.event {
        Event::PhaseStarted(started) => started.phase == phase,
        _ => false,
    };
    until("the phase has started", || {
        let newest = runs(records).expect("a folder").pop().expect("a record");
        Record::read(&newest).expect("one that can be read").entries.iter().any(is_it)
    });
}

/// Waits until a server at this IPv4 address has read everything that was sent to it: no connection
/// waits in its queue, and none of its sockets has unread bytes.
///
/// # Panics
/// If it does not read it, or there is no listener.
#[track_caller]
pub fn until_read(address: &str) {
    const CLOSE_WAIT: &str = "08";
    let (_, port) = address.rsplit_once(':').expect("an address has a port");
    let ours = format!(":{:04X}", port.parse::<u16>().expect("a port is a number"));
    // proc_pid_net(5): the local address is the second column, the state the fourth. The queues are the
    // fifth. The second queue of a listener has the connections that were not accepted yet.
    until("the server has read it", || {
        let sockets = fs::read_to_string("/proc/net/tcp").expect("it is there");
        let lines = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let ours: Vec<_> = lines.filter(|line| line[1].ends_with(&ours)).collect();
        assert!(!ours.is_empty(), "no listener at {address}");
        ours.iter().all(|line| match line[4].rsplit(':').next() {
            Some("00000000") => true,
            // The end of the client's stream counts as a byte.
            Some("00000001") => line[3] == CLOSE_WAIT,
            _ => false,
        })
    });
}
