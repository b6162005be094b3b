//! Where a process's control group lies in the file system, and how often the kernel killed in it.
//!
//! File names are those of the kernel's `admin-guide/cgroup-v2.rst` and `cgroup-v1/memory.rst`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use crate::procfile;
use crate::systemd::hierarchies;

const MOUNT: &str = "/sys/fs/cgroup";

/// Which kind of hierarchy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

/// The version 2 hierarchy below `mount`. Only its root has the file `cgroup.controllers`; on a
/// hybrid system it is mounted a level lower.
pub(crate) fn unified(mount: &Path) -> PathBuf {
    match mount.join("cgroup.controllers").exists() {
        true => mount.to_owned(),
        false => mount.join("unified"),
    }
}

/// Which hierarchy has the controller, and the process's path in it, by its `/proc/PID/cgroup`.
pub(crate) fn place<'a>(groups: &'a str, controller: &str) -> Option<(Version, &'a str)> {
    let mut v2 = None;
    for (id, controllers, path) in hierarchies(groups) {
        if controllers.split(',').any(|one| one == controller) {
            return Some((Version::V1, path));
        }
        if id == "0" && controllers.is_empty() {
            v2.get_or_insert(path);
        }
    }
    Some((Version::V2, v2?))
}

/// The directory of a group. `None` for one outside our cgroup namespace, which the kernel shows
/// as `/../other`: joined, that would leave the mount.
pub(crate) fn below(root: &Path, path: &str) -> Option<PathBuf> {
    let path = Path::new(path.trim_start_matches('/'));
    let inside = path.components().all(|c| matches!(c, Component::Normal(_)));
    inside.then(|| root.iter().chain(path).collect())
}

/// How many processes of our own control group the kernel has killed for want of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct OomKills {
    /// `oom_kill` of `memory.events`, or of `memory.oom_control` in version 1.
    pub count: u64,
    /// The inode of the group's folder: a group made anew counts anew, and has another.
    pub cgroup_inode: u64,
}

impl OomKills {
    /// Reads the counter; `None` where there is no memory controller or no counter (before Linux
    /// 4.13), or where its files are not mounted.
    pub fn read() -> Option<Self> {
        let groups = procfile::text("/proc/self/cgroup")?;
        let (version, path) = place(&groups, "memory")?;
        let (root, file) = match version {
            Version::V1 => (Path::new(MOUNT).join("memory"), "memory.oom_control"),
            Version::V2 => (unified(Path::new(MOUNT)), "memory.events"),
        };
        let home = below(&root, path)?;
        let count = counter(&procfile::text(home.join(file))?)?;
        Some(Self { count, cgroup_inode: fs::metadata(&home).ok()?.ino() })
    }
}

/// The value of `oom_kill` in a file of `key value` lines.
fn counter(events: &str) -> Option<u64> {
    events.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_is_read_in_both_versions() {
        let v2 = "low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 1\n";
        let v1 = "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n";
        assert_eq!([counter(v2), counter(v1), counter("oom 3\n")], [Some(2), Some(5), None]);
    }
}
