//! Stops a connection from receiving, without closing it.
//!
//! What arrives between the last read and close(2) is lost, although the kernel has acknowledged it. No
//! system call stops a connection from receiving and keeps what it has: shutdown(2) does not stop the client
//! from sending.
//!
//! A socket filter that drops every packet does it. A dropped packet is not acknowledged, so the client
//! does not take it for received.
//!
//! Some kernels require CAP_NET_ADMIN for a filter: Linux 6.18 did so where this was tested. Without it, and
//! on a Unix other than Linux, what arrives in the microseconds between the last read and the end of the
//! stream is lost.

use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;

use socket2::SockRef;

/// Receives nothing more.
#[cfg(target_os = "linux")]
pub(super) fn shut(socket: &impl AsFd) {
    /// Keep 0 bytes of any packet: `BPF_RET | BPF_K` of linux/filter.h, with 0.
    const NOTHING: [socket2::SockFilter; 1] = [socket2::SockFilter::new(0x06, 0, 0, 0)];
    let _ = SockRef::from(socket).attach_filter(&NOTHING);
}

/// Receives no more data, but still acknowledgements. For a connection that is about to be closed, whose
/// client has not acknowledged our end yet.
#[cfg(target_os = "linux")]
pub(super) fn shut_to_bytes(socket: &impl AsFd) {
    // The comments have the names of linux/filter.h. A packet begins with its TCP header. The upper half of
    // byte 12 is its length in units of four bytes.
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

/// Receives again. The client's kernel retransmits what was dropped.
#[cfg(target_os = "linux")]
pub(super) fn open(socket: &impl AsFd) {
    let _ = SockRef::from(socket).detach_filter();
}

#[cfg(not(target_os = "linux"))]
pub(super) fn shut(_: &impl AsFd) {}

#[cfg(not(target_os = "linux"))]
pub(super) fn shut_to_bytes(_: &impl AsFd) {}

#[cfg(not(target_os = "linux"))]
pub(super) fn open(_: &impl AsFd) {}

/// Whether a connection has nothing to read: no bytes, and no end of the stream.
pub(super) fn is_empty(connection: &impl AsFd) -> bool {
    let peeked = SockRef::from(connection).peek(&mut [MaybeUninit::uninit()]);
    peeked.is_err_and(|e| e.kind() == ErrorKind::WouldBlock)
}
