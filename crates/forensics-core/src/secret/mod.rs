//! Secrets in command lines, taken out before they are shown.
//!
//! Whoever stops a service may do so with a password on its command line, and a log outlives it. So
//! values after options and names that sound like a secret, credentials in URLs, tokens that can be
//! known by their prefix and the options of some well-known programs become `***`: in the line, the
//! record and the diagnostic. It is a guess, made to err on the side of hiding.
//!
//! What cannot be known: a secret that is called something else and looks like nothing (`app hunter2`,
//! `deploy --value hunter2`), one that an argument spells out in a program's own language (SQL), and
//! which of `-p VALUE` and `-p` alone a program means that is not known here. Texts that the service
//! itself gives, such as a phase's error, are shown as they are.
//!
//! [`show`] turns it off for the whole process.

mod names;
mod programs;
mod shapes;

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};

use names::{Sound, is_switch, sound};
use programs::Part;
use shapes::{is_path, is_switch_word, without_credentials, without_oracle, without_tokens};

/// What stands in a secret's place.
pub const REDACTED: &str = "***";

static SHOWN: AtomicBool = AtomicBool::new(false);

/// Whether secrets are shown from now on: no unless told. For the whole process.
pub fn show(shown: bool) {
    SHOWN.store(shown, Ordering::Relaxed);
}

/// Whether secrets are shown.
pub fn is_shown() -> bool {
    SHOWN.load(Ordering::Relaxed)
}

/// A command line without its secrets. Its arguments may be parted by NUL, as in
/// `/proc/PID/cmdline`, or by blanks.
///
/// ```
/// use forensics_core::secret::redact;
/// assert_eq!(redact("mysql\0-phunter2\0--host=db\0"), "mysql\0-p***\0--host=db\0");
/// assert_eq!(redact("curl https://ops:hunter2@db/x"), "curl https://ops:***@db/x");
/// ```
pub fn redact(command_line: &str) -> Cow<'_, str> {
    match is_shown() {
        true => Cow::Borrowed(command_line),
        false => Cow::Owned(without_secrets(command_line)),
    }
}

/// The same of the first `max` bytes, with `…` behind them where there are more. A URL that is cut
/// shows nothing of its user: where its host begins is not seen.
pub(crate) fn redact_some(command_line: &[u8], max: usize) -> String {
    let Some(some) = command_line.get(..max).filter(|some| some.len() < command_line.len()) else {
        return redact(&String::from_utf8_lossy(command_line)).into_owned();
    };
    let mut text = String::from_utf8_lossy(some).into_owned();
    let last = text.rfind(|c: char| c == '\0' || c.is_whitespace()).map_or(0, |at| at + 1);
    if let Some(url) = text[last..].find("://").filter(|_| !is_shown()) {
        text.truncate(last + url + "://".len());
    }
    format!("{}…", redact(&text))
}

/// How often a text is gone through at most. Once is enough for all but texts that are made for it.
const PASSES: usize = 8;

/// Goes through the text until there is nothing more to hide: with what is hidden, signs go that kept
/// a form from being seen, such as the `/` in the first password of `https://a:x/y@b-token:z@host`.
fn without_secrets(text: &str) -> String {
    let mut shown = Cow::Borrowed(text);
    for _ in 0..PASSES {
        let again = gone_through(&shown);
        if again == *shown {
            break;
        }
        shown = Cow::Owned(again);
    }
    shown.into_owned()
}

fn gone_through(text: &str) -> String {
    let mut line = Line { shown: String::with_capacity(text.len()), ..Line::default() };
    match text.contains('\0') {
        true => {
            for argument in text.split_inclusive('\0') {
                let (argument, end) = match argument.strip_suffix('\0') {
                    Some(argument) => (argument, "\0"),
                    None => (argument, ""),
                };
                line.argument(argument);
                line.shown.push_str(end);
            }
        }
        false => line.words(text),
    }
    without_tokens(&line.shown)
}

/// What an argument says of the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next<'a> {
    /// That part of it is a secret, unless it is an option.
    Secret(Part, Sound),
    /// It is one if it is no option and no `name=value`.
    Bare,
    /// It is one behind a `=` on its own if this name sounds so, as in `password = x`.
    IfEquals(&'a str),
}

/// A command line as far as it has been read.
#[derive(Default)]
struct Line<'a> {
    shown: String,
    /// The last word that is the name of a program whose options are known.
    program: &'static str,
    /// The words that are no options, since that program.
    commands: Vec<&'a str>,
    next: Option<Next<'a>>,
    /// The argument before was `-c`: what follows is a shell's script.
    in_script: bool,
    /// How many arguments this is inside of.
    depth: usize,
}

/// How many words are remembered.
const MAX_COMMANDS: usize = 16;

/// How deep quotes are looked for inside of each other.
const MAX_DEPTH: usize = 3;

impl<'a> Line<'a> {
    /// Words parted by blanks; quotes keep some together.
    fn words(&mut self, text: &'a str) {
        let mut rest = text;
        while !rest.is_empty() {
            let blanks = rest.len() - rest.trim_start().len();
            self.shown.push_str(&rest[..blanks]);
            rest = &rest[blanks..];
            let end = match self.depth < MAX_DEPTH {
                true => end_of_word(rest),
                false => rest.find(char::is_whitespace).unwrap_or(rest.len()),
            };
            if end > 0 {
                self.argument(&rest[..end]);
            }
            rest = &rest[end..];
        }
    }

    fn argument(&mut self, argument: &'a str) {
        let in_script = std::mem::take(&mut self.in_script);
        let bare = argument.trim_matches(['"', '\'']);
        if let Some(next) = self.next.take()
            && self.take_next(next, argument, bare)
        {
            return;
        }
        if bare.is_empty() {
            return self.shown.push_str(argument);
        }
        if let Some(before) = before_private_key(argument) {
            self.shown.push_str(before);
            return self.shown.push_str(REDACTED);
        }
        if bare.contains(char::is_whitespace) {
            return self.phrase(argument, bare, in_script);
        }
        self.word(argument, bare);
    }

    /// Takes in what was announced; `false` where it is something else.
    fn take_next(&mut self, next: Next<'a>, argument: &str, bare: &str) -> bool {
        let sound = match next {
            Next::IfEquals(name) if argument == "=" => {
                let Some(sound) = sound(name) else { return false };
                self.next = Some(Next::Secret(Part::Whole, sound));
                self.shown.push('=');
                return true;
            }
            Next::IfEquals(_) => return false,
            Next::Bare if argument.starts_with('-') => {
                // `vault login -no-store TOKEN`
                self.next = Some(Next::Bare);
                return false;
            }
            Next::Bare if argument.contains('=') => return false,
            Next::Bare => Sound::Clear,
            Next::Secret(..) if argument.starts_with('-') && argument.len() > 1 => return false,
            // A user name alone: the program will ask for the rest.
            Next::Secret(Part::After(sign), _) if !argument.contains(sign) => return false,
            Next::Secret(Part::After(sign), _) => {
                let (kept, _) = argument.split_once(sign).unwrap_or((argument, ""));
                self.shown.push_str(kept);
                self.shown.push(sign);
                self.shown.push_str(REDACTED);
                return true;
            }
            Next::Secret(Part::Whole, sound) => sound,
        };
        match bare.is_empty() || is_worth_knowing(bare, sound) {
            true => self.shown.push_str(argument),
            false => self.hide(argument),
        }
        true
    }

    /// Hides a value, and leaves the quotes around it, and what a list has behind them.
    fn hide(&mut self, value: &str) {
        let is_behind = |c| matches!(c, '"' | '\'' | ',' | ';' | '}' | ')' | ']');
        let opened = value.len() - value.trim_start_matches(['"', '\'']).len();
        let closed = value[opened..].trim_end_matches(is_behind).len() + opened;
        let is_quoted = opened > 0;
        self.shown.push_str(&value[..opened]);
        // As in openssl's `pass:`.
        if value[opened..].starts_with("pass:") {
            self.shown.push_str("pass:");
        }
        self.shown.push_str(REDACTED);
        self.shown.push_str(if is_quoted { &value[closed..] } else { "" });
    }

    /// An argument with blanks in it: a header, a value, a script, a connection's parameters.
    fn phrase(&mut self, argument: &str, bare: &str, in_script: bool) {
        let opened = argument.len() - argument.trim_start_matches(['"', '\'']).len();
        let closing = &argument[opened + bare.len()..];
        self.shown.push_str(&argument[..opened]);
        if let Some(end) = end_of_name(bare, in_script) {
            self.shown.push_str(&bare[..end]);
            let blanks = bare[end..].len() - bare[end..].trim_start().len();
            self.shown.push_str(&bare[end..end + blanks]);
            let value = &bare[end + blanks..];
            self.shown.push_str(if value.starts_with(['"', '\'']) { &value[..1] } else { "" });
            self.shown.push_str(REDACTED);
        } else {
            let mut inside = Line { depth: self.depth + 1, ..Line::default() };
            inside.words(bare);
            self.shown.push_str(&inside.shown);
        }
        self.shown.push_str(closing);
    }

    fn word(&mut self, argument: &'a str, bare: &'a str) {
        let name = bare.rsplit('/').next().unwrap_or(bare);
        if let Some(program) = programs::known(name) {
            self.program = program;
            self.commands.clear();
        } else if !bare.starts_with('-') {
            self.command(bare);
        }
        let option = programs::option(self.program, &self.commands, argument);
        let is_in = |value: &str, part| match part {
            Part::Whole => true,
            Part::After(sign) => value.is_empty() || value.contains(sign),
        };
        if let Some((option, value, part)) = option.filter(|(_, value, part)| is_in(value, *part)) {
            self.shown.push_str(option);
            let next = Next::Secret(part, Sound::Clear);
            match value.is_empty() {
                true => self.next = Some(next),
                false => drop(self.take_next(next, value, value)),
            }
            return;
        }
        let is_login = programs::is_oracle(self.program) && !bare.starts_with(['-', '/', '@']);
        let shown = match is_login {
            true => Cow::Owned(without_oracle(argument)),
            false => Cow::Borrowed(argument),
        };
        self.in_script =
            argument.starts_with('-') && argument.ends_with('c') && argument.len() <= 4;
        if self.next.is_none() {
            self.next = announced(bare);
        }
        self.push_without_values(&without_credentials(&shown));
    }

    /// Notes a word that is no option, and what it says of the next.
    fn command(&mut self, word: &'a str) {
        let before = self.commands.last();
        if self.program == "sshpass" {
            // What follows is another program's.
            self.program = "";
        }
        let sets = before.is_some_and(|before| {
            before.eq_ignore_ascii_case("set") || before.eq_ignore_ascii_case("config")
        });
        if programs::takes_bare(self.program, word) {
            self.next = Some(Next::Bare);
        } else if sets && sound(word) == Some(Sound::Clear) {
            // `aws configure set aws_secret_access_key VALUE`
            self.next = Some(Next::Secret(Part::Whole, Sound::Clear));
        }
        if self.commands.len() < MAX_COMMANDS {
            self.commands.push(word);
        } else if let Some(last) = self.commands.last_mut() {
            *last = word;
        }
    }

    /// Appends a word, the values in it that stand behind a secret's name and `=` or `:` left out.
    fn push_without_values(&mut self, word: &str) {
        let mut rest = word;
        while let Some(at) = rest.find(['=', ':']) {
            let (before, sign) = rest.split_at(at);
            let is_colon = sign.starts_with(':');
            let is_option = rest.len() == word.len() && before.starts_with('-') && !is_colon;
            let is_parameter = rest.len() < word.len() || before.contains(['?', '&']);
            self.shown.push_str(before);
            self.shown.push_str(&sign[..1]);
            rest = &sign[1..];
            let Some(sound) = sound_behind(before, is_colon, is_parameter) else { continue };
            // A scheme; and what has been hidden already, its host behind it.
            if (is_colon && rest.starts_with("//")) || rest.starts_with(REDACTED) {
                continue;
            }
            let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''));
            let opened = quote.map_or(0, char::len_utf8);
            self.shown.push_str(&rest[..opened]);
            rest = &rest[opened..];
            let end = match quote {
                Some(quote) => rest.find(quote).unwrap_or(rest.len()),
                None if is_option => rest.len(),
                None => end_of_value(rest),
            };
            if end == 0 {
                // The value is what follows: `"password": "x"`.
                if is_colon && rest.is_empty() {
                    self.next = Some(Next::Secret(Part::Whole, sound));
                }
                continue;
            }
            match is_worth_knowing(&rest[..end], sound) {
                true => self.shown.push_str(&rest[..end]),
                false => self.hide(&rest[..end]),
            }
            rest = &rest[end..];
        }
        self.shown.push_str(rest);
    }
}

/// What stands before the private key in an argument that holds one.
fn before_private_key(argument: &str) -> Option<&str> {
    const BEGIN: &str = "-----BEGIN ";
    if argument.len() < BEGIN.len() {
        return None;
    }
    let (before, key) = argument.split_once(BEGIN)?;
    key.split("-----").next().is_some_and(|kind| kind.ends_with("PRIVATE KEY")).then_some(before)
}

/// What an option or a name announces.
fn announced(word: &str) -> Option<Next<'_>> {
    if word.eq_ignore_ascii_case("bearer") {
        return Some(Next::Secret(Part::Whole, Sound::Clear));
    }
    let name = word.trim_start_matches('-');
    let is_option = name.len() < word.len();
    if name.contains(['=', ':', '/']) || (is_option && is_switch(name)) {
        return None;
    }
    match is_option {
        true if name.len() > 2 || word == "-pw" => Some(Next::Secret(Part::Whole, sound(name)?)),
        true => None,
        false => Some(Next::IfEquals(name)),
    }
}

fn in_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '-' | '_' | '.')
}

/// How the name sounds that ends there: in front of a `=` or `:`.
fn sound_behind(before: &str, is_colon: bool, is_parameter: bool) -> Option<Sound> {
    let name = before.trim_end_matches(['"', '\'']).rsplit(|c| !in_name(c)).next()?;
    // A signature is secret where it gives access: in an address.
    if is_parameter && !is_colon && matches!(name, "sig" | "signature" | "X-Amz-Signature") {
        return Some(Sound::Clear);
    }
    // `-HAuthorization:`
    let sound = sound(name).or_else(|| sound(name.strip_prefix("-H")?));
    // `key:value` is a pair of anything.
    sound.filter(|sound| *sound == Sound::Clear || !is_colon || name.contains('-'))
}

/// Whether a value is no secret whatever its name sounds like.
fn is_worth_knowing(value: &str, sound: Sound) -> bool {
    let refers = ["file:", "env:", "fd:", "id=", "type=", "src="];
    is_switch_word(value)
        || refers.iter().any(|start| value.starts_with(start))
        // `--tls-key=/etc/k.pem`, `PWD=/srv`, `--key=2`
        || (sound == Sound::Faint && (is_path(value) || value.len() <= 3))
}

/// Where the value ends that begins a text: before what parts it from the next name.
fn end_of_value(text: &str) -> usize {
    let in_name = |c| in_name(c) || c == ' ';
    let is_end = |(at, c): &(usize, char)| match c {
        '"' | '\'' | '}' => true,
        '&' | ';' | ',' => {
            let behind = &text[at + 1..];
            let name = behind.find(|c| !in_name(c)).unwrap_or(behind.len());
            behind.is_empty() || (name > 0 && behind[name..].starts_with(['=', ':']))
        }
        _ => false,
    };
    text.char_indices().find(is_end).map_or(text.len(), |(at, _)| at)
}

/// Where the name of a secret and its sign end that an argument with blanks begins with: all that
/// follows is its value. Not so of a list of `name=value`, and of a script (`PGPASSWORD=x psql`).
fn end_of_name(phrase: &str, in_script: bool) -> Option<usize> {
    let at = phrase.find(['=', ':'])?;
    let (name, sign) = phrase.split_at(at);
    if in_script || name.contains(char::is_whitespace) {
        return None;
    }
    // `--header=Authorization: Bearer x`
    let inner = || end_of_name(&sign[1..], in_script).map(|end| at + 1 + end);
    let is_colon = sign.starts_with(':');
    if sound_behind(name, is_colon, false).is_none() {
        return if is_colon { None } else { inner() };
    }
    if !name.chars().all(in_name) {
        return None;
    }
    let value = sign[1..].trim_start();
    let mut more = value.split_whitespace().skip(1).peekable();
    let is_list = !is_colon && more.peek().is_some() && more.all(|word| word.contains('='));
    (!is_list && !is_switch_word(value) && !value.starts_with("//")).then_some(at + 1)
}

/// Where the first word of a text ends: at a blank that no quotes enclose.
fn end_of_word(text: &str) -> usize {
    let mut rest = text;
    loop {
        let Some(at) = rest.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'')) else {
            return text.len();
        };
        let found = &rest[at..];
        let Some(quote) = found.chars().next().filter(|c| !c.is_whitespace()) else {
            return text.len() - found.len();
        };
        // One that is not closed is an apostrophe.
        rest = match found[1..].find(quote) {
            Some(closed) => &found[1 + closed + 1..],
            None => &found[1..],
        };
    }
}

#[cfg(test)]
mod tests;
