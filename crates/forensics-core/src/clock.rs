//! The two clocks whose times are in a record.
//!
//! [`Utc`] is for people and for comparing hosts. It jumps when the clock is set. [`mono_us`] is for
//! arithmetic. It never goes back, but it can be compared only within one boot, which [`boot_id`]
//! identifies.

use std::sync::OnceLock;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::procfile;
pub use crate::record::Utc;

/// `CLOCK_MONOTONIC` in microseconds: the time since boot, without the time spent suspended. systemd
/// uses it for its timeouts. It differs between time namespaces (`time_namespaces(7)`).
pub fn mono_us() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from);
    // clock_gettime(2) fails only for a clock that the kernel does not have.
    u64::try_from(now.unwrap_or_default().as_micros()).unwrap_or(u64::MAX)
}

/// The id of this boot, from `/proc/sys/kernel/random/boot_id` (`random(4)`), the same in all
/// containers of a machine. Absent if `/proc` is not mounted.
pub fn boot_id() -> Option<String> {
    // Cached, because it does not change and each record needs it.
    static READ: OnceLock<String> = OnceLock::new();
    if READ.get().is_none() {
        let id = procfile::text("/proc/sys/kernel/random/boot_id")?;
        let _ = READ.set(id.trim_end().to_owned());
    }
    READ.get().cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_monotonic_clock_and_the_boot_id_agree_with_proc() {
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        // The uptime counts suspended time too (proc_uptime(5)), so it bounds the clock above.
        let mono = mono_us();
        assert!(mono > 0 && mono as f64 / 1e6 <= uptime + 1.0);
        assert!(mono_us() >= mono);
        assert_eq!(boot_id().unwrap().len(), 36);
    }
}
