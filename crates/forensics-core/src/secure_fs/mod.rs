//! Opens files and folders so that no other user can turn it against us.
//!
//! [`Folder`] and [`append_to`] open what we write to; [`read`] opens what we read. Both refuse a file
//! that is not regular, and neither can be led elsewhere by a link that is put in its place.

mod folder;
mod regular;

pub use folder::{AccessError, Folder, append_to};
pub(crate) use regular::{Links, READ, is_regular, kind, open_path};
pub use regular::{OpenError, read};
