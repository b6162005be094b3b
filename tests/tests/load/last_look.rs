//! The time between the gateway's last look into a socket and its close. It is some microseconds,
//! which a load would rarely hit. strace extends it to three seconds.

use std::process::Command;
use std::thread;
use std::time::Duration;

use forensics_tests::Program;
use forensics_tests::client::{Client, Fate};

/// A client with an open, idle connection.
fn idle(address: &str) -> Client {
    let mut client = Client::new(address);
    assert_eq!(client.ask(None), Fate::Answered);
    client
}

/// Stops a gateway whose system call `held` takes three seconds longer, and sends a request during
/// it.
fn asked_in_the_midst_of(held: &str, client: fn(&str) -> Client) -> (Client, Fate) {
    held_up(&[held], client, ask_later)
}

fn ask_later(client: &mut Client) -> Fate {
    // The delay is real time. This is well after its beginning and well before its end.
    thread::sleep(Duration::from_millis(1200));
    client.ask(None)
}

/// Stops a gateway in whose system calls strace intervenes, as its option `inject` says. The client
/// sends its request by `ask`.
fn held_up(
    injections: &[&str],
    client: fn(&str) -> Client,
    ask: fn(&mut Client) -> Fate,
) -> (Client, Fate) {
    let gateway = Program::gateway(&[]);
    let mut client = client(&gateway.address);
    let mut strace = Command::new("strace");
    strace.args(["-f", "-e", "trace=accept4,getsockopt,setsockopt,shutdown"]);
    for injection in injections {
        strace.args(["-e", &format!("inject={injection}")]);
    }
    let strace = Program::start(strace.args(["-p", &gateway.program.pid().to_string()]));
    strace.wait_for_stderr("attached");
    gateway.program.kill("-TERM");
    gateway.program.wait_for_stderr("Shutdown context");
    let fate = ask(&mut client);
    // Two calls in a row take six seconds, and a phase that runs for five seconds is logged.
    gateway.program.wait().assert_well(1);
    strace.wait();
    (client, fate)
}

#[test]
fn a_connection_that_comes_after_the_last_look_into_the_queue_is_answered() {
    // The look finds an empty queue, and returns three seconds later.
    let (_, fate) = asked_in_the_midst_of("accept4:delay_exit=3s:when=1", Client::new);
    assert_eq!(fate, Fate::Answered);
}

#[test]
fn a_connection_that_comes_before_the_close_of_the_listener_is_refused_and_not_reset() {
    // The first two calls limit and fill the queue. The third one is the look into it.
    let (_, fate) = asked_in_the_midst_of("getsockopt:delay_exit=3s:when=3", Client::new);
    assert_eq!(fate, Fate::Refused);
}

#[test]
fn a_request_that_comes_after_the_last_look_into_its_connection_was_never_received() {
    let (client, fate) = asked_in_the_midst_of("shutdown:delay_enter=3s", idle);
    // On the existing connection, which looked open.
    assert_eq!((fate, client.account.closed_idle), (Fate::TurnedAway, 0));
}

#[test]
fn a_request_that_crosses_the_end_of_its_connection_was_never_received() {
    // setsockopt(2) sets the filters of the socket. The last call is between the end of the stream
    // and the close.
    let (_, fate) = held_up(&["setsockopt:delay_exit=3s"], idle, |client| {
        client.wait_for_the_end();
        thread::sleep(Duration::from_millis(1200));
        client.ask_without_check()
    });
    assert_eq!(fate, Fate::TurnedAway);
}
