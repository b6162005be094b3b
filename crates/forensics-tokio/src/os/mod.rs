//! Functions that only Linux has, and their replacements on other Unix. forensics-core has a module
//! of the same name and structure. See docs/other-unix.md.

#[cfg_attr(all(target_os = "linux", not(forensics_portable)), path = "linux.rs")]
#[cfg_attr(not(all(target_os = "linux", not(forensics_portable))), path = "portable.rs")]
mod this;

pub(crate) use this::*;
