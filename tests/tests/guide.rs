//! Follows docs/guide.md from an empty folder.

#![allow(clippy::unwrap_used)] // A test's unwrap is an assertion.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The code block after the line `label`.
fn block<'a>(guide: &'a str, label: &str) -> &'a str {
    let (_, rest) = guide.split_once(&format!("\n{label}\n")).unwrap_or_else(|| panic!("{label}"));
    let (_, code) = rest.split_once("```").unwrap();
    let (_language, code) = code.split_once('\n').unwrap();
    code.split_once("\n```").unwrap().0
}

#[test]
fn a_new_user_gets_a_guarded_service_whose_shutdown_is_tested() {
    let guide = fs::read_to_string(root().join("docs/guide.md")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let write = |file: &str, text: &str| {
        let path = dir.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{text}\n")).unwrap();
    };
    // The guide's folder is next to a clone of this repository.
    let manifest = block(&guide, "`Cargo.toml`:");
    let manifest = manifest.replace("../shutdown-forensics", root().to_str().unwrap());
    assert!(manifest.contains(root().to_str().unwrap()), "{manifest}");
    write("Cargo.toml", &manifest);
    // The other crates come from the lock file of this workspace.
    fs::copy(root().join("Cargo.lock"), dir.path().join("Cargo.lock")).unwrap();
    let tests = block(&guide, "`src/main.rs`, at its end:");
    write("src/main.rs", &format!("{}\n\n{tests}", block(&guide, "`src/main.rs`:")));
    write("tests/shutdown.rs", block(&guide, "`tests/shutdown.rs`:"));

    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // In the same target folder, so that most dependencies are already built.
    let target = std::env::current_exe().unwrap().ancestors().nth(3).unwrap().to_owned();
    let tested = Command::new(cargo)
        .current_dir(dir.path())
        .args(["test", "--offline", "--color=never", "--target-dir"])
        .arg(target.join("guide"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&tested.stdout);
    assert!(tested.status.success(), "{said}\n{}", String::from_utf8_lossy(&tested.stderr));
    for test in [
        "tests::a_drain_that_hangs_leaves_the_database_its_time ... ok",
        "a_request_in_flight_is_answered_and_the_exit_status_is_0 ... ok",
    ] {
        assert!(said.contains(test), "no `{test}` in\n{said}");
    }
}
