//! POSIX signals by name.
//!
//! Names and numbers are those of the system that this runs on, so the same number can mean another
//! signal on another system. Records contain names.

use std::fmt::{self, Display};
use std::str::FromStr;

use nix::libc::c_int;
use nix::sys::signal::Signal as Nix;

/// A signal, shown and serialised by its name, such as `SIGTERM`.
///
/// Real-time signals have no names and are shown by their number, such as `SIG34`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signal(c_int);

impl Signal {
    /// Sent by kill(1), systemd and container runtimes to request termination.
    pub const TERM: Self = Self(Nix::SIGTERM as c_int);
    /// Sent by Ctrl-C.
    pub const INT: Self = Self(Nix::SIGINT as c_int);
    /// Sent when the terminal hangs up.
    pub const HUP: Self = Self(Nix::SIGHUP as c_int);
    /// Sent by Ctrl-\.
    pub const QUIT: Self = Self(Nix::SIGQUIT as c_int);
    /// Sent by systemd to a service that missed its watchdog.
    pub const ABRT: Self = Self(Nix::SIGABRT as c_int);

    /// Returns the signal with this number. A number that no kernel knows is kept as it is.
    pub const fn from_raw(number: c_int) -> Self {
        Self(number)
    }

    /// Returns the number of the signal.
    pub const fn as_raw(self) -> c_int {
        self.0
    }

    /// Whether its default action ends the process (signal(7)).
    #[doc(hidden)]
    pub fn ends_process(self) -> bool {
        use Nix::*;
        let known = Nix::try_from(self.0);
        !matches!(
            known,
            Ok(SIGCHLD | SIGCONT | SIGURG | SIGWINCH | SIGSTOP | SIGTSTP | SIGTTIN | SIGTTOU)
        )
    }
}

impl Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Nix::try_from(self.0) {
            Ok(known) => f.write_str(known.as_str()),
            Err(_) => write!(f, "SIG{}", self.0),
        }
    }
}

/// A text that is not the name of a signal.
#[derive(Debug, thiserror::Error)]
#[error("`{}` is not a signal: write a name such as SIGTERM", crate::escape::Escaped(.0))]
pub struct UnknownSignal(String);

impl FromStr for Signal {
    type Err = UnknownSignal;

    /// Reads a name as [`Display`] writes it.
    fn from_str(name: &str) -> Result<Self, UnknownSignal> {
        let known = Nix::from_str(name).ok().map(|known| known as c_int);
        let number = || name.strip_prefix("SIG")?.parse().ok();
        known.or_else(number).map(Self).ok_or_else(|| UnknownSignal(name.to_owned()))
    }
}

json_as_displayed!(Signal);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_reads_back_from_its_name() {
        for number in 1..=64 {
            let signal = Signal::from_raw(number);
            assert_eq!(signal.to_string().parse::<Signal>().unwrap(), signal);
        }
        assert_eq!(Signal::TERM.to_string(), "SIGTERM");
        assert_eq!(Signal::from_raw(40).to_string(), "SIG40");
        assert!("TERM".parse::<Signal>().is_err());
        assert_eq!(
            "SIG\nX".parse::<Signal>().unwrap_err().to_string(),
            r"`SIG\nX` is not a signal: write a name such as SIGTERM"
        );
    }
}
