//! The capture and `tokio::signal` share one handler in a process, in whichever order they are
//! installed.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // Clippy allows it in `#[test]` functions, but not in their helpers.

use std::time::Duration;

use forensics_tokio::core::capture::Signal;
use forensics_tokio::core::capture::{self, install};
use nix::sys::signal::{Signal as Nix, raise};
use tokio::signal::unix::{self, SignalKind};
use tokio::time::timeout;

/// Raises the signal, and waits until tokio has received it.
async fn raise_and_receive(signal: Nix, stream: &mut unix::Signal) {
    raise(signal).unwrap();
    timeout(Duration::from_secs(60), stream.recv()).await.expect("tokio receives it").unwrap();
}

fn stream(signal: Nix) -> unix::Signal {
    unix::signal(SignalKind::from_raw(signal as i32)).unwrap()
}

/// One test, because captured signals belong to the whole process.
#[tokio::test]
async fn both_receive_every_signal_in_either_order_and_after_a_pause() {
    let (late, early) = (Nix::SIGUSR1, Nix::SIGUSR2);
    let captured = || {
        let numbers: Vec<i32> = capture::drain().iter().map(|c| c.signal.as_raw()).collect();
        numbers
    };

    // tokio is registered after the capture. Both stop at the same time.
    let signal = [Signal::from_raw(late as i32)];
    let guard = install(&signal).unwrap();
    let mut received = stream(late);
    raise_and_receive(late, &mut received).await;
    assert_eq!(captured(), [late as i32]);
    drop(guard);
    for _ in 0..2 {
        let _guard = install(&signal).unwrap();
        raise_and_receive(late, &mut received).await;
        assert_eq!(captured(), [late as i32]);
    }

    // tokio was registered before. It still receives signals that are not captured any more.
    let mut received = stream(early);
    let signal = [Signal::from_raw(early as i32)];
    for _ in 0..2 {
        let guard = install(&signal).unwrap();
        raise_and_receive(early, &mut received).await;
        assert_eq!(captured(), [early as i32]);
        drop(guard);
        raise_and_receive(early, &mut received).await;
        captured();
    }
}
