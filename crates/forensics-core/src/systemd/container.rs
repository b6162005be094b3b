//! The container runtime, from how it names control groups.
//!
//! A hint and no more. Inside a cgroup namespace, which most runtimes set up on version 2, the
//! path is `/` and tells nothing; and whoever may create control groups may choose such names.

use crate::procfile::parse_cgroups;

/// The runtime whose container a process looks to be in, from the content of `/proc/PID/cgroup`:
/// `docker`, `podman`, `cri-o`, `containerd`, `kubernetes` or `lxc`. `None` where no path looks
/// like one's.
///
/// All hierarchies are looked at, since on a hybrid system a runtime may have moved the process in
/// version 1 alone. In a path the innermost name counts, so a pod's container goes by the runtime
/// below the kubelet where that names its groups.
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
    let components: Vec<&str> = path.split('/').collect();
    (0..components.len())
        .rev()
        .find_map(|i| runtime(components[i], components.get(i + 1).copied().unwrap_or_default()))
}

/// The runtime that names a group `component`, with `below` the name of the next one or empty.
fn runtime(component: &str, below: &str) -> Option<&'static str> {
    // The name in a systemd scope; monitors (`libpod-conmon-ID.scope`) hold no id at that place.
    let scope = component.strip_suffix(".scope").unwrap_or(component);
    if let Some((prefix, id)) = scope.rsplit_once('-')
        && is_id(id)
    {
        match prefix {
            // moby, daemon/oci_linux.go: scopePrefix
            "docker" => return Some("docker"),
            // podman, libpod/container.go: CGroupPath
            "libpod" => return Some("podman"),
            // cri-o, internal/config/cgmgr: CrioPrefix
            "crio" => return Some("cri-o"),
            // containerd, the CRI plugin's getCgroupsPath
            "cri-containerd" => return Some("containerd"),
            _ => {}
        }
    }
    // kubelet, cm/node_container_manager_linux.go: defaultNodeAllocatableCgroupName; as a slice
    // with the parents' names in front, `kubelet-kubepods-burstable.slice`.
    let slice = component.strip_suffix(".slice").unwrap_or(component);
    let is_pod = slice == "kubepods"
        || (slice != component && slice.split('-').any(|word| word == "kubepods"));
    // lxc, src/lxc/cgroups/cgroup.h: DEFAULT_PAYLOAD_CGROUP_PREFIX; before 4.0 a group of its own.
    let is_lxc = component.starts_with("lxc.payload.")
        || (matches!(component, "lxc" | "lxc.payload") && !below.is_empty());
    match () {
        // moby with the cgroupfs driver: parent "/docker".
        () if component == "docker" && is_id(below) => Some("docker"),
        () if is_pod => Some("kubernetes"),
        () if is_lxc => Some("lxc"),
        () => None,
    }
}

/// A container's id, in all runtimes above: 32 random bytes in hexadecimal digits.
fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_are_told_by_how_they_name_their_groups() {
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
            // Version 1, moved in its hierarchies alone.
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
