//! The manual pages in `docs/man`: one for `forensics`, and one for each command.
//!
//! They are committed, so a packager can copy them without building anything. They contain the text
//! of `--help`, and the text in `more`. The test fails if they are out of date. `UPDATE_MAN=1 cargo
//! test -p forensics-cli --bins man` updates them.

mod more;

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use clap::CommandFactory;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use self::more::{DATE, MORE};

/// The text after a command's options, sorted by how its paragraphs begin.
#[derive(Default)]
struct After {
    /// All other paragraphs.
    description: Vec<String>,
    /// Exit statuses and their meanings.
    statuses: Vec<(String, String)>,
    /// Commands, each with an introduction.
    examples: Vec<String>,
}

impl After {
    fn of(help: &str) -> Self {
        let mut after = Self::default();
        for paragraph in help.split("\n\n") {
            if let Some(statuses) = paragraph.strip_prefix("Exit status: ") {
                after.statuses = statuses_of(statuses);
            } else if paragraph.starts_with("Example") {
                after.examples.push(paragraph.to_owned());
            } else {
                after.description.push(paragraph.replace('\n', " "));
            }
        }
        after
    }
}

/// Splits `0 aligned, 1 not aligned; 3 can't tell.` before each number that follows a comma or
/// semicolon.
fn statuses_of(text: &str) -> Vec<(String, String)> {
    let mut statuses: Vec<(String, String)> = Vec::new();
    for part in text.replace('\n', " ").split_inclusive([',', ';']) {
        let part = part.trim();
        match part.split_once(' ').unwrap_or((part, "")) {
            (code, meaning) if code.trim_end_matches(['.', ';']).parse::<u8>().is_ok() => {
                let code = code.trim_end_matches(['.', ';']);
                statuses.push((code.to_owned(), meaning.to_owned()));
            }
            _ => {
                let (_, meaning) = statuses.last_mut().expect("a status begins with its number");
                *meaning += " ";
                *meaning += part;
            }
        }
    }
    for (_, meaning) in &mut statuses {
        *meaning = match meaning.trim_end_matches([',', ';', '.']) {
            "" => "Success.".to_owned(),
            meaning => format!("{}{}.", meaning[..1].to_uppercase(), &meaning[1..]),
        };
    }
    statuses
}

/// A page and the name of its file.
fn page(command: &clap::Command, all: &[String]) -> (String, String) {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let of = name.strip_prefix("forensics-").unwrap_or(&name);
    let more = MORE.iter().find(|more| more.of == of).unwrap_or_else(|| panic!("{of} in MORE"));
    let after = After::of(&command.get_after_help().expect("an example").to_string());
    let usage = command.clone().render_usage().to_string();
    let usage = usage.strip_prefix("Usage: ").expect("what it begins with").to_owned();
    let program = command.get_name() == "forensics";
    let about = command.get_long_about().or_else(|| command.get_about()).expect("what it does");
    let command = command
        .clone()
        .override_usage(usage)
        .long_about(in_sentences(&about.to_string()))
        .subcommand_help_heading("COMMANDS");
    let man = Man::new(command)
        .title(name.to_uppercase())
        .source(concat!("shutdown-forensics ", env!("CARGO_PKG_VERSION")))
        .date(DATE)
        .manual("User Commands");

    let mut text = preamble();
    let rendered = |text: &mut String, render: fn(&Man, &mut dyn Write) -> std::io::Result<()>| {
        let mut section = Vec::new();
        render(&man, &mut section).unwrap();
        let section = String::from_utf8(section).unwrap();
        // clap_mangen begins each section with it.
        *text += section.strip_prefix(&preamble()).unwrap();
    };
    rendered(&mut text, |man, out| man.render_title(out));
    // No hyphenation and no justification, so that options and paths can be copied.
    text += ".nh\n.ad l\n";
    rendered(&mut text, |man, out| man.render_name_section(out));
    rendered(&mut text, |man, out| man.render_synopsis_section(out));
    rendered(&mut text, |man, out| man.render_description_section(out));
    let mut own = Roff::new();
    for paragraph in
        after.description.iter().map(String::as_str).chain(more.description.iter().copied())
    {
        own.control("PP", []).text([roman(paragraph)]);
    }
    append(&mut text, &own);
    rendered(&mut text, |man, out| man.render_options_section(out));
    if program {
        rendered(&mut text, |man, out| man.render_subcommands_section(out));
    }

    let mut own = Roff::new();
    if !program {
        own.control("SH", ["EXIT STATUS"]);
        terms(
            &mut own,
            after.statuses.iter().map(|(code, meaning)| (code.as_str(), meaning.as_str())),
        );
        own.control("PP", []).text([roman(
            match after.statuses.iter().any(|(code, _)| code == "2") {
                true => "Invalid arguments also give status 2.",
                false => "Invalid arguments give status 2.",
            },
        )]);
    }
    for (heading, entries) in more.sections {
        own.control("SH", [*heading]);
        terms(&mut own, entries.iter().copied());
    }
    own.control("SH", ["EXAMPLES"]);
    examples(&mut own, &after.examples);
    own.control("SH", ["SEE ALSO"]);
    let pages = if program { all.to_vec() } else { vec!["forensics(1)".to_owned()] };
    let pages: Vec<_> =
        pages.into_iter().chain(more.see_also.iter().map(|&page| page.to_owned())).collect();
    for (n, page) in pages.iter().enumerate() {
        let (page, section) = page.split_once('(').expect("NAME(SECTION)");
        let comma = if n + 1 < pages.len() { "," } else { "" };
        own.text([bold(page), roman(format!("({section}{comma}"))]);
    }
    append(&mut text, &own);
    // `mandoc -Tlint` reports the line breaks that clap_mangen puts before possible values.
    let text = text.replace("\n.br\n\n.br\n", "\n.sp\n");
    (man.get_filename(), marked(&text))
}

/// Ends each paragraph with the full stop that clap removed.
fn in_sentences(text: &str) -> String {
    let paragraphs = text.split("\n\n").map(|paragraph| match paragraph.ends_with(['.', '?']) {
        true => paragraph.to_owned(),
        false => format!("{paragraph}."),
    });
    paragraphs.collect::<Vec<_>>().join("\n\n")
}

fn terms<'a>(roff: &mut Roff, entries: impl Iterator<Item = (&'a str, &'a str)>) {
    for (term, meaning) in entries {
        roff.control("TP", []).text([bold(term)]).text([roman(meaning)]);
    }
}

fn examples(roff: &mut Roff, examples: &[String]) {
    for (n, example) in examples.iter().enumerate() {
        if n > 0 {
            roff.control("PP", []);
        }
        // The introduction ends with a colon. `Example:` alone is not shown.
        let (said, commands) = example.split_once('\n').expect("a command below");
        if !matches!(said, "Example:" | "Examples:") {
            let said = said.trim_start_matches("Example, ");
            roff.text([roman(format!("{}{}", said[..1].to_uppercase(), &said[1..]))]);
        }
        roff.control("RS", ["4"]).control("nf", []);
        for command in commands.lines() {
            roff.text([roman(command.trim_start())]);
        }
        roff.control("fi", []).control("RE", []);
    }
}

fn append(text: &mut String, roff: &Roff) {
    *text += roff.render().strip_prefix(&preamble()).unwrap();
}

/// The start of every page, which defines how an apostrophe is written.
fn preamble() -> String {
    Roff::new().render()
}

/// Shows `code` in bold, because a manual page has no backticks.
fn marked(text: &str) -> String {
    let mut parts = text.split('`');
    let mut marked = parts.next().unwrap_or_default().to_owned();
    let mut open = false;
    for part in parts {
        open = !open;
        marked += if open { r"\fB" } else { r"\fR" };
        marked += part;
    }
    assert!(!open, "a backtick is not closed");
    marked
}

/// All pages with the names of their files.
fn pages() -> Vec<(String, String)> {
    let mut cli = crate::Cli::command().disable_help_subcommand(true);
    cli.build();
    let all: Vec<_> =
        cli.get_subcommands().map(|sub| format!("forensics-{}(1)", sub.get_name())).collect();
    std::iter::once(&cli).chain(cli.get_subcommands()).map(|command| page(command, &all)).collect()
}

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/man"))
}

#[test]
fn the_committed_pages_are_up_to_date() {
    let pages = pages();
    if std::env::var_os("UPDATE_MAN").is_some() {
        for (name, text) in &pages {
            fs::write(folder().join(name), text).unwrap();
        }
    }
    let there = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut there: Vec<_> = there.collect();
    let mut names: Vec<_> = pages.iter().map(|(name, _)| name.clone()).collect();
    there.sort();
    names.sort();
    assert_eq!(there, names);
    for (name, text) in pages {
        let committed = fs::read_to_string(folder().join(&name)).unwrap();
        assert!(committed == text, "{name} is out of date: set UPDATE_MAN=1 and run this again");
    }
}

#[test]
fn the_page_of_last_has_every_outcome() {
    let (_, text) = pages().into_iter().find(|(name, _)| name == "forensics-last.1").unwrap();
    // The rows below a heading of the page about records.
    let records = include_str!("../../docs/records.md");
    let (_, section) = records.split_once("## How a run ended").unwrap();
    let rows = section.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    let rows: Vec<_> = rows.take_while(|line| line.starts_with('|')).collect();
    let words = rows.iter().filter_map(|row| row.split('`').rev().nth(1));
    let recorded = ["clean", "timed_out", "cut_short", "failed", "forced", "panicked", "abandoned"];
    for word in words.chain(recorded) {
        assert!(text.contains(word), "{word}");
    }
    assert!(rows.len() > 5 && text.contains("maybe_alive"));
}

#[test]
fn the_linters_of_mandoc_and_groff_accept_the_pages() {
    let dir = tempfile::tempdir().unwrap();
    let pages = pages().into_iter().map(|(name, text)| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    });
    let pages: Vec<_> = pages.collect();
    let linters =
        [("mandoc", &["-Tlint", "-Wwarning"][..]), ("groff", &["-man", "-Kutf8", "-ww", "-z"])];
    for (program, arguments) in linters {
        let Ok(output) = Command::new(program).args(arguments).args(&pages).output() else {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "there is no {program}");
            // Not eprintln, which libtest hides if the test passes.
            let _ = writeln!(std::io::stderr(), "SKIPPED: there is no {program}");
            continue;
        };
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
    }
}

#[test]
fn statuses_are_split_and_begin_with_a_capital() {
    let cases = [
        ("0.", &[("0", "Success.")][..]),
        ("0 aligned, 3 can't\ntell.", &[("0", "Aligned."), ("3", "Can't tell.")]),
        ("0; 2 if a, or b, fails.", &[("0", "Success."), ("2", "If a, or b, fails.")]),
    ];
    for (text, expected) in cases {
        let statuses = statuses_of(text);
        let statuses: Vec<_> =
            statuses.iter().map(|(code, said)| (code.as_str(), said.as_str())).collect();
        assert_eq!(statuses, expected, "{text}");
    }
}
