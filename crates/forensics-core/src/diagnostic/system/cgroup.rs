//! How the cgroup limits the process: memory events, CPU throttling, the limit on tasks.
//!
//! Each controller is looked up on its own, because on a hybrid system some are in version 1
//! hierarchies and the rest are in the version 2 one. File names are from the kernel's
//! `admin-guide/cgroup-v2.rst` and `cgroup-v1/memory.rst`.

use std::io::{self, Write};
use std::path::Path;

use super::facts::{self, Fact};
use super::format::{joined, pick, size};
use super::reads::{Reads, text};
use crate::cgroupfs::{NO_LIMIT, Version, home, place};

/// A controller: its name, and the files read in a version 1 and in a version 2 hierarchy.
type Controller = (&'static str, &'static [&'static str], &'static [&'static str]);

const CONTROLLERS: [Controller; 3] = [
    (
        "memory",
        &["memory.oom_control", "memory.usage_in_bytes", "memory.limit_in_bytes", "memory.failcnt"],
        &["memory.events", "memory.current", "memory.high", "memory.max", "memory.pressure"],
    ),
    ("cpu", &["cpu.stat"], &["cpu.stat"]),
    ("pids", &["pids.current", "pids.max"], &["pids.current", "pids.max"]),
];

pub(super) fn write(
    out: &mut dyn Write,
    reads: &mut Reads<'_>,
    proc: &Path,
    mount: &Path,
    pid: i32,
) -> io::Result<()> {
    writeln!(out, "--- cgroup")?;
    let groups = proc.join(pid.to_string()).join("cgroup");
    let mount = mount.to_owned();
    let find = move |controller| Ok(find(controller, &text(&groups)?, &mount));
    for ((name, ..), found) in CONTROLLERS.into_iter().zip(reads.all(CONTROLLERS.to_vec(), find)) {
        match found {
            Ok((folder, files)) => {
                facts::write_one(out, name, Ok(folder))?;
                facts::write(out, reads, files)?;
            }
            Err(error) => facts::write_one(out, name, Err(error))?,
        }
    }
    Ok(())
}

/// The folder of the process's cgroup for a controller, by the content of `/proc/PID/cgroup`, and the facts
/// in its files.
fn find((controller, v1, v2): Controller, groups: &str, mount: &Path) -> (String, Vec<Fact>) {
    let Some((version, root, path)) = place(groups, controller, mount) else {
        return ("no such controller".to_owned(), Vec::new());
    };
    let files = if version == Version::V1 { v1 } else { v2 };
    let (home, is_its_own) = home(&root, &path);
    let remark = if is_its_own { "" } else { " (the process's own path is not visible here)" };
    let fact = |&name: &&'static str| {
        facts::file(name, home.join(name), move |text| match name {
            "cpu.stat" => throttling(text),
            name if name.starts_with("memory.") => with_size(text),
            _ => joined(text),
        })
    };
    (format!("{}{remark}", home.display()), files.iter().map(fact).collect())
}

fn throttling(cpu_stat: &str) -> String {
    let lines = ["nr_periods", "nr_throttled", "throttled_time", "throttled_usec"];
    pick(cpu_stat, &lines, "no quota")
}

/// Shows a file of one number with a readable size next to it, and other files unchanged.
fn with_size(text: &str) -> String {
    match text.trim().parse() {
        Ok(n @ 1024..NO_LIMIT) => format!("{n} ({})", size(n)),
        Ok(n @ NO_LIMIT..) => format!("{n} (no limit)"),
        _ => joined(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroupfs::below;

    #[test]
    fn each_controller_is_found_in_its_own_hierarchy() {
        use Version::*;
        let v2 = "0::/system.slice/gateway.service\n";
        let v1 = "5:cpu,cpuacct:/a\n4:memory:/docker/1f:2\n3:pids:/b\n1:name=systemd:/c\n";
        let hybrid = "4:memory:/m\n1:name=systemd:/init.scope\n0::/u\n";
        let cases = [
            (v2, "memory", Some((V2, "/system.slice/gateway.service"))),
            (v2, "pids", Some((V2, "/system.slice/gateway.service"))),
            (v1, "memory", Some((V1, "/docker/1f:2"))),
            (v1, "cpu", Some((V1, "/a"))),
            (hybrid, "memory", Some((V1, "/m"))),
            (hybrid, "cpu", Some((V2, "/u"))),
            ("1:name=systemd:/c\n", "memory", None),
            ("", "memory", None),
        ];
        for (text, controller, found) in cases {
            let place = place(text, controller, Path::new("/none"));
            let found = found.map(|(version, path)| {
                let root = if version == V1 { controller } else { "unified" };
                (version, Path::new("/none").join(root), path.to_owned())
            });
            assert_eq!(place, found, "{controller} in {text}");
        }
    }

    #[test]
    fn no_path_leads_out_of_the_mount() {
        let root = Path::new("/sys/fs/cgroup");
        assert_eq!(below(root, "/"), Some(root.into()));
        assert_eq!(below(root, "/a/b"), Some(root.join("a/b")));
        assert_eq!(below(root, "//a"), Some(root.join("a")));
        assert_eq!(below(root, "/../../etc"), None);
        assert_eq!(below(root, "/a/../../../etc"), None);
    }

    #[test]
    fn numbers_are_also_shown_as_sizes() {
        let cases = [
            ("1572864\n", "1572864 (1.5M)"),
            ("0\n", "0"),
            ("max\n", "max"),
            ("9223372036854771712\n", "9223372036854771712 (no limit)"),
            ("low 0\noom_kill 1\n", "low 0 | oom_kill 1"),
        ];
        for (text, shown) in cases {
            assert_eq!(with_size(text), shown);
        }
    }

    #[test]
    fn only_the_throttling_of_the_cpu_is_shown() {
        let v2 = "usage_usec 9\nuser_usec 5\nnr_periods 7\nnr_throttled 2\nthrottled_usec 3\n";
        assert_eq!(throttling(v2), "nr_periods 7 | nr_throttled 2 | throttled_usec 3");
        assert_eq!(throttling("usage_usec 9\nuser_usec 5\n"), "no quota");
    }
}
