//! The table of docs/who-killed-me.md: how a run ended, and what is said about it.

use std::collections::BTreeSet;
use std::path::Path;

use forensics_tokio::core::logfmt;

/// A row of the table.
#[derive(Debug, Clone)]
pub struct End {
    /// How it ended. `the same` is replaced by the cell above.
    pub what: String,
    /// What it is known from.
    pub from: String,
    reason: String,
    basis: String,
    words: Vec<String>,
}

/// The rows that are known from one of these. Also builds the command line tool: what it says depends on
/// how soon after an end it runs.
///
/// # Panics
/// If there is no such table, or if the tool does not build.
pub fn ends(from: &[&str]) -> Vec<End> {
    crate::forensics();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ has a parent");
    let page = std::fs::read_to_string(root.join("docs/who-killed-me.md")).expect("the page");
    let mut rows: Vec<End> = Vec::new();
    let table = page.lines().skip_while(|line| !line.starts_with("| how it ended |")).skip(2);
    for line in table.take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [what, from, reason, basis, words] = cells[..] else { panic!("{line}") };
        let bare = |cell: &str| cell.trim_matches('`').to_owned();
        let what = match (what, rows.last()) {
            ("the same", Some(above)) => above.what.clone(),
            (what, _) => what.to_owned(),
        };
        let words = words.split(", `").map(|word| word.trim_matches('`').trim().to_owned());
        let (from, reason, basis) = (bare(from), bare(reason), bare(basis));
        rows.push(End { what, from, reason, basis, words: words.collect() });
    }
    assert!(rows.len() > 20, "{rows:?}");
    rows.retain(|row| from.contains(&row.from.as_str()));
    rows
}

impl End {
    /// Asserts that a line of `forensics last` says this.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn assert_said(&self, line: &str) {
        let what = format!("{} ({})", self.what, self.from);
        let fields = logfmt::parse(line.trim()).unwrap_or_else(|e| panic!("{what}: {e}: {line:?}"));
        let field = |key: &str| {
            let found = fields.iter().find(|(name, _)| name == key);
            found.map_or("", |(_, value)| value.as_str())
        };
        assert_eq!(field("reason"), self.reason, "{what}: {line}");
        assert_eq!(field("basis"), self.basis, "{what}: {line}");
        let said = format!("{}; {}", field("evidence"), field("advice"));
        for words in &self.words {
            assert!(said.contains(words), "{what}: no `{words}` in {line}");
        }
    }
}

/// Asserts that these are the ends of the rows.
///
/// # Panics
/// If a row has no case, or a case no row.
pub fn assert_all(rows: &[End], cases: &[&str]) {
    let rows: BTreeSet<_> = rows.iter().map(|row| row.what.as_str()).collect();
    let cases: BTreeSet<_> = cases.iter().copied().collect();
    assert_eq!(rows, cases);
}
