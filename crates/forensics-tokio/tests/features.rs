//! Checks that the features in the documentation are those of the manifest.

#![allow(clippy::unwrap_used)] // A test's unwrap is an assertion.

use std::collections::BTreeSet;

/// The features in a text's table, whose lines begin with `comment`.
fn documented<'a>(text: &'a str, comment: &str) -> BTreeSet<&'a str> {
    let lines = text.lines().filter_map(|line| line.strip_prefix(comment));
    let rows = lines.skip_while(|line| *line != "| feature | adds |").skip(2);
    let names = rows.map_while(|line| line.strip_prefix("| `")?.split_once('`'));
    names.map(|(name, _)| name).collect()
}

#[test]
fn the_features_that_there_are_and_no_others_are_documented() {
    let manifest = include_str!("../Cargo.toml");
    let (_, features) = manifest.split_once("\n[features]\n").unwrap();
    let (features, _) = features.split_once("\n[").unwrap();
    let names = features.lines().filter_map(|line| Some(line.split_once(" = ")?.0));
    let there: BTreeSet<&str> = names.filter(|name| *name != "default").collect();
    assert!(there.contains("logging"), "{there:?}");
    assert_eq!(documented(include_str!("../src/lib.rs"), "//! "), there);
    assert_eq!(documented(include_str!("../README.md"), ""), there);
}
