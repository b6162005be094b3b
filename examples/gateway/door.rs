//! A socket's door: while it is shut, the kernel takes in nothing more for that socket.
//!
//! Whatever comes in between a last look and close(2) is lost, though its sender has been told that
//! it arrived: a connection that waits in a listener's queue is reset, bytes that were not read go.
//! There is no call for "take in no more, and leave me what you have": shutdown(2) on a listener
//! resets its queue, too, and on a connection it does not keep the client from sending.
//!
//! A socket filter that drops every packet is that call. What it drops was never received: it is not
//! acknowledged, so that the client's kernel keeps it, and nobody takes it for accepted. Filters of
//! this kind need no privilege. Where one is not to be had, as on other Unix than Linux, what is said
//! here holds but for the few microseconds between the last look and the close.

use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;

use socket2::SockRef;

/// From here on nothing comes in: no connection for a listener, no bytes for a connection.
#[cfg(target_os = "linux")]
pub(crate) fn shut(socket: &impl AsFd) {
    /// Keep 0 bytes of any packet: `BPF_RET | BPF_K` of linux/filter.h, with 0.
    const NOTHING: [socket2::SockFilter; 1] = [socket2::SockFilter::new(0x06, 0, 0, 0)];
    let _ = SockRef::from(socket).attach_filter(&NOTHING);
}

/// What was kept out can come in when it is sent again, which kernels do by themselves.
#[cfg(target_os = "linux")]
pub(crate) fn open(socket: &impl AsFd) {
    let _ = SockRef::from(socket).detach_filter();
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn shut(_: &impl AsFd) {}

#[cfg(not(target_os = "linux"))]
pub(crate) fn open(_: &impl AsFd) {}

/// Whether a connection has nothing to read: neither bytes nor its client's end of them.
pub(crate) fn is_empty(connection: &impl AsFd) -> bool {
    let peeked = SockRef::from(connection).peek(&mut [MaybeUninit::uninit()]);
    peeked.is_err_and(|e| e.kind() == ErrorKind::WouldBlock)
}
