//! Checks ARCHITECTURE.md and SECURITY.md: every function in the list of a signal's path, and every
//! test of the threat model, exists in the file that the page names.

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

#[test]
fn each_row_of_the_threat_model_is_held_by_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let (_, table) = page.split_once("<!-- threats -->\n").unwrap();
    let (table, _) = table.split_once("<!-- /threats -->").unwrap();
    // Without the head, and without the two rows that name the parts of the table.
    let rows: Vec<_> = table.lines().skip(2).filter(|row| !row.starts_with("| **")).collect();
    assert!(rows.len() >= 15, "{} rows", rows.len());
    for row in rows {
        let tests = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        for test in tests.split("; ") {
            let (name, file) = test.split_once("` in `").expect(row);
            let (name, file) = (name.trim_start_matches('`'), file.trim_end_matches('`'));
            let code =
                fs::read_to_string(root.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
            let at =
                code.find(&format!("fn {name}(")).unwrap_or_else(|| panic!("no {name} in {file}"));
            let before = code[..at].trim_end_matches("async ").trim_end();
            assert!(before.ends_with("#[test]"), "{name} in {file} is not a test");
        }
    }
}
