//! What only Linux has, and what stands for it on other Unix; the counterpart of the module of that
//! name in forensics-core, and divided as it is. See docs/other-unix.md.

#[cfg_attr(all(target_os = "linux", not(forensics_portable)), path = "linux.rs")]
#[cfg_attr(not(all(target_os = "linux", not(forensics_portable))), path = "portable.rs")]
mod this;

pub(crate) use this::*;
