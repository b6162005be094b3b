//! The facts about a systemd unit: its name in the cgroup's path, its properties, and whether
//! systemd waits long enough for our teardown.
//!
//! Everything here is a pure function over text that the caller has read: the content of
//! `/proc/PID/cgroup`, the output of `systemctl show`. No process is started. The behaviour of
//! systemd 252 was read from its source and observed. Tests that contain its output say so.

mod alignment;
mod cgroup;
mod container;
mod drop_in;
mod lint;
mod relations;
mod show;
mod signals;
mod stop_reason;
mod unit_name;

pub use alignment::{Alignment, DEFAULT_HEADROOM};
pub(crate) use cgroup::is_unified;
pub use cgroup::{CgroupUnit, Manager, unit_of_cgroup_file};
pub(crate) use unit_name::is_valid as is_valid_unit_name;

#[doc(hidden)]
pub use self::{
    alignment::Supervisor,
    cgroup::unit_of_cgroup_path,
    container::container_of_cgroup_file,
    drop_in::DropIn,
    lint::{Finding, Severity, lint},
    show::{StopTimer, UnitProperties, show_arguments},
    signals::{DEFAULT_SIGNALS, lint_signals, list_signals},
    stop_reason::{StopFacts, explain_final_kill, explain_stop, related_arguments},
};
