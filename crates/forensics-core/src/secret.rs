//! Secrets in command lines, taken out before they are shown.
//!
//! Whoever stops a service may do so with a password on its command line, and a log outlives it. So
//! values after options and names that sound like a secret, credentials in URLs and the short
//! options of some well-known programs become `***`: in the line, the record and the diagnostic. It
//! is a guess by names, made to err on the side of hiding: it cannot know a secret that is called
//! something else, or one with blanks in it inside a shell's script.
//!
//! [`show`] turns it off for the whole process.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};

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

/// Which part of a word is secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Whole,
    /// Behind the first of these: `user:password`, `user%password`. Without it the word is a user's
    /// name alone, and the program will ask for the rest.
    After(char),
}

impl Part {
    fn is_in(self, word: &str) -> bool {
        match self {
            Self::Whole => true,
            Self::After(sign) => word.contains(sign),
        }
    }
}

/// Programs whose short option has a secret for its value, apart from it or right behind it.
const SHORT_OPTIONS: &[(&[&str], &str, Part)] = &[
    (&["mysql", "mysqldump", "mysqladmin", "mariadb", "mariadb-dump"], "-p", Part::Whole),
    (&["mongo", "mongosh", "mongodump", "mongorestore"], "-p", Part::Whole),
    (&["sshpass", "docker", "podman", "helm", "az", "7z", "7za", "unrar"], "-p", Part::Whole),
    (&["redis-cli"], "-a", Part::Whole),
    (&["curl"], "-u", Part::After(':')),
    (&["curl"], "--user", Part::After(':')),
    (&["curl"], "-U", Part::After(':')),
    (&["curl"], "--proxy-user", Part::After(':')),
    (&["ldapsearch", "ldapmodify", "ldapadd", "ldapdelete", "ldappasswd"], "-w", Part::Whole),
    (&["zip", "unzip"], "-P", Part::Whole),
    (&["smbclient", "rpcclient"], "-U", Part::After('%')),
    (&["ipmitool", "snmpget"], "-P", Part::Whole),
];

/// How often a text is gone through at most. Once is enough for all but texts that are made for it.
const PASSES: usize = 8;

/// Goes through the text until there is nothing more to hide: with what is hidden, signs go that kept
/// a form from being seen, such as the `/` in the first password of `https://a:x/y@b-token:z@host`.
fn without_secrets(text: &str) -> String {
    let mut shown = gone_through(text);
    for _ in 1..PASSES {
        let again = gone_through(&shown);
        if again == shown {
            break;
        }
        shown = again;
    }
    shown
}

fn gone_through(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut program = "";
    // What the option before says of this word.
    let mut hidden: Option<Part> = None;
    // From a header's name on, to the end of the argument.
    let mut in_header = false;
    for word in text.split_inclusive(|c: char| c == '\0' || c.is_whitespace()) {
        let (word, separator) = match word.char_indices().next_back() {
            Some((at, c)) if c == '\0' || c.is_whitespace() => word.split_at(at),
            _ => (word, ""),
        };
        let bare = word.trim_matches(['"', '\'']);
        if bare.is_empty() {
            shown.push_str(word);
        } else if in_header {
            // The quote behind it stays, as it ends the header for the next reader, too.
            let quotes = &word[word.trim_end_matches(['"', '\'']).len()..];
            shown.push_str(REDACTED);
            shown.push_str(quotes);
            in_header = quotes.is_empty();
        } else if let Some(part) =
            hidden.take().filter(|part| !word.starts_with('-') && part.is_in(word))
        {
            hide(&mut shown, word, part);
        } else {
            let name = bare.rsplit('/').next().unwrap_or(bare);
            if let Some(known) =
                SHORT_OPTIONS.iter().flat_map(|(names, ..)| *names).find(|one| **one == name)
            {
                program = known;
            }
            match short_option(program, word) {
                Some((option, "", part)) => {
                    shown.push_str(option);
                    hidden = Some(part);
                }
                Some((option, value, part)) => {
                    shown.push_str(option);
                    hide(&mut shown, value, part);
                }
                None => {
                    hidden = takes_secret(word).then_some(Part::Whole);
                    in_header = push_without_values(&mut shown, &without_credentials(word));
                }
            }
        }
        shown.push_str(separator);
        in_header &= separator != "\0";
    }
    shown
}

/// The program's secret option in `word`, what stands right behind it, and what of that is secret.
fn short_option<'a>(program: &str, word: &'a str) -> Option<(&'a str, &'a str, Part)> {
    let mut options = SHORT_OPTIONS.iter().filter(|(names, ..)| names.contains(&program));
    options.find_map(|(_, option, part)| {
        let value = word.strip_prefix(option)?;
        // Of a long one the value stands apart or behind `=`; `-pg` of another is no `-p g`, but
        // who can tell.
        let fits = value.is_empty() || (!option.starts_with("--") && part.is_in(value));
        fits.then(|| (&word[..option.len()], value, *part))
    })
}

/// Whether this is an option whose value, the next word, is a secret.
fn takes_secret(word: &str) -> bool {
    let name = word.trim_start_matches('-');
    name.len() < word.len() && name.len() > 2 && !name.contains(['=', ':']) && is_secret(name)
}

fn hide(shown: &mut String, word: &str, part: Part) {
    if let Part::After(sign) = part
        && let Some((kept, _)) = word.split_once(sign)
    {
        shown.push_str(kept);
        shown.push(sign);
    }
    shown.push_str(REDACTED);
}

/// Without the password of a URL; a user name alone is one where it is as long as a token.
fn without_credentials(word: &str) -> Cow<'_, str> {
    let Some((scheme, rest)) = word.split_once("://") else { return Cow::Borrowed(word) };
    let end = rest.find(['/', '?', '#', '"', '\'']).unwrap_or(rest.len());
    let Some((user_info, host)) = rest[..end].rsplit_once('@') else { return Cow::Borrowed(word) };
    let kept = match user_info.split_once(':') {
        Some((user, _)) => format!("{user}:{REDACTED}"),
        None if user_info.len() >= 20 => REDACTED.to_owned(),
        None => return Cow::Borrowed(word),
    };
    Cow::Owned(format!("{scheme}://{kept}@{host}{}", &rest[end..]))
}

/// Appends a word, the values in it that stand behind a secret's name and `=` or `:` left out.
/// Returns whether such a name stands at its end: then the value is what follows.
fn push_without_values(shown: &mut String, word: &str) -> bool {
    let mut rest = word;
    while let Some(at) = rest.find(['=', ':']) {
        let (before, sign) = rest.split_at(at);
        let is_colon = sign.starts_with(':');
        let in_name = |c: char| c.is_alphanumeric() || "-_.".contains(c);
        let name = before.trim_end_matches(['"', '\'']).rsplit(|c| !in_name(c)).next();
        shown.push_str(before);
        shown.push_str(&sign[..1]);
        rest = &sign[1..];
        let Some(name) = name.filter(|name| is_secret(name)) else { continue };
        let opened = rest.len() - rest.trim_start_matches(['"', '\'']).len();
        shown.push_str(&rest[..opened]);
        rest = &rest[opened..];
        let end = rest.find(['&', ';', ',', '"', '\'', '}', '@']).unwrap_or(rest.len());
        if rest[..end].is_empty() {
            if is_colon && rest.is_empty() {
                return true;
            }
            continue;
        }
        // `--tls-key=/etc/k.pem`, `PWD=/srv`, `--key=2`: worth knowing.
        let is_path_or_number = rest[..end].contains('/') || end <= 3;
        match is_path_or_number && sound(name) == Some(Sound::Faint) {
            true => shown.push_str(&rest[..end]),
            false => shown.push_str(REDACTED),
        }
        rest = &rest[end..];
    }
    shown.push_str(rest);
    false
}

/// How much a name sounds like that of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sound {
    /// A key, a directory: it may as well be a path.
    Faint,
    Clear,
}

/// Whether what is called that is likely a secret.
fn is_secret(name: &str) -> bool {
    sound(name).is_some()
}

fn sound(name: &str) -> Option<Sound> {
    const ANYWHERE: &str =
        "password passwd passphrase secret apikey accesskey privatekey credential accesstoken";
    const WHOLE: &str = "token pass passin passout authorization bearer cookie sig";
    const FAINT: &str = "key pwd";
    /// What makes of a secret something about it.
    const ABOUT: &str = "file path dir url uri env stdin prompt name id type length policy ttl \
                         command fd mode size";
    let lower = name.to_ascii_lowercase();
    let words: Vec<&str> = lower.split(['-', '_', '.']).filter(|word| !word.is_empty()).collect();
    let one_of = |list: &str, word: &str| list.split_whitespace().any(|one| one == word);
    if words.first() == Some(&"no") || words.last().is_some_and(|last| one_of(ABOUT, last)) {
        return None;
    }
    let joined = words.concat();
    let is_clear = ANYWHERE.split_whitespace().any(|part| joined.contains(part))
        || words.iter().any(|word| one_of(WHOLE, word));
    let is_faint = words.iter().any(|word| one_of(FAINT, word));
    is_clear.then_some(Sound::Clear).or(is_faint.then_some(Sound::Faint))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_options_of_real_tools_lose_their_secrets_and_nothing_else() {
        // A blank parts the arguments here; `|` is a blank inside one.
        let cases = [
            ("mysql -u root -phunter2 db", "mysql -u root -p*** db"),
            ("mysqldump --password=hunter2 --host=db", "mysqldump --password=*** --host=db"),
            ("mysql -p db", "mysql -p ***"),
            ("/usr/bin/sshpass -p hunter2 ssh ops@db", "/usr/bin/sshpass -p *** ssh ops@db"),
            ("redis-cli -h db -a hunter2 PING", "redis-cli -h db -a *** PING"),
            ("curl -u ops:hunter2 https://db/", "curl -u ops:*** https://db/"),
            ("curl --user ops https://db/", "curl --user ops https://db/"),
            ("curl -u TOKEN=hunter2 https://db/", "curl -u TOKEN=*** https://db/"),
            ("curl https://ops:hunter2@db/x?y=1", "curl https://ops:***@db/x?y=1"),
            ("curl -H Authorization:|Bearer|abc.def db", "curl -H Authorization:|***|*** db"),
            ("curl -H X-Api-Key:hunter2 db", "curl -H X-Api-Key:*** db"),
            (
                "sh -c curl|-H|\"Authorization:|Bearer|abc\"|db",
                "sh -c curl|-H|\"Authorization:|***|***\"|db",
            ),
            ("curl https://db/?token=abc&page=2", "curl https://db/?token=***&page=2"),
            ("curl https://db/?token=&page=2", "curl https://db/?token=&page=2"),
            ("env TOKEN= app", "env TOKEN= app"),
            (
                "curl -d {\"password\":\"hunter2\",\"a\":1}",
                "curl -d {\"password\":\"***\",\"a\":1}",
            ),
            ("psql postgresql://ops:hunter2@db/app", "psql postgresql://ops:***@db/app"),
            ("psql host=db|password=hunter2|dbname=app", "psql host=db|password=***|dbname=app"),
            ("env PGPASSWORD=hunter2 psql -h db", "env PGPASSWORD=*** psql -h db"),
            (
                "env AWS_SECRET_ACCESS_KEY=a/b+c aws s3 ls",
                "env AWS_SECRET_ACCESS_KEY=*** aws s3 ls",
            ),
            (
                "git clone https://x-access-token:ghp_x@host/r",
                "git clone https://x-access-token:***@host/r",
            ),
            (
                "git clone https://secrets:hunter2/x@a-token:hunter2@host/r",
                "git clone https://secrets:***@host/r",
            ),
            ("git clone https://ghp_0123456789abcdefghij@host/r", "git clone https://***@host/r"),
            ("docker login -u ops -p hunter2 host", "docker login -u ops -p *** host"),
            ("kubectl --token hunter2 get pods", "kubectl --token *** get pods"),
            ("vault login -token=hunter2", "vault login -token=***"),
            ("ldapsearch -x -w hunter2 -b dc=x", "ldapsearch -x -w *** -b dc=x"),
            ("zip -P hunter2 out.zip in", "zip -P *** out.zip in"),
            ("7z a -phunter2 out.7z in", "7z a -p*** out.7z in"),
            ("smbclient -U ops%hunter2 //h/s", "smbclient -U ops%*** //h/s"),
            ("openssl enc -passin pass:hunter2", "openssl enc -passin ***"),
            ("gpg --batch --passphrase hunter2 -d f", "gpg --batch --passphrase *** -d f"),
            ("wget --http-password=hunter2 http://h", "wget --http-password=*** http://h"),
            ("java -Ddb.password=hunter2 -jar a.jar", "java -Ddb.password=*** -jar a.jar"),
            ("app --api-key hunter2 --port 80", "app --api-key *** --port 80"),
            ("app --api-key=a/b/c TOKEN=a/b", "app --api-key=*** TOKEN=***"),
            ("app --apiKey=hunter2 --client-secret=x", "app --apiKey=*** --client-secret=***"),
            ("sh -c mysql|-phunter2|--host|db", "sh -c mysql|-p***|--host|db"),
            // Not secrets.
            (
                "app --password-file /run/p --tls-key=/etc/k.pem",
                "app --password-file /run/p --tls-key=/etc/k.pem",
            ),
            ("psql --no-password -h db", "psql --no-password -h db"),
            ("docker login --password-stdin host", "docker login --password-stdin host"),
            ("app --password --host db", "app --password --host db"),
            ("grep -p x", "grep -p x"),
            ("kill -TERM 4100", "kill -TERM 4100"),
            ("sort --key=2 f", "sort --key=2 f"),
            ("env PWD=/home/ops sh", "env PWD=/home/ops sh"),
            ("rsync ops@db:/var/x .", "rsync ops@db:/var/x ."),
            ("nginx: master process", "nginx: master process"),
        ];
        for (given, expected) in cases {
            let nul = |text: &str| text.replace(' ', "\0").replace('|', " ");
            let shown = without_secrets(&nul(given));
            assert_eq!(shown.replace(' ', "|").replace('\0', " "), expected);
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }

    proptest! {
        #[test]
        fn whatever_the_text_its_arguments_stay_as_many(text in "[-a-z=:@/%'\"\\PC\0 ]{0,80}") {
            let shown = without_secrets(&text);
            prop_assert_eq!(shown.matches('\0').count(), text.matches('\0').count());
        }

        #[test]
        fn to_hide_twice_is_to_hide_once(text in "([-a-z=:@/%'\"\0 ]|://|token|-p|curl){0,30}") {
            let shown = without_secrets(&text);
            prop_assert_eq!(without_secrets(&shown), shown);
        }

        #[test]
        fn a_password_in_its_option_is_never_shown(secret in "[A-Z0-9]{6,40}", before in "[a-z ]{0,20}") {
            for form in ["--password=", "--password ", "TOKEN=", "--api-key ", "x://u:"] {
                let end = if form.starts_with('x') { "@h" } else { "" };
                let shown = without_secrets(&format!("{before} {form}{secret}{end}"));
                prop_assert!(!shown.contains(&secret), "{}", shown);
            }
        }
    }
}
