//! The gateway in real containers: podman with runc, without network, registry or systemd.
//!
//! `tests/containers` makes namespaces by hand, and tests more of what can be seen inside. Here a
//! runtime starts and stops the containers, with its own signals, timeouts, init and exit statuses.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // A test's unwrap is an assertion.

mod ends;
mod engine;
mod entry_points;
mod kube;
mod limits;
mod repeats;
mod restarts;
mod stops;
