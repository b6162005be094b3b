//! How a signal was sent, as the kernel reports it.

use serde::{Deserialize, Serialize};

/// `si_code`: how a signal was sent, see sigaction(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SiCode {
    /// `SI_USER`: kill(2) or `pidfd_send_signal(2)`. The kernel guarantees pid and uid.
    User,
    /// `SI_TKILL`: tgkill(2), raise(3), `pthread_kill(3)`. The kernel guarantees pid and uid.
    Tkill,
    /// `SI_QUEUE`: sigqueue(3). The sender chose pid and uid.
    Queue,
    /// `SI_TIMER`: a POSIX timer. There is no sender; the field holds the id of the timer. A process
    /// can send this code with `rt_sigqueueinfo(2)`, too.
    Timer,
    /// `SI_KERNEL`: the kernel, for Ctrl-C, a terminal that hangs up, or setitimer(2).
    Kernel,
    /// Any other code.
    Other(i32),
}

impl SiCode {
    /// The meaning of the number `code` on this system.
    #[doc(hidden)]
    pub fn from_raw(code: i32) -> Self {
        if cfg!(target_os = "linux") { Self::of_linux(code) } else { Self::of_bsd(code) }
    }

    /// As in Linux's `asm-generic/siginfo.h`.
    fn of_linux(code: i32) -> Self {
        match code {
            0 => SiCode::User,
            -6 => SiCode::Tkill,
            -1 => SiCode::Queue,
            -2 => SiCode::Timer,
            0x80 => SiCode::Kernel,
            other => SiCode::Other(other),
        }
    }

    /// As in FreeBSD's `sys/signal.h`. macOS has the same numbers but always reports 0, with the pid
    /// of the process that was running when the signal was sent (`psignal_internal()` in xnu's
    /// `kern_sig.c`): the caller of kill(2), or the terminal program for Ctrl-C. FreeBSD reports 0
    /// (`SI_NOINFO`) without a pid.
    fn of_bsd(code: i32) -> Self {
        match code {
            0 | 0x10001 => SiCode::User,
            0x10002 => SiCode::Queue,
            0x10003 => SiCode::Timer,
            0x10006 => SiCode::Kernel,
            0x10007 => SiCode::Tkill,
            other => SiCode::Other(other),
        }
    }

    /// Whether `si_pid` and `si_uid` describe a sender.
    #[doc(hidden)]
    pub fn has_sender(self) -> bool {
        matches!(self, SiCode::User | SiCode::Tkill | SiCode::Queue)
    }
}

#[cfg(test)]
mod tests {
    use nix::libc;

    use super::*;

    #[test]
    fn each_system_has_its_own_numbers_for_the_same_codes() {
        let cases = [
            (libc::SI_USER, 0x10001, SiCode::User),
            (libc::SI_TKILL, 0x10007, SiCode::Tkill),
            (libc::SI_QUEUE, 0x10002, SiCode::Queue),
            (libc::SI_TIMER, 0x10003, SiCode::Timer),
            (libc::SI_KERNEL, 0x10006, SiCode::Kernel),
            (libc::SI_ASYNCIO, 0x10004, SiCode::Other(0)),
        ];
        for (linux, bsd, code) in cases {
            let other = |raw| if let SiCode::Other(_) = code { SiCode::Other(raw) } else { code };
            assert_eq!(SiCode::of_linux(linux), other(linux));
            assert_eq!(SiCode::of_bsd(bsd), other(bsd));
        }
        assert_eq!(SiCode::of_bsd(0), SiCode::User);
    }
}
