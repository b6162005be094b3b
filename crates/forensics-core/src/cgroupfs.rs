//! Where a process's control group is in the file system, and the kernel's counters of its memory.
//!
//! File names are those of the kernel's `admin-guide/cgroup-v2.rst` and `cgroup-v1/memory.rst`.
//! Each counter can be missing on its own. Files of a control group may be served by lxcfs, and can
//! then block. The caller must limit the wait.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use crate::procfile;
use crate::systemd::is_unified;

const MOUNT: &str = "/sys/fs/cgroup";

/// "No limit" in version 1: the largest long, rounded down to a page.
pub(crate) const NO_LIMIT: u64 = i64::MAX as u64 - 0xffff;

/// The version of a hierarchy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

/// The hierarchy below `mount` that has the controller, its folder, and the process's path in it,
/// from its `/proc/PID/cgroup`.
pub(crate) fn place(
    groups: &str,
    controller: &str,
    mount: &Path,
) -> Option<(Version, PathBuf, String)> {
    let groups = procfile::parse_cgroups(groups);
    let v1 = groups.iter().find(|group| group.controllers.iter().any(|one| one == controller));
    if let Some(group) = v1 {
        return Some((Version::V1, mount.join(controller), group.pathname.clone()));
    }
    let group = groups.into_iter().find(is_unified)?;
    // Only its root has this file. On a hybrid system it is mounted a level lower.
    let is_root = mount.join("cgroup.controllers").exists();
    let root = if is_root { mount.to_owned() } else { mount.join("unified") };
    Some((Version::V2, root, group.pathname))
}

/// The folder of a group. `None` for a group outside our cgroup namespace, which the kernel shows
/// as `/../other`: the joined path would be outside the mount.
pub(crate) fn below(root: &Path, path: &str) -> Option<PathBuf> {
    let path = Path::new(path.trim_start_matches('/'));
    let inside = path.components().all(|c| matches!(c, Component::Normal(_)));
    inside.then(|| root.iter().chain(path).collect())
}

/// The folder of a group, and whether it was found there. In a container without a cgroup namespace
/// the path is the host's, and the mounted group is the container's own.
pub(crate) fn home(root: &Path, path: &str) -> (PathBuf, bool) {
    match below(root, path).filter(|home| home.is_dir()) {
        Some(home) => (home, true),
        None => (root.to_owned(), false),
    }
}

/// The control group that counts a process's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryCgroup {
    version: Version,
    home: PathBuf,
    /// As in `/proc/PID/cgroup`.
    path: String,
}

/// The kernel's counters of a group's memory, in bytes or events. A counter that is not known is
/// absent.
///
/// | name | version 2 | version 1 |
/// |---|---|---|
/// | `current` | `memory.current` | `memory.usage_in_bytes` |
/// | `max`, absent without a limit | `memory.max` | `memory.limit_in_bytes` |
/// | `max_events`: how often the usage was about to exceed `max` | `max` of `memory.events` | `memory.failcnt` |
/// | `oom`: how often no memory could be freed | `oom` of `memory.events` | absent |
/// | `oom_kill`: how many processes were killed to free memory | `oom_kill` of `memory.events` | `oom_kill` of `memory.oom_control` |
pub type Memory = BTreeMap<String, u64>;

impl MemoryCgroup {
    /// The group of the process with that folder of `/proc` (`/proc/self`). `None` if there is no
    /// memory controller, or its files are not mounted.
    pub fn of(proc: &str) -> Option<Self> {
        let groups = procfile::text(format!("{proc}/cgroup"))?;
        let (version, root, path) = place(&groups, "memory", Path::new(MOUNT))?;
        let (home, _) = home(&root, &path);
        home.is_dir().then_some(Self { version, home, path })
    }

    /// The group with that path in our cgroup namespace. `None` if there is none.
    pub(crate) fn at(path: &str) -> Option<Self> {
        let groups = procfile::text("/proc/self/cgroup")?;
        let (version, root, _) = place(&groups, "memory", Path::new(MOUNT))?;
        let home = below(&root, path).filter(|home| home.is_dir())?;
        Some(Self { version, home, path: path.to_owned() })
    }

    /// Its path, as the process's `/proc/PID/cgroup` shows it.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Reads its counters: four small files.
    pub fn read(&self) -> Memory {
        let text = |file: &str| procfile::text(self.home.join(file)).unwrap_or_default();
        let number = |file: &str| text(file).trim().parse().ok();
        let counts = match self.version {
            Version::V1 => [
                ("current", number("memory.usage_in_bytes")),
                ("max", number("memory.limit_in_bytes").filter(|&max| max < NO_LIMIT)),
                ("max_events", number("memory.failcnt")),
                ("oom", None),
                ("oom_kill", counter(&text("memory.oom_control"), "oom_kill")),
            ],
            Version::V2 => {
                let events = text("memory.events");
                [
                    ("current", number("memory.current")),
                    // "max" means no limit.
                    ("max", number("memory.max")),
                    ("max_events", counter(&events, "max")),
                    ("oom", counter(&events, "oom")),
                    ("oom_kill", counter(&events, "oom_kill")),
                ]
            }
        };
        counts.into_iter().filter_map(|(name, count)| Some((name.to_owned(), count?))).collect()
    }

    /// How many of its processes the kernel has killed to free memory; `None` if it does not count
    /// them (before Linux 4.13).
    pub fn oom_kills(&self) -> Option<OomKills> {
        let count = *self.read().get("oom_kill")?;
        Some(OomKills { count, cgroup_inode: fs::metadata(&self.home).ok()?.ino() })
    }
}

/// How many processes of our own control group the kernel has killed to free memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OomKills {
    /// `oom_kill` of `memory.events`, or of `memory.oom_control` in version 1.
    pub count: u64,
    /// The inode of the group's folder. A group that was created again counts from zero, and has another inode.
    pub cgroup_inode: u64,
}

impl OomKills {
    /// Reads the counter of our own group; see [`MemoryCgroup::of`] and [`MemoryCgroup::oom_kills`].
    pub fn read() -> Option<Self> {
        MemoryCgroup::of("/proc/self")?.oom_kills()
    }
}

/// The value of `key` in a file of `key value` lines.
fn counter(events: &str, key: &str) -> Option<u64> {
    events.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        value.trim().parse().ok().filter(|_| name == key)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_is_read_in_both_versions() {
        let v2 = "low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 1\n";
        let v1 = "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n";
        let kills = |text| counter(text, "oom_kill");
        assert_eq!([kills(v2), kills(v1), kills("oom 3\n")], [Some(2), Some(5), None]);
        assert_eq!(
            [counter(v2, "max"), counter(v2, "oom"), counter(v1, "max")],
            [Some(7), Some(3), None]
        );
    }

    fn memory(counts: &[(&str, u64)]) -> Memory {
        counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    fn folder(files: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs::write(dir.path().join(name), content).unwrap();
        }
        let home = dir.path().to_owned();
        (dir, home)
    }

    #[test]
    fn the_counters_are_the_same_in_both_versions() {
        let (_v2, home) = folder(&[
            ("memory.current", "1048576\n"),
            ("memory.max", "2097152\n"),
            ("memory.events", "low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 1\n"),
        ]);
        let group = MemoryCgroup { version: Version::V2, home, path: String::new() };
        let mut counts = memory(&[
            ("current", 1 << 20),
            ("max", 1 << 21),
            ("max_events", 7),
            ("oom", 3),
            ("oom_kill", 2),
        ]);
        assert_eq!(group.read(), counts);
        let (_v1, home) = folder(&[
            ("memory.usage_in_bytes", "1048576\n"),
            ("memory.limit_in_bytes", "2097152\n"),
            ("memory.failcnt", "7\n"),
            ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
        ]);
        let group = MemoryCgroup { version: Version::V1, home, path: String::new() };
        counts.remove("oom");
        assert_eq!(group.read(), counts);
    }

    #[test]
    fn no_limit_is_none_and_each_counter_can_be_missing_alone() {
        let (_v2, home) = folder(&[("memory.max", "max\n"), ("memory.events", "max x\noom 0\n")]);
        let group = MemoryCgroup { version: Version::V2, home, path: String::new() };
        assert_eq!(group.read(), memory(&[("oom", 0)]));
        let (_v1, home) = folder(&[("memory.limit_in_bytes", "9223372036854771712\n")]);
        assert_eq!(
            MemoryCgroup { version: Version::V1, home, path: String::new() }.read(),
            Memory::default()
        );
    }

    #[test]
    fn a_group_that_is_not_visible_is_replaced_by_the_mounted_one() {
        let (_dir, root) = folder(&[]);
        fs::create_dir(root.join("here")).unwrap();
        assert_eq!(home(&root, "/here"), (root.join("here"), true));
        assert_eq!(home(&root, "/docker/1f"), (root.clone(), false));
        assert_eq!(home(&root, "/../etc"), (root.clone(), false));
    }
}
