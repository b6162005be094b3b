//! `/proc/PID/cgroup`, with names chosen by any user who can create control groups. The name of a
//! unit that is found is safe in a line and in a shell. The file and the path give the same unit.

use std::time::Duration;

use forensics_core::logfmt::Value;
use forensics_core::systemd::{
    CgroupUnit, DropIn, Manager, container_of_cgroup_file, unit_of_cgroup_file, unit_of_cgroup_path,
};

const CONTAINERS: [&str; 6] = ["docker", "podman", "cri-o", "containerd", "kubernetes", "lxc"];

pub(crate) fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let container = container_of_cgroup_file(&text);
    assert!(container.is_none_or(|name| CONTAINERS.contains(&name)), "{container:?}");
    if let Some(found) = unit_of_cgroup_file(&text) {
        safe(&found);
        assert!(text.contains(found.unit.as_str()), "{found:?} is not in the text");
    }
    let path = text.lines().next().unwrap_or_default();
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    let found = unit_of_cgroup_path(path);
    // The kernel refuses line ends in names, and adds `(deleted)` itself.
    if !path.contains('\r') && !path.ends_with(" (deleted)") {
        let (line, deleted) = (format!("0::{path}\n"), format!("0::{path} (deleted)\n"));
        assert_eq!(unit_of_cgroup_file(&line), found);
        assert_eq!(unit_of_cgroup_file(&deleted), found);
    }
    if let Some(found) = found {
        safe(&found);
        // A service can create any cgroups below its own.
        if !found.unit.starts_with("user@") {
            assert_eq!(
                unit_of_cgroup_path(&format!("{path}/user@1.service/x.service")),
                Some(found)
            );
        }
    }
}

fn safe(found: &CgroupUnit) {
    let json = serde_json::to_string(found).expect("a unit has a JSON form");
    assert_eq!(serde_json::from_str::<CgroupUnit>(&json).ok().as_ref(), Some(found));
    let (name, kind) = found.unit.rsplit_once('.').expect("a unit's name has a type");
    assert!(!name.is_empty() && !kind.is_empty() && found.unit.len() < 256, "{found:?}");
    assert!(found.unit.bytes().all(|b| b.is_ascii_alphanumeric() || b"@:-_.\\".contains(&b)));
    assert!(name.contains('\\') || Value(&found.unit).to_string() == found.unit);
    if let Manager::User { uid } = found.manager {
        assert!(uid != u32::MAX && uid != 65535, "{found:?}");
    }
    let fix = DropIn::new(&found.unit, found.manager, Duration::from_secs(90));
    assert_eq!(fix.is_some(), matches!(kind, "service" | "scope"), "{found:?}");
    if let Some(fix) = fix {
        assert_eq!(fix.script.lines().count(), 3, "{}", fix.script);
        assert_eq!(fix.to_string().lines().count(), 4, "{fix}");
        assert!(!fix.edit_command.contains(" -- ") || found.unit.starts_with('-'));
    }
}
