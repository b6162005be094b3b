//! A socket's door: while it is shut, the kernel takes in nothing more for that socket.
//!
//! Whatever comes in between a last look and close(2) is lost, though its sender has been told that
//! it arrived: a connection that waits in a listener's queue is reset, bytes that were not read go.
//! There is no call for "take in no more, and leave me what you have": shutdown(2) on a listener
//! resets its queue, too, and on a connection it does not keep the client from sending.
//!
//! A socket filter that drops every packet is that call. What it drops was never received: it is not
//! acknowledged, so that the client's kernel keeps it, and no program takes it for accepted. Filters of
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

/// From here on no bytes come in, and what says nothing but how far the other side is does: for a
/// connection that is about to be closed, whose client has yet to say that it has our end of it.
#[cfg(target_os = "linux")]
pub(crate) fn shut_to_bytes(socket: &impl AsFd) {
    // In the words of linux/filter.h. A packet begins with its TCP header, whose length in words of four
    // bytes is the upper half of byte 12.
    const HEADER_ALONE: [socket2::SockFilter; 8] = [
        socket2::SockFilter::new(0x30, 0, 0, 12), // A = byte 12: BPF_LD | BPF_B | BPF_ABS
        socket2::SockFilter::new(0x54, 0, 0, 0xf0), // A &= 0xf0: BPF_ALU | BPF_AND | BPF_K
        socket2::SockFilter::new(0x74, 0, 0, 2),  // A >>= 2: BPF_ALU | BPF_RSH | BPF_K
        socket2::SockFilter::new(0x07, 0, 0, 0),  // X = A: BPF_MISC | BPF_TAX
        socket2::SockFilter::new(0x80, 0, 0, 0),  // A = length: BPF_LD | BPF_W | BPF_LEN
        socket2::SockFilter::new(0x1d, 0, 1, 0),  // A == X? BPF_JMP | BPF_JEQ | BPF_X
        socket2::SockFilter::new(0x06, 0, 0, u32::MAX), // All of it: BPF_RET | BPF_K
        socket2::SockFilter::new(0x06, 0, 0, 0),  // Nothing of it.
    ];
    let _ = SockRef::from(socket).attach_filter(&HEADER_ALONE);
}

/// What was kept out can come in when it is sent again, which kernels do by themselves.
#[cfg(target_os = "linux")]
pub(crate) fn open(socket: &impl AsFd) {
    let _ = SockRef::from(socket).detach_filter();
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn shut(_: &impl AsFd) {}

#[cfg(not(target_os = "linux"))]
pub(crate) fn shut_to_bytes(_: &impl AsFd) {}

#[cfg(not(target_os = "linux"))]
pub(crate) fn open(_: &impl AsFd) {}

/// Whether a connection has nothing to read: neither bytes nor its client's end of them.
pub(crate) fn is_empty(connection: &impl AsFd) -> bool {
    let peeked = SockRef::from(connection).peek(&mut [MaybeUninit::uninit()]);
    peeked.is_err_and(|e| e.kind() == ErrorKind::WouldBlock)
}
