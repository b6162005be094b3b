//! Waiting for what nobody tells of: by looking again and again.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Instant;

use forensics_tokio::core::record::{Entry, Event, Record, runs};

use crate::LIMIT;

/// Looks again and again, for as long as anything may take.
///
/// # Panics
/// Where it does not become so within [`LIMIT`].
#[track_caller]
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        thread::yield_now();
    }
}

/// Waits until this process has a handler of its own for SIGTERM.
///
/// # Panics
/// Where it does not get one, or has ended.
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

/// Waits until this phase of the newest run in a folder of records has started, as the record has it:
/// the lines before its first one come sooner.
///
/// # Panics
/// Where it does not start, or there is no record.
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

/// Waits until a server at this address of IPv4 has read all that was sent to it: no connection waits in
/// its queue, and none of its sockets holds a byte.
///
/// # Panics
/// Where it does not read it, or nobody listens there.
#[track_caller]
pub fn until_read(address: &str) {
    const CLOSE_WAIT: &str = "08";
    let (_, port) = address.rsplit_once(':').expect("an address has a port");
    let ours = format!(":{:04X}", port.parse::<u16>().expect("a port is a number"));
    // proc_pid_net(5): the local address is the second column, the state the fourth. The queues are the
    // fifth, of which a listener's second one is its connections to be accepted.
    until("the server has read it", || {
        let sockets = fs::read_to_string("/proc/net/tcp").expect("it is there");
        let lines = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let ours: Vec<_> = lines.filter(|line| line[1].ends_with(&ours)).collect();
        assert!(!ours.is_empty(), "nobody listens at {address}");
        ours.iter().all(|line| match line[4].rsplit(':').next() {
            Some("00000000") => true,
            // The end of what a client sends counts as a byte.
            Some("00000001") => line[3] == CLOSE_WAIT,
            _ => false,
        })
    });
}
