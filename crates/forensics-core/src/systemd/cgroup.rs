//! The unit and its manager, from the path of a control group.
//!
//! systemd gives each unit a control group named after it, inside those of its slices, so the path
//! in `/proc/PID/cgroup` shows the unit of a process, without asking systemd. The rules are those
//! of systemd 252 (`cg_path_get_unit()`, `cg_path_get_user_unit()` and what they call, in
//! `src/basic/cgroup-util.c`), checked against its own test cases.
//!
//! There are two limits. A program that may create control groups may name them like units, so a
//! name is only as trustworthy as the program to which the subtree was delegated. And the units of
//! a manager inside a container without a cgroup namespace are not recognized (systemd strips the
//! path of its own process 1).

use procfs::ProcessCGroup;
use serde::{Deserialize, Serialize};

use super::unit_name;
use crate::procfile::parse_cgroups;

/// Which systemd a unit belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Manager {
    /// The system manager, process 1.
    System,
    /// A user manager, which runs as `user@UID.service` of the system manager.
    User {
        /// The user's id.
        uid: u32,
    },
}

impl Manager {
    /// The option with which systemctl(1), systemd-run(1) and similar programs ask this manager. A
    /// user manager is always that of the user who runs the command, found by `XDG_RUNTIME_DIR`;
    /// the uid is not used.
    #[doc(hidden)]
    pub fn option(self) -> &'static str {
        match self {
            Manager::System => "--system",
            Manager::User { .. } => "--user",
        }
    }
}

/// A unit, as named in the path of a control group.
///
/// Any type of unit that holds processes: a service, a scope (a login session's `session-2.scope`,
/// a container's), more rarely a socket, mount or swap. The managers themselves are in
/// `init.scope`, which is not a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupUnit {
    /// Its full name, type included: `gateway.service`, `worker@3.service`. Always a valid one.
    pub unit: String,
    /// The manager that runs it.
    pub manager: Manager,
}

impl CgroupUnit {
    /// Whether it has its own `TimeoutStopSec=`: a service or a scope, but not the scope of a login
    /// session, which ends with the login, and not the scope of a manager.
    #[doc(hidden)]
    pub fn has_stop_timeout(&self) -> bool {
        let is_scope = self.unit.ends_with(".scope") && self.unit != "init.scope";
        self.unit.ends_with(".service") || (is_scope && !self.unit.starts_with("session-"))
    }

    /// The service of the system manager that runs the user manager of this unit. Its stop timeout
    /// also limits a stop of this unit. `None` for a unit of the system manager. Slices have no
    /// stop timeout.
    #[doc(hidden)]
    pub fn manager_unit(&self) -> Option<CgroupUnit> {
        let Manager::User { uid } = self.manager else { return None };
        Some(CgroupUnit { unit: format!("user@{uid}.service"), manager: Manager::System })
    }
}

/// Returns the unit, from the content of `/proc/PID/cgroup`. `None` if there is none.
///
/// The line of the version 2 hierarchy decides, because systemd keeps its units there if it exists,
/// even on a hybrid system (`cg_pid_get_path()`; the version 1 hierarchy `name=systemd` is then a
/// copy). If that line names no unit, because the version 2 hierarchy is not systemd's, the line of
/// `name=systemd` decides. Lines cannot be forged: the kernel refuses a newline in a group's name
/// (`cgroup_mkdir()`).
///
/// ```
/// use forensics_core::systemd::{Manager, unit_of_cgroup_file};
/// let found = unit_of_cgroup_file("0::/system.slice/gateway.service\n").expect("a unit");
/// assert_eq!((found.unit.as_str(), found.manager), ("gateway.service", Manager::System));
/// assert_eq!(unit_of_cgroup_file("0::/docker/0123456789ab\n"), None);
/// ```
pub fn unit_of_cgroup_file(content: &str) -> Option<CgroupUnit> {
    let groups = parse_cgroups(content);
    let is_systemds =
        |group: &&ProcessCGroup| group.controllers.iter().any(|name| name == "name=systemd");
    let unified = groups.iter().find(|group| is_unified(group));
    let groups = unified.into_iter().chain(groups.iter().find(is_systemds));
    groups.map(|group| &group.pathname).find_map(|path| unit_of_cgroup_path(path))
}

/// Whether the line is that of the version 2 hierarchy (cgroups(7)).
pub(crate) fn is_unified(group: &ProcessCGroup) -> bool {
    group.hierarchy == 0 && group.controllers.is_empty()
}

/// The unit, from the path of a control group in systemd's hierarchy. `None` if there is none.
///
/// Leading slices are skipped; the next component is the unit. Groups below it belong to the unit,
/// except below a user manager, where the search starts again.
///
/// ```
/// use forensics_core::systemd::{Manager, unit_of_cgroup_path};
/// let path = "/user.slice/user-1000.slice/user@1000.service/app.slice/sync.service";
/// let found = unit_of_cgroup_path(path).expect("a unit");
/// assert_eq!((found.unit.as_str(), found.manager), ("sync.service", Manager::User { uid: 1000 }));
/// ```
pub fn unit_of_cgroup_path(path: &str) -> Option<CgroupUnit> {
    let (of_system, below) = first_unit(path)?;
    let (component, manager) = match (manager_uid(of_system), first_unit(below)) {
        (Some(uid), Some((of_user, _))) => (of_user, Manager::User { uid }),
        _ => (of_system, Manager::System),
    };
    Some(CgroupUnit { unit: unescape(component).to_owned(), manager })
}

/// The first component that names a unit other than a slice, still escaped, and the path below it
/// (`cg_path_get_unit()`).
fn first_unit(path: &str) -> Option<(&str, &str)> {
    let mut rest = path;
    loop {
        rest = rest.trim_start_matches('/');
        let (component, below) = rest.split_once('/').unwrap_or((rest, ""));
        let name = unescape(component);
        if !name.ends_with(".slice") {
            return unit_name::is_valid(name).then_some((component, below));
        }
        rest = Some(below).filter(|_| unit_name::is_plain(name))?;
    }
}

/// Removes the one `_` that systemd puts before a name that would clash with one of the kernel's
/// files, as in `_cpu.service` (`cg_escape()`, `cg_unescape()`).
fn unescape(component: &str) -> &str {
    component.strip_prefix('_').unwrap_or(component)
}

/// The user manager that the component `user@UID.service` names, which never needs escaping
/// (`skip_user_manager()`). The number is read as by `parse_uid()`: plain digits without a leading
/// zero, and not -1 in 16 or 32 bits.
fn manager_uid(component: &str) -> Option<u32> {
    let digits = component.strip_prefix("user@")?.strip_suffix(".service")?;
    let uid: u32 = digits.parse().ok()?;
    (uid.to_string() == digits && uid != u32::from(u16::MAX) && uid != u32::MAX).then_some(uid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(path: &str) -> Option<(String, Manager)> {
        unit_of_cgroup_path(path).map(|found| (found.unit, found.manager))
    }

    #[test]
    fn the_cases_of_systemd_give_its_results() {
        let (mut decoded, mut units, mut paths, mut user_units) = (0, 0, 0, 0);
        let (mut sessions, mut excluded) = (0, 0);
        let table = include_str!("../../testdata/cgroup_unit_vectors.tsv");
        for row in table.lines().skip(1) {
            let columns: Vec<&str> = row.split('\t').collect();
            let [path, function, expected, _source] = columns[..] else { panic!("{row:?}") };
            let expected = (expected != "error:ENXIO").then_some(expected);
            let unit = first_unit(path).map(|(component, _)| unescape(component));
            match function {
                // Tests one component. It would also accept a slice, but none of its cases is one.
                "decode_unit" => {
                    decoded += 1;
                    assert_eq!(unit, expected, "{row:?}");
                }
                "unit" => {
                    units += 1;
                    assert_eq!(unit, expected, "{row:?}");
                }
                // The path up to the unit, so its last component is the unit, still escaped.
                "unit_path(v254+)" => {
                    paths += 1;
                    let last = expected.map(|path| unescape(path.rsplit('/').next().unwrap()));
                    assert_eq!(unit, last, "{row:?}");
                }
                // systemd also accepts a unit below a session's scope, where no manager puts units
                // since user@UID.service exists. Here it belongs to the session; see below.
                "user_unit" if path.contains("session-") => {
                    sessions += 1;
                    let (unit, manager) = found(path).unwrap();
                    assert!(unit.starts_with("session-") && unit.ends_with(".scope"), "{row:?}");
                    assert_eq!(manager, Manager::System, "{row:?}");
                }
                "user_unit" => {
                    user_units += 1;
                    let user = found(path).filter(|(_, manager)| *manager != Manager::System);
                    let unit = user.map(|(unit, _)| unit);
                    assert_eq!(unit.as_deref(), expected, "{row:?}");
                }
                // Sessions' ids, their owners and slices' names are not needed here.
                "session" | "owner_uid" | "slice" | "user_slice" => excluded += 1,
                _ => panic!("unknown function: {row:?}"),
            }
        }
        assert_eq!((decoded, units, paths, user_units), (9, 11, 14, 4));
        assert_eq!((sessions, excluded), (9, 27));
    }

    #[test]
    fn unescaping_reverses_the_escaping_of_systemd() {
        let table = include_str!("../../testdata/cgroup_escape_vectors.tsv");
        let mut rows = 0;
        for row in table.lines().skip(1) {
            let columns: Vec<&str> = row.split('\t').collect();
            let [name, escaped, _source] = columns[..] else { panic!("{row:?}") };
            assert_eq!(unescape(escaped), name, "{row:?}");
            rows += 1;
        }
        assert_eq!(rows, 39);
    }

    #[test]
    fn a_user_unit_is_below_its_user_manager() {
        let user = |unit: &str, uid| Some((unit.to_owned(), Manager::User { uid }));
        let system = |unit: &str| Some((unit.to_owned(), Manager::System));
        let cases = [
            (
                "/user.slice/user-1777.slice/user@1777.service/app.slice/uu.service",
                user("uu.service", 1777),
            ),
            (
                "/user.slice/user-0.slice/user@0.service/a@b.service/c/d.service",
                user("a@b.service", 0),
            ),
            ("/user.slice/user-7.slice/user@7.service/init.scope", user("init.scope", 7)),
            ("/user.slice/user-7.slice/user@7.service/_cpu.scope", user("cpu.scope", 7)),
            ("/user.slice/user-7.slice/user@7.service/__a.service", user("_a.service", 7)),
            // The manager's own service, and groups below it that are not units.
            ("/user.slice/user-7.slice/user@7.service", system("user@7.service")),
            ("/user.slice/user-7.slice/user@7.service/app.slice", system("user@7.service")),
            (
                "/user.slice/user-7.slice/user@7.service/a@.slice/x.service",
                system("user@7.service"),
            ),
            // Not the name of a user's manager.
            ("/_user@7.service/a.service", system("user@7.service")),
            ("/user@07.service/a.service", system("user@07.service")),
            ("/user@+7.service/a.service", None),
            ("/user@x.service/a.service", system("user@x.service")),
            ("/user@65535.service/a.service", system("user@65535.service")),
            ("/user@4294967295.service/a.service", system("user@4294967295.service")),
            ("/user@4294967296.service/a.service", system("user@4294967296.service")),
            ("/user@4294967294.service/a.service", user("a.service", 4_294_967_294)),
            ("/system.slice/a.service/user@7.service/b.service", system("a.service")),
        ];
        for (path, expected) in cases {
            assert_eq!(found(path), expected, "{path}");
        }
    }

    #[test]
    fn paths_that_systemd_did_not_make_name_no_unit() {
        let none = [
            "",
            "/",
            "//",
            "/a/b",
            "/docker/0123456789ab",
            "/kubepods/burstable/pod1/0123",
            "/lxc/web",
            "/lxc.payload.web",
            "/../system.slice/a.service",
            "/system.slice",
            "/a.slice/b.slice/",
            "/.service",
            "/_/a.service",
            "/a\u{fffd}.service",
        ];
        for path in none {
            assert_eq!(found(path), None, "{path:?}");
        }
    }

    #[test]
    fn the_hierarchy_that_systemd_uses_decides() {
        let v1 = "12:pids:/user.slice\n3:cpu,cpuacct:/x.service\n1:name=systemd:/system.slice/a.service\n";
        let cases = [
            ("0::/system.slice/a.service\n", Some("a.service")),
            ("0::/init.scope", Some("init.scope")),
            ("0::/system.slice/a.service (deleted)\n", Some("a.service")),
            ("0::/a:b.service\n", Some("a:b.service")),
            (v1, Some("a.service")),
            // Hybrid: the copy in version 1, and a container moved in version 1 alone.
            (
                "1:name=systemd:/system.slice/a.service\n0::/system.slice/a.service\n",
                Some("a.service"),
            ),
            (
                "1:name=systemd:/docker/1f\n0::/system.slice/containerd.service\n",
                Some("containerd.service"),
            ),
            // Version 2 that is mounted but not used by systemd.
            ("1:name=systemd:/system.slice/a.service\n0::/\n", Some("a.service")),
            ("1:xname=systemd,b:/system.slice/a.service\n", None),
            ("1:memory:/system.slice/a.service\n0::/\n", None),
            ("0:memory:/system.slice/a.service\n", None),
            ("0:/system.slice/a.service\n", None),
            ("", None),
        ];
        for (content, expected) in cases {
            let unit = unit_of_cgroup_file(content).map(|found| found.unit);
            assert_eq!(unit.as_deref(), expected, "{content:?}");
        }
    }

    #[test]
    fn json_names_unit_and_manager() {
        for (manager, json) in [
            (Manager::System, r#"{"unit":"a.service","manager":"system"}"#),
            (Manager::User { uid: 7 }, r#"{"unit":"a.service","manager":{"user":{"uid":7}}}"#),
        ] {
            let unit = CgroupUnit { unit: "a.service".into(), manager };
            assert_eq!(serde_json::to_string(&unit).unwrap(), json);
            assert_eq!(serde_json::from_str::<CgroupUnit>(json).unwrap(), unit);
        }
    }

    proptest! {
        #[test]
        fn a_unit_has_a_valid_name_with_any_content(
            content in "(0::|[0-9a-z:=,])?(/?[_a-z@.]{0,4}(\\.service|\\.slice|\\PC)?){0,6}",
        ) {
            if let Some(found) = unit_of_cgroup_file(&content) {
                prop_assert!(unit_name::is_valid(&found.unit), "{content:?}: {found:?}");
            }
        }
    }

    #[test]
    fn services_and_scopes_have_a_stop_timeout_and_login_sessions_do_not() {
        let cases = [
            ("gateway.service", true),
            ("run-r1.scope", true),
            ("session-2.scope", false),
            ("init.scope", false),
            ("gateway.socket", false),
        ];
        for (unit, expected) in cases {
            let unit = CgroupUnit { unit: unit.to_owned(), manager: Manager::System };
            assert_eq!(unit.has_stop_timeout(), expected, "{unit:?}");
            assert_eq!(unit.manager_unit(), None);
        }
    }

    #[test]
    fn a_user_unit_is_inside_the_service_of_its_manager() {
        let path = "/user.slice/user-7.slice/user@7.service/app.slice/a.service";
        let outer = unit_of_cgroup_path(path).unwrap().manager_unit().unwrap();
        let expected = CgroupUnit { unit: "user@7.service".into(), manager: Manager::System };
        assert_eq!(outer, expected);
    }
}
