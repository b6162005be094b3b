//! A control group with little memory.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A new control group with a memory limit. It is removed when this is dropped, if no process is
/// left in it.
#[derive(Debug)]
pub struct Small(PathBuf);

impl Small {
    /// `None` if it cannot be created. It needs root and a memory controller.
    pub fn new(bytes: u64) -> Option<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let nth = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("forensics-test-{}-{nth}", std::process::id());
        let roots =
            [("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")];
        for (root, limit) in roots {
            let group = Path::new(root).join(&name);
            if fs::create_dir(&group).is_ok() {
                let small = Self(group);
                // Not created here: outside a cgroup hierarchy there is no such file.
                let limit = OpenOptions::new().write(true).open(small.0.join(limit));
                let set = limit.and_then(|mut limit| limit.write_all(bytes.to_string().as_bytes()));
                if set.is_ok() {
                    return Some(small);
                }
            }
        }
        None
    }

    /// The file `cgroup.procs`. A process whose pid is written to it moves into the group.
    pub fn processes(&self) -> PathBuf {
        self.0.join("cgroup.procs")
    }

    /// How often its memory has reached the limit, and how often the kernel has killed a process in
    /// it.
    ///
    /// # Panics
    /// If the kernel does not say.
    pub fn events(&self) -> (u64, u64) {
        let value = |text: &str, key: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok());
            value.unwrap_or_else(|| panic!("no {key} in {text}"))
        };
        let read = |file: &str| fs::read_to_string(self.0.join(file));
        match read("memory.events") {
            Ok(events) => (value(&events, "max "), value(&events, "oom_kill ")),
            Err(_) => {
                let failures = read("memory.failcnt").expect("version 1 counts failures");
                let control = read("memory.oom_control").expect("version 1 has it");
                (value(&failures, ""), value(&control, "oom_kill "))
            }
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}
