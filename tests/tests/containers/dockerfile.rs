//! Checks the gateway's Dockerfile without docker: what it builds, what it copies, and as which
//! user it starts the program.

use std::fs;
use std::path::Path;
use std::process::Command;

use forensics_tests::{outcomes, static_gateway};

use crate::container::{Container, can_contain};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The instructions in their order: the keyword and the rest of the line.
fn instructions() -> Vec<(String, String)> {
    let text = fs::read_to_string(repository().join("examples/gateway/Dockerfile")).unwrap();
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| line.split_once(' ').unwrap())
        .map(|(word, rest)| (word.to_owned(), rest.to_owned()))
        .collect()
}

fn only<'a>(instructions: &'a [(String, String)], word: &str) -> &'a str {
    let mut found = instructions.iter().filter(|(name, _)| name == word);
    let (_, rest) = found.next().unwrap_or_else(|| panic!("no {word}"));
    assert!(found.next().is_none(), "more than one {word}");
    rest
}

#[test]
fn it_copies_what_it_builds_and_starts_it_without_a_shell_as_a_user_other_than_root() {
    let all = instructions();
    let from: Vec<_> = all.iter().filter(|(word, _)| word == "FROM").collect();
    assert_eq!(from.last().unwrap().1, "scratch");
    assert!(from[0].1.starts_with("rust:") && from[0].1.ends_with(" AS build"));
    let image = all.iter().rposition(|(word, _)| word == "FROM").unwrap();
    let (build, image) = all.split_at(image);

    // The command of the file, but in the debug profile, because a release build takes minutes, and
    // with another target folder.
    let static_gateway = static_gateway();
    // The path is `target/TRIPLE/debug/gateway`.
    let target = static_gateway.ancestors().nth(3).unwrap();
    let command = only(build, "RUN").replace(" --release", "");
    let mut shell = Command::new("sh");
    shell.args(["-c", &command]).current_dir(repository());
    shell.env("CARGO_TARGET_DIR", target).env("CARGO_PROFILE_DEV_DEBUG", "0");
    let built = shell.output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));

    let copy: Vec<&str> = only(image, "COPY").split_whitespace().collect();
    let [from, built, copied] = copy[..] else { panic!("{copy:?}") };
    assert_eq!(from, "--from=build");
    let built = built.replace("/release/", "/debug/");
    let built = target.join(built.strip_prefix("/src/target/").unwrap());
    let elf = Command::new("readelf").arg("--program-headers").arg(&built).output().unwrap();
    let headers = String::from_utf8(elf.stdout).unwrap();
    assert!(headers.contains("LOAD") && !headers.contains("INTERP"), "{headers}");
    assert_eq!(only(image, "ENTRYPOINT"), format!("[\"{copied}\"]"));

    if !can_contain() {
        return;
    }
    let arguments: Vec<String> = serde_json::from_str(only(image, "CMD")).unwrap();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let user = only(image, "USER").to_owned();
    assert!(user.split(':').all(|id| id.parse::<u32>().unwrap() > 0), "{user}");
    let running = Container { user, ..Container::default() }.start(&arguments);
    let port = only(image, "EXPOSE").parse().unwrap();
    running.wait_until_ready(port);
    let stopped = running.stop();
    assert_eq!(stopped.ended.code(), 0, "{}", stopped.ended.stderr);
    assert_eq!(stopped.ended.phases(), outcomes(["ok", "ok", "ok", "ok"]));
    assert_eq!(stopped.warnings(), Vec::<&str>::new());
}
