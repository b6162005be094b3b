//! What looks like a secret, or like none, by itself: addresses with a password in them, tokens by the
//! prefix that their makers gave them to be found by, paths, switches.

use std::borrow::Cow;

use super::{REDACTED, in_name};

/// Prefixes of tokens. Each is followed by at least [`MIN_TOKEN`] letters, digits, `_`, `-` or `.`.
const TOKENS: &[&str] = &[
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "github_pat_",
    "glpat-",
    "gldt-",
    "glrt-",
    "hvs.",
    "hvb.",
    "hvr.",
    "xoxb-",
    "xoxp-",
    "xoxa-",
    "xoxr-",
    "xoxs-",
    "xapp-",
    "sk-",
    "sk_live_",
    "sk_test_",
    "rk_live_",
    "whsec_",
    "AIza",
    "ya29.",
    "npm_",
    "pypi-",
    "dop_v1_",
    "SG.",
    "shpat_",
    "dckr_pat_",
    "eyJ",
    "AGE-SECRET-KEY-",
];
const MIN_TOKEN: usize = 16;

/// Schemes, or what looks like one, that are followed by an address and no password.
const ADDRESSES: &[&str] = &[
    "mailto",
    "sip",
    "sips",
    "xmpp",
    "acct",
    "npm",
    "git",
    "ssh",
    "pkg",
    "file",
    "jid",
    "workspace",
];

/// Endings of files that hold keys and the like.
const FILES: &[&str] = &[
    ".pem", ".key", ".crt", ".cer", ".der", ".p12", ".pfx", ".jks", ".pub", ".gpg", ".asc",
    ".json", ".yml", ".yaml", ".toml", ".conf", ".cfg", ".ini", ".env", ".txt",
];

/// Without the passwords in the URLs of a word, and in what connects to databases in other ways. A user
/// name alone is one where it is as long as a token.
pub(super) fn without_credentials(word: &str) -> Cow<'_, str> {
    // Each form below has one, and most words have none.
    if !word.contains(':') {
        return Cow::Borrowed(word);
    }
    let mut shown = String::with_capacity(word.len());
    let mut rest = word;
    while let Some((scheme, behind)) = rest.split_once("://") {
        shown.push_str(scheme);
        shown.push_str("://");
        rest = behind;
        if let Some((kept, used)) = user_info(behind) {
            shown.push_str(&kept);
            rest = &behind[used..];
        }
    }
    Cow::Owned(match shown.is_empty() {
        true => without_scheme(word),
        false => shown + rest,
    })
}

/// What to show of a URL's user information, and how long that was, the `@` not included.
fn user_info(behind: &str) -> Option<(String, usize)> {
    const ENDS: [char; 5] = ['/', '?', '#', '"', '\''];
    let end = behind.find(ENDS).unwrap_or(behind.len());
    // Up to the next URL, of a list: `amqp://u:p@h1,amqp://u:p@h2`.
    let this = behind.find("://").map_or(behind, |next| {
        let scheme = behind[..next].rfind([',', ';', ' ', '|', '=']);
        scheme.map_or(behind, |at| &behind[..at])
    });
    let strict = this[..end.min(this.len())].rfind('@');
    // A password with a slash in it, which should have been percent-encoded: there is a colon before,
    // and no port behind that.
    let lenient = || {
        let (_, port) = this[..end.min(this.len())].split_once(':')?;
        let is_port = this.starts_with('[')
            || (port.bytes().all(|byte| byte.is_ascii_digit()) && !port.is_empty());
        (!is_port).then(|| this.rfind('@'))?
    };
    let at = strict.or_else(lenient)?;
    let info = &behind[..at];
    let lower = info.to_ascii_lowercase();
    let colon = info.find(':').map(|at| (at, 1)).or_else(|| lower.find("%3a").map(|at| (at, 3)));
    match colon {
        Some((colon, sign)) => Some((format!("{}{REDACTED}", &info[..colon + sign]), at)),
        None if info.len() >= 20 => Some((REDACTED.to_owned(), at)),
        None => None,
    }
}

/// `user:password@host`, `user:password@tcp(host)`, `oracle:thin:user/password@host`.
fn without_scheme(word: &str) -> String {
    if let Some((before, behind)) = word.split_once("oracle:thin:") {
        return format!("{before}oracle:thin:{}", without_oracle(behind));
    }
    let with_user = || {
        // `--proxy=u:p@h`
        let start = word.rfind('=').map_or(0, |at| at + 1);
        let (user, behind) = word[start..].split_once(':')?;
        let (password, host) = behind.rsplit_once('@')?;
        let is_dsn = host.starts_with("tcp(") || host.starts_with("unix(");
        let fits = |text: &str| !text.is_empty() && !text.contains(['/', '"', '\'', '{', '(']);
        let is_pair = fits(user) && fits(password) && !password.contains(':');
        let is_login = is_dsn || (is_pair && is_host(host) && !ADDRESSES.contains(&user));
        is_login.then(|| format!("{}{user}:{REDACTED}@{host}", &word[..start]))
    };
    with_user().unwrap_or_else(|| word.to_owned())
}

/// `user/password@database`.
pub(super) fn without_oracle(word: &str) -> String {
    match word.split_once('/') {
        Some((user, password)) if !user.is_empty() && !user.contains('@') => {
            let database = password.rfind('@').map_or("", |at| &password[at..]);
            format!("{user}/{REDACTED}{database}")
        }
        _ => word.to_owned(),
    }
}

/// `db`, `db.example:5432`, with a path behind it or not; but not `sha256:0123…`.
fn is_host(text: &str) -> bool {
    let (authority, _) = text.split_once('/').unwrap_or((text, ""));
    let (host, port) = authority.split_once(':').unwrap_or((authority, "1"));
    let is_port = (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit());
    !host.is_empty() && host.chars().all(in_name) && is_port && !is_unit(host)
}

/// `a:b@c.service` is an instance of a template, and nobody's password.
fn is_unit(host: &str) -> bool {
    let types = [".service", ".socket", ".timer", ".mount", ".scope", ".slice"];
    types.iter().any(|kind| host.ends_with(kind))
}

/// Without the tokens that show themselves by their prefix.
pub(super) fn without_tokens(text: &str) -> String {
    let in_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    let mut boundary = true;
    while let Some(c) = rest.chars().next() {
        let length = rest.find(|c| !in_token(c)).unwrap_or(rest.len());
        let may_be_one = boundary && length > MIN_TOKEN;
        let prefix = TOKENS.iter().find(|prefix| may_be_one && rest.starts_with(**prefix));
        // Names that begin so, as `npm_config_user_agent`, have no digit in them.
        let is_token = |prefix: &&str| {
            let random = rest.get(prefix.len()..length).unwrap_or_default();
            random.len() >= MIN_TOKEN && random.bytes().any(|byte| byte.is_ascii_digit())
        };
        if prefix.is_some_and(is_token) {
            shown.push_str(REDACTED);
            rest = &rest[length..];
        } else {
            // The whole word at once: only its beginning can be one's.
            let used = if boundary && length > 0 { length } else { c.len_utf8() };
            shown.push_str(&rest[..used]);
            rest = &rest[used..];
        }
        boundary = rest.is_empty() || !shown.ends_with(in_token);
    }
    shown
}

/// Whether it is a file's path, as far as that can be told.
pub(super) fn is_path(value: &str) -> bool {
    let plain = |c: char| in_name(c) || matches!(c, '/' | '@' | '~' | ' ');
    let starts = ["/", "./", "../", "~/"].iter().any(|start| value.starts_with(start));
    let is_file = FILES.iter().any(|ending| value.ends_with(ending));
    (starts || is_file) && value.chars().all(plain)
}

/// Whether it is a word that switches something and hides nothing.
pub(super) fn is_switch_word(value: &str) -> bool {
    let words =
        ["true", "false", "yes", "no", "on", "off", "none", "null", "1", "0", "ask", "prompt"];
    words.iter().any(|word| value.eq_ignore_ascii_case(word))
}
