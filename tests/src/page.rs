//! The code blocks of a page of the docs, for tests that run them.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::can;

/// The blocks of this language in `docs/NAME`, in their order.
///
/// # Panics
/// If there is no such page.
pub fn blocks(name: &str, language: &str) -> Vec<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    let page = fs::read_to_string(page).expect("the page is there");
    let fence = format!("\n```{language}\n");
    let blocks = page.split(&fence).skip(1);
    blocks.filter_map(|block| Some(block.split_once("\n```")?.0.to_owned())).collect()
}

/// Whether this machine can parse YAML, as [`can`].
pub fn can_read_yaml() -> bool {
    can(Command::new("/usr/bin/python3").args(["-c", "import yaml"]))
}

/// The documents in the page's `yaml` blocks.
///
/// # Panics
/// If they are not YAML, or [cannot be parsed](can_read_yaml).
pub fn yaml(name: &str) -> Vec<Value> {
    const TO_JSON: &str =
        "import json, sys, yaml; json.dump(list(yaml.safe_load_all(sys.stdin)), sys.stdout)";
    let documents = blocks(name, "yaml").join("\n---\n");
    let mut python = Command::new("/usr/bin/python3");
    python.args(["-c", TO_JSON]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut python = python.spawn().expect("python3 runs");
    let mut stdin = python.stdin.take().expect("it is piped");
    stdin.write_all(documents.as_bytes()).expect("it reads all of it");
    drop(stdin);
    let json = python.wait_with_output().expect("it ends");
    assert!(json.status.success(), "no YAML:\n{documents}");
    serde_json::from_slice(&json.stdout).expect("it writes JSON")
}
