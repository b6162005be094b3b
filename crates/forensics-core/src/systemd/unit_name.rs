//! Checks names of units as systemd does (`unit_name_is_valid()` in `src/basic/unit-name.c`).
//!
//! A valid name is safe to show unescaped: it has no space, quote or control character. Its `\`,
//! which systemd-escape(1) writes, is the only character that a shell would interpret.

/// The types with which a name may end, in systemd 252 (`unit_type_table`).
const TYPES: &str = "service mount swap socket target device automount timer path slice scope";

/// `UNIT_NAME_MAX`; a name must be shorter.
const MAX_BYTES: usize = 256;

/// Whether `name` is the name of a unit that can run: a plain name or an instance of a template
/// (`UNIT_NAME_PLAIN|UNIT_NAME_INSTANCE`), but not a template.
pub(crate) fn is_valid(name: &str) -> bool {
    let Some((prefix, kind)) = name.rsplit_once('.') else { return false };
    // A second `@` belongs to the instance.
    let complete = match prefix.split_once('@') {
        Some((before, instance)) => !before.is_empty() && !instance.is_empty(),
        None => !prefix.is_empty(),
    };
    let valid =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '@' | ':' | '-' | '_' | '.' | '\\');
    let is_type = TYPES.split(' ').any(|known| known == kind);
    name.len() < MAX_BYTES && is_type && complete && prefix.chars().all(valid)
}

/// Whether `name` is plain, so neither a template nor an instance (`UNIT_NAME_PLAIN`).
pub(super) fn is_plain(name: &str) -> bool {
    is_valid(name) && !name.contains('@')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_systemd_accepts_for_a_unit_that_runs() {
        let longest = format!("{}.service", "a".repeat(247));
        let valid = [
            "a.service",
            "-.slice",
            "-dash.service",
            "a.b.service",
            "a@b.service",
            "a@b@c.service",
            r"a\x2db.mount",
            "a:b_c.timer",
            "a.service.service",
            "init.scope",
            "a@@.service",
            &longest,
        ];
        for name in valid {
            assert!(is_valid(name), "{name}");
        }
        let too_long = format!("{}.service", "a".repeat(248));
        let invalid = [
            "",
            ".",
            ".service",
            "a",
            "a.",
            "a.Service",
            "a.servic",
            "a.service ",
            "a@.service",
            "@.service",
            "@b.service",
            "a b.service",
            "a/b.service",
            "a#.service",
            "ä.service",
            "a.snapshot",
            "a\n.service",
            &too_long,
        ];
        for name in invalid {
            assert!(!is_valid(name), "{name}");
        }
        assert!(is_plain("a.slice") && !is_plain("a@b.slice") && !is_plain("a@.slice"));
    }
}
