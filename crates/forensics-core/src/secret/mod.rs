//! Secrets in command lines, hidden before a line is shown.
//!
//! The process that stops a service may have a password on its command line, and a log outlives
//! that process. So every value that could be a secret is shown as `***` in the line, the record
//! and the diagnostic:
//!
//! - the text after a name such as `password`, `token` or `auth`, up to the end of the argument
//!   (`names`);
//! - the password in a URL, the path of a webhook, well-known tokens, long random words (`patterns`);
//! - the value of a short option that takes a secret in some program, such as `-p`.
//!
//! The redaction guesses what a secret is, and rather hides too much than too little. Only commands
//! that stop something, such as `kill` or `docker stop`, are known not to take secrets in short
//! options and plain words (`programs`).
//!
//! A secret that no name, place or shape reveals is shown: `app hunter2`. So is text that the
//! service itself writes, such as a phase's error. [`show`] turns the redaction off for the whole
//! process.

mod names;
mod patterns;
mod programs;

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};

use names::{Likelihood, announces, is_login, is_switch, is_verb, likelihood, secret_value};
use patterns::{end_of_word, is_evident, is_switch_word, without_credentials, without_tokens};
use programs::is_in;

/// The text that replaces a secret.
pub const REDACTED: &str = "***";

static SHOWN: AtomicBool = AtomicBool::new(false);

/// Sets whether secrets are shown from now on, in the whole process. By default they are hidden.
pub fn show(shown: bool) {
    SHOWN.store(shown, Ordering::Relaxed);
}

/// Whether secrets are shown.
pub fn is_shown() -> bool {
    SHOWN.load(Ordering::Relaxed)
}

/// A command line without its secrets. Arguments are separated by NUL, as in `/proc/PID/cmdline`. A
/// text without NUL is split at spaces, as a shell would split it.
///
/// ```
/// use forensics_core::secret::redact;
/// assert_eq!(redact("mysql\0-phunter2\0--host=db\0"), "mysql\0-p***\0--host=db\0");
/// assert_eq!(redact("curl https://ops:hunter2@db/x"), "curl https://ops:***@db/x");
/// ```
pub fn redact(command_line: &str) -> Cow<'_, str> {
    if is_shown() { Cow::Borrowed(command_line) } else { without_secrets(command_line).into() }
}

/// Redacts the first `max` bytes, and appends `…` if there are more. The last word is then left
/// out, because the part that identifies it as a secret may be missing.
pub(crate) fn redact_some(command_line: &[u8], max: usize) -> String {
    let Some(some) = command_line.get(..max).filter(|some| some.len() < command_line.len()) else {
        return redact(&String::from_utf8_lossy(command_line)).into_owned();
    };
    let mut text = String::from_utf8_lossy(some).into_owned();
    if let Some(end) = text.rfind(|c: char| c == '\0' || c.is_whitespace()) {
        text.truncate(end + 1);
    }
    format!("{}…", redact(&text))
}

/// Repeats until nothing changes: a hidden value may have kept another form from being recognized.
/// Only text written to defeat this needs more than two rounds.
fn without_secrets(text: &str) -> String {
    const MAX_ROUNDS: usize = 8;
    let mut shown = text.to_owned();
    for _ in 0..MAX_ROUNDS {
        let again = redact_once(&shown);
        if again == shown {
            break;
        }
        shown = again;
    }
    shown
}

fn redact_once(text: &str) -> String {
    if !text.contains('\0') {
        return redact_words(text, 0);
    }
    let arguments: Vec<_> = text
        .split_inclusive('\0')
        .map(|argument| argument.split_at(argument.trim_end_matches('\0').len()))
        .collect();
    redact_command(&arguments, 0)
}

/// Splits a text into words as a shell does, and a script into its commands.
fn redact_words(text: &str, depth: usize) -> String {
    let start = text.len() - text.trim_start().len();
    let mut shown = text[..start].to_owned();
    let mut rest = &text[start..];
    let mut words = Vec::new();
    while !rest.is_empty() {
        let end = end_of_word(rest, depth < MAX_DEPTH);
        let next = rest.len() - rest[end..].trim_start().len();
        let (word, blanks) = (&rest[..end], &rest[end..next]);
        words.push((word, blanks));
        rest = &rest[next..];
        if word.ends_with([';', '&', '|']) || blanks.contains('\n') {
            shown += &redact_command(&std::mem::take(&mut words), depth);
        }
    }
    shown + &redact_command(&words, depth)
}

/// How deep quotes within quotes are followed.
const MAX_DEPTH: usize = 3;

/// Redacts the words of one command. Each comes with its separator from the next word.
fn redact_command(words: &[(&str, &str)], depth: usize) -> String {
    let plain: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let program = programs::program_at(&plain).filter(|_| depth == 0);
    let harmless_from = programs::harmless_from(&plain).unwrap_or(words.len());
    // The following words may be the arguments of another program.
    let harmless_to = plain.iter().position(|word| *word == "--").unwrap_or(words.len());
    let mut command = Command { depth, ..Command::default() };
    let mut shown = String::new();
    for (index, (word, separator)) in words.iter().enumerate() {
        command.is_program = Some(index) == program;
        command.is_harmless = (harmless_from..harmless_to).contains(&index);
        let argument = word.trim_matches(['"', '\'']);
        let start = word.len() - word.trim_start_matches(['"', '\'']).len();
        shown += &word[..start];
        shown += &command.argument(argument);
        shown += &word[start + argument.len()..];
        shown += separator;
    }
    shown
}

/// The meaning of the argument after an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// It is the value of an option whose name indicates a secret.
    Value(Likelihood),
    /// It is the value of a short option that takes a secret in some programs.
    Letter(char),
    /// It may be a user name with a password.
    Login,
}

/// The state after reading a part of a command.
#[derive(Default)]
struct Command {
    depth: usize,
    /// This argument names the program.
    is_program: bool,
    /// The program is known to take no secrets in short options and plain words.
    is_harmless: bool,
    next: Option<Next>,
    /// A word such as `password` came before, so plain words may be secrets.
    hides_words: bool,
    /// The last plain word was the name of a shell.
    is_shell: bool,
    /// The argument before was a shell's `-c`.
    is_script: bool,
}

impl Command {
    /// Returns an argument, given without the quotes around it, in the form in which it is shown.
    fn argument(&mut self, argument: &str) -> String {
        let is_script = std::mem::take(&mut self.is_script);
        let next = self.next.take();
        let is_option = argument.starts_with('-') && argument.len() > 1;
        if argument.is_empty() || argument == REDACTED {
            return argument.to_owned();
        }
        if argument.contains("PRIVATE KEY") {
            return REDACTED.to_owned();
        }
        if let Some(next) = next.filter(|_| !is_option)
            && let Some(shown) = self.value(next, argument)
        {
            return shown;
        }
        let has_blanks = argument.contains(char::is_whitespace);
        let is_one = !has_blanks || (argument.contains("://") && !is_script);
        let argument = if is_one { without_credentials(argument) } else { argument.to_owned() };
        let depth = self.depth + 1;
        let is_harmless = self.is_harmless;
        let show = |part: &str| {
            if has_blanks { redact_words(part, depth) } else { without_tokens(part, is_harmless) }
        };
        // The value may contain spaces and extends to the end. In a script a space ends it.
        let value = secret_value(&argument).filter(|_| !(has_blanks && is_script));
        if let Some((end, likelihood)) = value.filter(|(_, likelihood)| self.counts(*likelihood)) {
            let (name, value) = argument.split_at(end);
            // The value of `Authorization:`, `"password":` or `Authorization: Basic` comes next.
            let is_scheme = value.len() < 10 && value.chars().all(|c| c.is_ascii_alphabetic());
            self.hides_words |= is_scheme && name.ends_with([':', ' ', '"']);
            return show(name) + &hidden(value, likelihood);
        }
        let shown = if is_option {
            self.option(&argument)
        } else if has_blanks {
            let is_hidden = self.hides_words && !self.is_harmless && !is_script;
            is_hidden.then(|| REDACTED.to_owned())
        } else {
            self.word(&argument)
        };
        shown.unwrap_or_else(|| show(&argument))
    }

    /// Whether a name that indicates a secret with this likelihood counts in this command.
    fn counts(&self, likelihood: Likelihood) -> bool {
        !self.is_harmless || likelihood == Likelihood::Clear
    }

    /// The value of the preceding option, with its secret hidden. `None` if it is shown like any
    /// other argument.
    fn value(&mut self, next: Next, value: &str) -> Option<String> {
        match next {
            Next::Value(likelihood) => {
                // `--secret NAME VALUE`
                self.hides_words |= !self.is_harmless && announces(value, false);
                Some(hidden(value, likelihood))
            }
            // A script, or a setting of git. Only SNMP tools have a secret there.
            Next::Letter('c') if value.trim_end_matches('=').contains([' ', '=']) => None,
            Next::Letter('X') if is_in("GET HEAD POST PUT PATCH DELETE", value) => None,
            Next::Letter(_) => (!is_evident(value)).then(|| REDACTED.to_owned()),
            Next::Login => secret_value(value).is_none().then(|| login(value))?,
        }
    }

    /// Redacts an option that contains a secret, or whose next argument is one. `None` if it is
    /// shown unchanged.
    fn option(&mut self, option: &str) -> Option<String> {
        let name = option.trim_start_matches('-');
        let is_long = option.starts_with("--");
        if let Some((start, value)) = option.split_once('=').filter(|_| is_long) {
            let is_hidden = self.hides_words && !is_evident(value);
            return is_hidden.then(|| format!("{start}={REDACTED}"));
        }
        let has_value = (is_long || name.len() > 1) && !is_switch(name);
        let likelihood = likelihood(name).filter(|likelihood| self.counts(*likelihood));
        if let Some(likelihood) = likelihood.filter(|_| has_value) {
            self.next = Some(Next::Value(likelihood));
        } else if is_long {
            self.next = is_login(name).then_some(Next::Login);
        } else if self.is_shell && option.ends_with('c') && option.len() <= 4 {
            self.is_script = true;
        } else if !self.is_harmless {
            return self.letters(option);
        }
        None
    }

    /// Redacts a short option. It may follow others without a value and have its value attached:
    /// `-xwVALUE`.
    fn letters(&mut self, option: &str) -> Option<String> {
        /// Letters whose value is a secret in some program.
        const SECRET: &str = "pPwWaAbckKNtX";
        /// The letters whose value may be attached. In many programs the others begin a long name:
        /// `-address`.
        const ATTACHED: &str = "pPwN";
        const LOGIN: &str = "uUEn";
        /// Letters that are often switches and come before others.
        const SWITCHES: &str = "0123456#fghijklqrsvxyzLORSZ";
        let mut letters = option.char_indices().skip(1);
        let first = letters.find(|(_, letter)| !SWITCHES.contains(*letter));
        let (at, letter) = first.or(option.char_indices().last())?;
        let (before, value) = option.split_at(at + letter.len_utf8());
        if value.is_empty() {
            let secret = SECRET.contains(letter).then_some(Next::Letter(letter));
            self.next = if LOGIN.contains(letter) { Some(Next::Login) } else { secret };
            None
        } else if ATTACHED.contains(letter) || (SECRET.contains(letter) && value.starts_with('=')) {
            Some(format!("{before}{REDACTED}"))
        } else {
            Some(format!("{before}{}", login(value).filter(|_| LOGIN.contains(letter))?))
        }
    }

    /// Redacts a plain word that may be a secret, or after which secrets may follow. `None` if it
    /// is shown unchanged.
    fn word(&mut self, word: &str) -> Option<String> {
        self.is_shell = programs::is_shell(programs::name(word));
        if self.is_harmless {
            return None;
        }
        if self.hides_words && !is_verb(word) && !is_evident(word) {
            return Some(REDACTED.to_owned());
        }
        self.hides_words |= announces(word, self.is_program);
        None
    }
}

/// Hides the password in `user:password` and the like.
fn login(value: &str) -> Option<String> {
    let at = value.find([':', '%', ',']).filter(|_| !is_evident(value))?;
    // In `TOKEN:` the user name is the secret.
    let end = if at + 1 < value.len() { at + 1 } else { 0 };
    Some(format!("{}{REDACTED}", &value[..end]))
}

/// Hides the value of a name that indicates a secret, unless the value is known not to be one.
fn hidden(value: &str, likelihood: Likelihood) -> String {
    let is_path =
        || likelihood == Likelihood::Possible && is_evident(value) && secret_value(value).is_none();
    // The last three say where the secret is stored.
    let is_known = value.is_empty()
        || is_switch_word(value)
        || is_path()
        || ["file:", "env:", "fd:"].iter().any(|start| value.starts_with(start));
    if is_known {
        without_tokens(&without_credentials(value), false)
    } else if value.starts_with("pass:") {
        // openssl's syntax.
        format!("pass:{REDACTED}")
    } else {
        REDACTED.to_owned()
    }
}

#[cfg(test)]
mod tests;
