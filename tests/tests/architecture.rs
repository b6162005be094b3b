//! Checks ARCHITECTURE.md: every function in its list of a signal's path exists in the file it
//! names.

#![allow(clippy::unwrap_used)] // A test's unwrap is an assertion.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

#[test]
fn each_function_of_the_path_is_in_the_file_of_the_list_and_named_once() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    let (_, path) = page.split_once("<!-- path -->\n").unwrap();
    let (path, _) = path.split_once("<!-- /path -->").unwrap();
    let lines: Vec<&str> = path.lines().collect();
    assert!((10..=20).contains(&lines.len()), "{} lines", lines.len());
    let mut seen = HashSet::new();
    for (n, line) in lines.iter().enumerate() {
        let (number, rest) = line.split_once(". `").unwrap();
        assert_eq!(number.parse(), Ok(n + 1), "{line}");
        let (function, rest) = rest.split_once("` in `").unwrap();
        let (file, _) = rest.split_once('`').unwrap();
        let code = fs::read_to_string(root.join(file)).unwrap();
        let is_there =
            ["(", "<"].iter().any(|after| code.contains(&format!("fn {function}{after}")));
        assert!(is_there, "no function `{function}` in {file}");
        assert!(seen.insert(function.to_owned()), "named twice: {line}");
    }
}
