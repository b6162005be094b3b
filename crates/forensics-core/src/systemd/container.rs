//! The container runtime, from the names of control groups.
//!
//! This is only a hint. Inside a cgroup namespace, which most runtimes set up on version 2, the
//! path is `/`, which does not show the runtime. And a process that may create control groups can
//! choose any name.

use crate::procfile::parse_cgroups;

/// The runtime of the container in which a process seems to run, from the content of
/// `/proc/PID/cgroup`: `docker`, `podman`, `cri-o`, `containerd`, `kubernetes` or `lxc`. `None` if
/// no path has the form of one of these.
///
/// All hierarchies are examined, because on a hybrid system a runtime may have moved the process
/// only in version 1. In a path the innermost name counts. So for a pod's container, the runtime
/// below the kubelet is returned if it names its groups.
///
/// ```
/// use forensics_core::systemd::container_of_cgroup_file;
/// assert_eq!(container_of_cgroup_file("0::/lxc.payload.web/system.slice\n"), Some("lxc"));
/// assert_eq!(container_of_cgroup_file("0::/system.slice/docker.service\n"), None);
/// ```
pub fn container_of_cgroup_file(content: &str) -> Option<&'static str> {
    parse_cgroups(content).iter().find_map(|group| container_of_path(&group.pathname))
}

fn container_of_path(path: &str) -> Option<&'static str> {
    let mut below = "";
    path.rsplit('/')
        .find_map(|component| runtime(component, std::mem::replace(&mut below, component)))
}

/// The runtime that uses the name `component` for a group. `below` is the name of the next group,
/// or empty.
fn runtime(component: &str, below: &str) -> Option<&'static str> {
    // The name in a systemd scope. Monitors (`libpod-conmon-ID.scope`) have no id at that position.
    let scope = component.strip_suffix(".scope").unwrap_or(component);
    let of_scope = scope.rsplit_once('-').filter(|(_, id)| is_id(id));
    match of_scope.map(|(prefix, _)| prefix) {
        // moby, daemon/oci_linux.go: scopePrefix
        Some("docker") => return Some("docker"),
        // podman, libpod/container.go: CGroupPath
        Some("libpod") => return Some("podman"),
        // cri-o, internal/config/cgmgr: CrioPrefix
        Some("crio") => return Some("cri-o"),
        // containerd, the CRI plugin's getCgroupsPath
        Some("cri-containerd") => return Some("containerd"),
        // moby with the cgroupfs driver: parent "/docker".
        _ if component == "docker" && is_id(below) => return Some("docker"),
        _ => {}
    }
    // kubelet, cm/node_container_manager_linux.go: defaultNodeAllocatableCgroupName; as a slice
    // with the parents' names in front, `kubelet-kubepods-burstable.slice`.
    let mut slice = component.strip_suffix(".slice").unwrap_or_default().split('-');
    if component == "kubepods" || slice.any(|word| word == "kubepods") {
        return Some("kubernetes");
    }
    // lxc, src/lxc/cgroups/cgroup.h: DEFAULT_PAYLOAD_CGROUP_PREFIX; before 4.0 a separate group.
    let is_lxc = component.starts_with("lxc.payload.")
        || (matches!(component, "lxc" | "lxc.payload") && !below.is_empty());
    is_lxc.then_some("lxc")
}

/// Whether this is a container's id: in all runtimes above, 32 random bytes in hexadecimal digits.
fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_are_recognized_by_the_names_of_their_groups() {
        let cases = [
            ("0::/docker/ID", Some("docker")),
            ("0::/system.slice/docker-ID.scope", Some("docker")),
            (
                "0::/user.slice/user-7.slice/user@7.service/user.slice/libpod-ID.scope/container",
                Some("podman"),
            ),
            ("0::/libpod_parent/libpod-ID/ctr", Some("podman")),
            ("0::/kubepods/burstable/pod1234/ID", Some("kubernetes")),
            (
                "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod12.slice/crio-ID.scope",
                Some("cri-o"),
            ),
            ("0::/kubepods.slice/kubepods-pod12.slice/cri-containerd-ID.scope", Some("containerd")),
            (
                "0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod12.slice/x",
                Some("kubernetes"),
            ),
            ("0::/docker/ID/kubepods/besteffort/pod1", Some("kubernetes")),
            ("0::/lxc/web", Some("lxc")),
            ("0::/lxc.payload.web/init.scope", Some("lxc")),
            // Moved only in the version 1 hierarchies.
            ("4:memory:/docker/ID\n0::/system.slice/containerd.service", Some("docker")),
            // The runtimes' own processes, and names that only look alike.
            ("0::/system.slice/docker.service", None),
            ("0::/machine.slice/libpod-conmon-ID.scope", None),
            ("0::/system.slice/crio-conmon-ID.scope", None),
            ("0::/lxc.monitor.web", None),
            ("0::/lxc", None),
            ("0::/docker", None),
            ("0::/docker/0123", None),
            ("0::/system.slice/docker-0123.scope", None),
            ("0::/system.slice/kubepods-exporter.service", None),
            ("0::/", None),
            ("", None),
        ];
        let id = "0123456789abcdef".repeat(4);
        for (content, expected) in cases {
            let content = content.replace("ID", &id);
            assert_eq!(container_of_cgroup_file(&content), expected, "{content}");
        }
    }
}
