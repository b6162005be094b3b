//! What systemd knows of a unit: its name in the cgroup's path, its properties, and whether it
//! waits long enough for our teardown.
//!
//! Everything here is a pure function over text that the caller has read: the content of
//! `/proc/PID/cgroup`, the output of `systemctl show`. No process is started. What systemd 252 does
//! was read from its source and tried out; tests say so where they contain its output.

mod alignment;
mod cgroup;
mod container;
mod drop_in;
mod findings;
mod show;
mod unit_name;
mod why;

pub use alignment::{Alignment, DEFAULT_HEADROOM, Supervisor, Verdict};
pub(crate) use cgroup::is_unified;
pub use cgroup::{CgroupUnit, Manager, unit_of_cgroup_file, unit_of_cgroup_path};
pub use container::container_of_cgroup_file;
pub use drop_in::DropIn;
pub use findings::{Finding, Severity, findings};
pub use show::{PROPERTIES, UnitProperties, show_arguments};
pub use why::{MAX_UNITS, Why, why};
