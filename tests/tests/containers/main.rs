//! The example gateway as in a container: in a pid namespace, as process 1 and below an init, in an
//! empty and a read-only root, as a user without privileges. Also the manifests and the Dockerfile
//! of docs/kubernetes.md, run as a kubelet would run them, as far as possible without one. These
//! tests need root.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // Clippy allows it in `#[test]` functions, but not in their helpers.

mod container;
mod dockerfile;
mod inits;
mod manifests;
mod memory;
mod process_one;
mod stops;
