//! Yes and no, as systemd reads them.

use std::ffi::OsStr;

/// Whether a variable's value is a yes; no where it is none of the words for it.
pub(crate) fn is_yes(value: &OsStr) -> bool {
    yes_or_no(value) == Ok(true)
}

/// As systemd's `parse_boolean()` (`src/basic/parse-util.c`).
pub(super) fn yes_or_no(value: &OsStr) -> Result<bool, String> {
    let value = value.to_string_lossy().to_ascii_lowercase();
    match value.as_str() {
        "1" | "yes" | "y" | "true" | "t" | "on" => Ok(true),
        "0" | "no" | "n" | "false" | "f" | "off" => Ok(false),
        _ => Err("neither yes nor no: write `yes` or `no`".to_owned()),
    }
}
