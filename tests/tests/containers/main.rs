//! The example gateway as it runs in a container: in a pid namespace, as process 1 and below an init,
//! in a root with nothing else in it, as nobody, with a read-only root; and the manifests and the
//! Dockerfile of docs/kubernetes.md, run as the kubelet would run them, as far as that goes without
//! one. Root's to set up.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // Clippy spares `#[test]` functions, and not what they share.

mod container;
mod dockerfile;
mod inits;
mod manifests;
mod memory;
mod process_one;
mod stops;
