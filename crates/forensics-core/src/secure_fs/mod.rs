//! Opens files and folders so that no other user can redirect us to others.
//!
//! [`Folder`], [`append_to`] and [`open_existing`] open what we write to, and [`read`] opens what we read.
//! They refuse a file that is not regular. What we write to is not reached through a link that another
//! user put in its place.

mod folder;
mod regular;
mod trust;

pub(crate) use folder::MAX_LINKS;
pub use folder::{Folder, append_to, open_existing};
pub(crate) use regular::{Links, READ, is_regular, kind, open_path};
pub use regular::{OpenError, read};
