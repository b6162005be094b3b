//! Checks the pages in Markdown: each link leads to a file and a heading that exist. The book of docs has
//! every page, and no link leads out of it, because only docs is copied into the book.

#![allow(clippy::unwrap_used)] // A test's unwrap is an assertion.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The pages in the repository. Links to pages are left out.
fn pages() -> Vec<PathBuf> {
    let list = Command::new("git").args(["ls-files", "*.md"]).current_dir(root()).output().unwrap();
    assert!(list.status.success());
    let names = String::from_utf8(list.stdout).unwrap();
    let pages = names.lines().map(|name| root().join(name)).filter(|page| !page.is_symlink());
    let pages: Vec<_> = pages.collect();
    assert!(pages.len() > 15, "{pages:?}");
    pages
}

struct Page {
    links: Vec<String>,
    /// The names by which a link can refer to the headings.
    headings: HashSet<String>,
}

impl Page {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap();
        let mut page = Page { links: Vec::new(), headings: HashSet::new() };
        let mut heading: Option<String> = None;
        for event in Parser::new_ext(&text, Options::ENABLE_TABLES) {
            match event {
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    page.links.push(dest_url.into_string());
                }
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::Text(text) | Event::Code(text) => {
                    heading.iter_mut().for_each(|heading| heading.push_str(&text));
                }
                Event::End(TagEnd::Heading(_)) => {
                    page.headings.extend(heading.take().map(|heading| anchor(&heading)));
                }
                _ => {}
            }
        }
        page
    }
}

/// The name of a heading in a link, as GitHub and mdBook make it.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    heading.chars().filter(kept).collect::<String>().to_lowercase().replace(' ', "-")
}

/// Whether a file that exists is in the folder, also if its path has `..`.
fn inside(file: &Path, folder: &Path) -> bool {
    let [file, folder] = [file, folder].map(|path| path.canonicalize().unwrap());
    file.starts_with(folder)
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let docs = root().join("docs");
    let mut broken = Vec::new();
    let mut checked = 0;
    for path in pages() {
        // Only files of docs are in the book, and a folder has no page there.
        let book = path.starts_with(&docs).then_some(&docs);
        for link in Page::read(&path).links {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            checked += 1;
            let (file, heading) = link.split_once('#').unwrap_or((&link, ""));
            let target = match file {
                "" => path.clone(),
                file => path.parent().unwrap().join(file),
            };
            let is_known = match heading {
                "" => target.exists(),
                heading => target.is_file() && Page::read(&target).headings.contains(heading),
            };
            let is_in = |book: &PathBuf| target.is_file() && inside(&target, book);
            if !is_known || !book.is_none_or(is_in) {
                broken.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(checked > 100, "only {checked} links found");
}

/// So that the code can be copied from the page, and is tested in the example.
#[test]
fn the_pages_of_stacks_show_the_code_of_the_examples() {
    let mut compared = 0;
    for page in pages().iter().filter(|page| page.parent().unwrap().ends_with("docs/stacks")) {
        let text = fs::read_to_string(page).unwrap();
        let mut example = None;
        for (nth, part) in text.split("```").enumerate() {
            // Between two blocks is text, which names the example.
            if nth % 2 == 0 {
                let named = part.split('`').find(|word| word.starts_with("examples/"));
                example = named.map(|name| root().join(name)).or(example);
            } else if let Some(code) = part.strip_prefix("rust,ignore\n") {
                let example = example.as_ref().unwrap_or_else(|| panic!("{}", page.display()));
                let program = fs::read_to_string(example).unwrap();
                assert!(
                    program.contains(code),
                    "{}: not in {}:\n{code}",
                    page.display(),
                    example.display()
                );
                compared += 1;
            }
        }
    }
    assert!(compared >= 10, "{compared}");
}

#[test]
fn the_book_has_every_page() {
    let docs = root().join("docs");
    let book: HashSet<_> = Page::read(&docs.join("SUMMARY.md")).links.into_iter().collect();
    let pages = pages();
    let names = pages.iter().filter_map(|page| page.strip_prefix(&docs).ok());
    let names = names.map(|name| name.to_str().unwrap().to_owned());
    let names: HashSet<_> = names.filter(|name| name != "SUMMARY.md").collect();
    assert_eq!(book, names);
}
