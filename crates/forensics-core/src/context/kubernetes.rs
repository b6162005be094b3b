//! The Kubernetes pod that we run in, from the environment and a file. The API server is not asked.
//!
//! A manifest can set `POD_NAME` and `POD_NAMESPACE` by the downward API; these are certain.
//! Without them the name is the host name that the runtime sets. That is the pod's name, but on the
//! host's network it is the node's. The namespace is then that of the service account's token, if
//! one is mounted.

use std::fmt::{self, Display};

use serde::{Deserialize, Serialize};

use super::startup::own_variable;
use crate::escape::truncate;
use crate::procfile;

/// Where the kubelet mounts the namespace, below the root.
const NAMESPACE_FILE: &str = "var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// Longest name, in characters: names in Kubernetes are DNS subdomains (RFC 1123).
const MAX_NAME: usize = 253;

/// A pod. `Display` prints `NAMESPACE/NAME`, or `NAME` alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Pod {
    /// `POD_NAME`, or `HOSTNAME` if Kubernetes set `KUBERNETES_SERVICE_HOST`.
    pub name: String,
    /// `POD_NAMESPACE`, or that of the service account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

impl Pod {
    /// The pod of this process.
    pub(crate) fn ours() -> Option<Self> {
        Self::of(Some("/proc/self/root"), &own_variable)
    }

    /// The pod of the process with that root and that environment. `None` if its name is not known.
    ///
    /// Without a root, nothing is read. In a pod the file is a link to a link.
    pub(crate) fn of(
        root: Option<&str>,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Option<Self> {
        let in_kubernetes = variable("KUBERNETES_SERVICE_HOST").is_some();
        let host_name = || variable("HOSTNAME").filter(|_| in_kubernetes);
        let name = variable("POD_NAME").or_else(host_name)?;
        let file = || procfile::text(format!("{}/{NAMESPACE_FILE}", root?));
        let namespace = variable("POD_NAMESPACE").or_else(file);
        let short = |text: String| truncate(text.trim(), MAX_NAME);
        let namespace = namespace.map(short).filter(|namespace| !namespace.is_empty());
        Some(Self { name: short(name), namespace })
    }
}

impl Display for Pod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_downward_api_comes_first_and_a_host_name_counts_only_in_kubernetes() {
        let cluster = ("KUBERNETES_SERVICE_HOST", "10.0.0.1");
        let (host, name) = (("HOSTNAME", "web-1"), ("POD_NAME", "web-2"));
        let namespace = ("POD_NAMESPACE", "shop\n");
        type Set<'a> = &'a [(&'a str, &'a str)];
        let cases: [(Set<'_>, Option<&str>); 6] = [
            (&[], None),
            (&[host, namespace], None),
            (&[cluster, namespace], None),
            (&[cluster, host], Some("billing/web-1")),
            (&[cluster, host, name, namespace], Some("shop/web-2")),
            (&[name], Some("billing/web-2")),
        ];
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_str();
        let file = dir.path().join(NAMESPACE_FILE);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, "billing").unwrap();
        for (set, expected) in cases {
            let variable = |name: &str| {
                set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
            };
            let pod = Pod::of(root, &variable);
            assert_eq!(pod.map(|pod| pod.to_string()).as_deref(), expected, "{set:?}");
        }
        std::fs::remove_file(&file).unwrap();
        let named = |name: &str| (name == "POD_NAME").then(|| "x".repeat(1000));
        let pod = Pod::of(root, &named).unwrap();
        assert_eq!((pod.name.chars().count(), pod.namespace), (MAX_NAME, None));
    }
}
