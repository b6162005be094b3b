//! Checks that everything exists that is named in the commands of CONTRIBUTING.md, of the examples, and of the
//! pages about tests: scripts, packages, targets, tests and aliases. And that the first build stays small.

#![allow(clippy::unwrap_used)] // A test's unwrap is an assertion.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn cargo(arguments: &[&str]) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    output(Command::new(cargo).current_dir(root()).args(arguments))
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let Output { status, stdout, stderr } = output;
    assert!(status.success(), "{command:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

/// The commands of a page as words, without variables and comments.
fn commands(page: &str) -> Vec<Vec<String>> {
    let blocks = page.split("```").skip(1).step_by(2);
    let lines = blocks.filter_map(|block| block.strip_prefix("sh\n")).flat_map(str::lines);
    let words = lines.map(|line| {
        let words = line.split(" #").next().unwrap().split_whitespace();
        let words = words.skip_while(|word| word.split_once('=').is_some_and(|(n, _)| is_name(n)));
        words.filter(|word| *word != "&").map(|word| word.replace(['"', '\''], "")).collect()
    });
    words.filter(|words: &Vec<String>| !words.is_empty()).collect()
}

fn is_name(name: &str) -> bool {
    name.chars().all(|c| c.is_ascii_uppercase() || c == '_')
}

/// The packages, commands and aliases that cargo knows.
struct Workspace {
    packages: Vec<Value>,
    /// The ids of the packages that cargo uses if a command names none.
    default: Vec<Value>,
    /// Commands, aliases included.
    commands: Vec<String>,
    /// The aliases and their commands.
    aliases: Vec<(String, Vec<String>)>,
}

impl Workspace {
    fn look() -> Self {
        let metadata = cargo(&["metadata", "--no-deps", "--offline", "--format-version", "1"]);
        let metadata: Value = serde_json::from_str(&metadata).unwrap();
        let list = cargo(&["--list"]);
        let list = list.lines().filter_map(|line| line.split_whitespace().next());
        let config = fs::read_to_string(root().join(".cargo/config.toml")).unwrap();
        let (_, aliases) = config.split_once("[alias]\n").unwrap();
        let aliases = aliases.lines().take_while(|line| !line.is_empty());
        let aliases = aliases.map(|line| line.split_once(" = ").unwrap());
        let aliases = aliases.map(|(name, command)| {
            (name.to_owned(), command.trim_matches('"').split(' ').map(str::to_owned).collect())
        });
        Self {
            packages: metadata["packages"].as_array().unwrap().clone(),
            default: metadata["workspace_default_members"].as_array().unwrap().clone(),
            commands: list.map(str::to_owned).collect(),
            aliases: aliases.collect(),
        }
    }

    /// Checks that everything that a call of cargo names exists. `installed` are the tools that the
    /// page installs.
    fn check(&self, call: &[String], installed: &[String]) {
        let said = call.join(" ");
        let [command, arguments @ ..] = call else { panic!("cargo alone") };
        if let Some((_, stands_for)) = self.aliases.iter().find(|(name, _)| name == command) {
            return self.check(stands_for, installed);
        }
        let known = self.commands.contains(command) || installed.contains(command);
        assert!(known, "cargo has no `{command}`: {said}");
        let mut packages: Vec<&Value> = Vec::new();
        let (mut targets, mut filters) = (Vec::new(), Vec::new());
        let mut arguments = arguments.iter().map(String::as_str).take_while(|word| *word != "--");
        while let Some(argument) = arguments.next() {
            match argument {
                "-p" | "--package" => {
                    let name = arguments.next().unwrap();
                    let package = self.packages.iter().find(|package| package["name"] == name);
                    packages.push(package.unwrap_or_else(|| panic!("no package: {said}")));
                }
                "--test" | "--bench" | "--example" | "--bin" => {
                    targets.push((&argument[2..], arguments.next().unwrap()));
                }
                _ if command == "test" && !argument.starts_with('-') => filters.push(argument),
                _ => {}
            }
        }
        if packages.is_empty() {
            let all = call.iter().any(|word| word == "--workspace");
            let taken = self.packages.iter();
            packages.extend(taken.filter(|package| all || self.default.contains(&package["id"])));
        }
        for (kind, name) in targets {
            let targets =
                packages.iter().flat_map(|package| package["targets"].as_array().unwrap());
            let target = targets.into_iter().find(|target| {
                target["kind"][0] == kind && (name == "*" || target["name"] == name)
            });
            let target = target.unwrap_or_else(|| panic!("no {kind} `{name}`: {said}"));
            let source = fs::read_to_string(target["src_path"].as_str().unwrap()).unwrap();
            for filter in &filters {
                let is_there = |what| source.contains(&format!("{what} {filter}"));
                assert!(is_there("fn") || is_there("mod"), "no test `{filter}`: {said}");
            }
        }
    }
}

#[test]
fn everything_that_the_commands_name_exists() {
    let workspace = Workspace::look();
    let mut checked = [0; 2];
    for page in [
        "CONTRIBUTING.md",
        "docs/checks.md",
        "docs/performance.md",
        "docs/reliability.md",
        "docs/requests.md",
    ] {
        let commands = commands(&fs::read_to_string(root().join(page)).unwrap());
        let cargo = |words: &Vec<String>| (words[0] == "cargo").then(|| words[1..].to_vec());
        let calls: Vec<_> = commands.iter().filter_map(cargo).collect();
        let installs = calls.iter().filter(|call| call[0] == "install");
        let installed: Vec<_> = installs
            .flat_map(|call| call[1..].iter().filter_map(|word| word.strip_prefix("cargo-")))
            .map(str::to_owned)
            .collect();
        calls.iter().for_each(|call| workspace.check(call, &installed));
        let scripts = commands.iter().map(|words| &words[0]);
        let scripts: Vec<_> =
            scripts.filter(|word| word.contains('/') && !word.starts_with('/')).collect();
        for script in &scripts {
            let mode =
                fs::metadata(root().join(script)).unwrap_or_else(|e| panic!("{script}: {e}"));
            assert!(mode.permissions().mode() & 0o111 != 0, "{script} is no script");
        }
        checked = [checked[0] + calls.len(), checked[1] + scripts.len()];
    }
    assert!(checked[0] >= 20 && checked[1] >= 8, "the pages were not understood: {checked:?}");
}

#[test]
fn the_examples_say_how_to_start_them() {
    let workspace = Workspace::look();
    let mut examples = HashSet::new();
    for package in &workspace.packages {
        for target in package["targets"].as_array().unwrap() {
            if target["kind"][0] != "example" {
                continue;
            }
            let name = target["name"].as_str().unwrap();
            let source = fs::read_to_string(target["src_path"].as_str().unwrap()).unwrap();
            let commands = commands(&source.replace("//! ", ""));
            let call = commands.iter().find(|words| words[0] == "cargo");
            let call = &call.unwrap_or_else(|| panic!("{name} does not say how to start it"))[1..];
            let starts = call.windows(2).any(|words| words == ["--example", name]);
            assert!(call[0] == "run" && starts, "{name}: {call:?}");
            workspace.check(call, &[]);
            examples.insert(name);
        }
    }
    assert!(examples.len() >= 8, "{examples:?}");
}

#[test]
fn the_first_build_of_the_gateway_is_small() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--example", "gateway", "--offline"]).current_dir(root());
    // Printing the build graph is an unstable option. Nothing is built.
    build.args(["-Zunstable-options", "--unit-graph"]).env("RUSTC_BOOTSTRAP", "1");
    let graph: Value = serde_json::from_str(&output(&mut build)).unwrap();
    let units = graph["units"].as_array().unwrap();
    let crates: HashSet<_> = units.iter().map(|unit| unit["pkg_id"].as_str().unwrap()).collect();
    assert!(crates.len() > 20, "the graph was not understood: {crates:?}");
    assert!(crates.len() <= 80, "{} crates: {crates:?}", crates.len());
}

#[test]
fn the_aliases_start_our_programs() {
    assert_eq!(cargo(&["forensics", "timespan", "1min"]), "60000000\n");
    let help = cargo(&["gateway", "--help"]);
    for option in ["--listen", "--records", "--wedge", "--block", "--deadline"] {
        assert!(help.contains(option), "{help}");
    }
}

#[test]
#[should_panic(expected = "no test `missing`")]
fn a_missing_test_is_noticed() {
    let call = "test -p forensics-tests --test contributing missing".split(' ');
    Workspace::look().check(&call.map(str::to_owned).collect::<Vec<_>>(), &[]);
}
