//! Recognizes secrets and harmless values by their shape: passwords in URLs, tokens, random words,
//! paths.

use super::REDACTED;
use super::programs::is_in;

/// The prefixes of well-known tokens.
const TOKENS: &str = "ghp_ gho_ ghu_ ghs_ ghr_ github_pat_ glpat- gldt- glrt- glptt- hvs. hvb. hvr. \
    xoxa- xoxb- xoxc- xoxd- xoxe- xoxo- xoxp- xoxr- xoxs- xapp- sk- sk_live_ sk_test_ rk_live_ whsec_ \
    AIza ya29. npm_ pypi- dop_v1_ SG. shpat_ shpss_ dckr_pat_ hf_ gsk_ tskey- AKIA ASIA eyJ \
    AGE-SECRET-KEY-";

/// How many characters follow a prefix at least.
const MIN_TOKEN: usize = 16;

/// How long a random word is at least.
const MIN_RANDOM: usize = 20;

/// Hides the passwords of URLs and of `user:password@host` in a word, and the paths of webhooks.
pub(super) fn without_credentials(word: &str) -> String {
    if !word.contains(['@', '/']) {
        return word.to_owned();
    }
    let mut shown = String::with_capacity(word.len());
    let mut rest = word;
    // A list: `amqp://u:p@h1,amqp://u:p@h2`.
    while let Some(next) = start_of_second_url(rest) {
        shown += &without_login(&rest[..next]);
        rest = &rest[next..];
    }
    shown + &without_login(rest)
}

fn start_of_second_url(list: &str) -> Option<usize> {
    let first = list.find("://")? + 3;
    let second = first + list[first..].find("://")?;
    let separator = list[first..second].rfind([',', ';', '|', '='])?;
    Some(first + separator + 1)
}

/// Everything between the user's name and the last `@` is the password, which may contain any
/// character.
fn without_login(url: &str) -> String {
    let start = url.find("://").map_or(0, |at| at + 3);
    let is_url = start > 0;
    let Some(end) = url[start..].rfind('@').map(|at| start + at) else {
        // Anyone who knows the path of a webhook can use it.
        let path = url[start..].find('/').map(|at| start + at + 1).filter(|_| is_url);
        let is_webhook = url.contains("hook") || url.contains("telegram");
        return match path.filter(|path| is_webhook && *path < url.len()) {
            Some(path) => format!("{}{REDACTED}", &url[..path]),
            None => url.to_owned(),
        };
    };
    let login = &url[start..end];
    let lower = login.to_ascii_lowercase();
    let is_plain = |c: char| c.is_ascii_lowercase() || matches!(c, '-' | '_' | '.');
    let is_token = login.len() >= MIN_RANDOM || !login.chars().all(is_plain);
    let kept = if let Some(at) = login.find(':') {
        at + 1
    } else if let Some(at) = lower.find("%3a") {
        at + "%3a".len()
    } else if let Some(at) = login.find('/').filter(|at| !is_url && *at > 0) {
        // Oracle's `user/password@database`.
        at + 1
    } else if is_url && is_token {
        0
    } else {
        return url.to_owned();
    };
    format!("{}{REDACTED}{}", &url[..start + kept], &url[end..])
}

/// Hides tokens with a known prefix and, unless `only_known`, words that look random.
pub(super) fn without_tokens(word: &str, only_known: bool) -> String {
    if word.len() < MIN_TOKEN {
        return word.to_owned();
    }
    let in_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let shown = hide_runs(word, in_token, is_token);
    let shown = hide_runs(&shown, |c| in_token(c) || c == ':', is_bot_token);
    if only_known {
        return shown;
    }
    let in_base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '+' | '/');
    let shown = hide_runs(&shown, in_base64, is_random);
    // A path may contain the hash of a container or a package.
    if word.starts_with('/') {
        return shown;
    }
    hide_runs(&shown, |c| c.is_ascii_alphanumeric(), is_random)
}

/// Hides the sequences of these characters that are secrets.
fn hide_runs(text: &str, in_run: impl Fn(char) -> bool, is_secret: fn(&str) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for piece in text.split_inclusive(|c| !in_run(c)) {
        let run = piece.trim_end_matches(|c| !in_run(c));
        shown += if is_secret(run) { REDACTED } else { run };
        shown += &piece[run.len()..];
    }
    shown
}

fn is_token(run: &str) -> bool {
    // Names with the same prefix, such as `npm_config_user_agent`, are in lower case.
    let is_mixed =
        |rest: &str| rest.contains(|c: char| c.is_ascii_digit() || c.is_ascii_uppercase());
    let mut rests = TOKENS.split_ascii_whitespace().filter_map(|prefix| run.strip_prefix(prefix));
    rests.any(|rest| rest.len() >= MIN_TOKEN && is_mixed(rest))
}

/// Whether it is the token of a Telegram bot: the bot's number, and 35 characters after a colon.
fn is_bot_token(run: &str) -> bool {
    let parts = run.split_once(':');
    parts.is_some_and(|(bot, key)| {
        bot.len() >= 6
            && bot.bytes().all(|b| b.is_ascii_digit())
            && key.len() == 35
            && !key.contains(':')
    })
}

/// Whether letters and digits alternate as often as in random text: at a quarter of the positions
/// or more. A word with other characters must also have both cases, because names with a hash at
/// the end have only one.
fn is_random(run: &str) -> bool {
    if run.len() < MIN_RANDOM {
        return false;
    }
    let class = |byte: u8| match byte {
        b'0'..=b'9' => 1,
        b'a'..=b'z' => 2,
        b'A'..=b'Z' => 3,
        _ => 0,
    };
    let classes: Vec<u8> = run.bytes().map(class).collect();
    let has = |class| classes.contains(&class);
    let is_change = |pair: &&[u8]| pair[0] != pair[1] && !pair.contains(&0);
    let changes = classes.windows(2).filter(is_change).count();
    changes * 4 >= run.len() && has(1) && ((has(2) && has(3)) || !has(0))
}

/// Whether the whole value is clearly not a secret: a path, a URL, a number of three digits.
pub(super) fn is_evident(value: &str) -> bool {
    // Base64 may begin with a slash, too.
    let is_folder = |name: &str| name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let folder = value.strip_prefix('/').and_then(|path| path.split_once('/'));
    let is_relative = ["./", "../", "~/"].iter().any(|start| value.starts_with(start));
    let ends = [".pem", ".key", ".crt", ".json", ".yml", ".yaml"];
    let is_path = is_relative
        || ends.iter().any(|end| value.ends_with(end))
        || folder.is_some_and(|(folder, _)| is_folder(folder));
    let is_plain = !value.contains([',', ';', '=', '&', ':', '+']);
    let is_number = value.len() <= 3 && value.bytes().all(|byte| byte.is_ascii_digit());
    (is_path && is_plain && !is_random(value)) || is_number || value.contains("://")
}

/// Whether the value is that of a switch and cannot be a secret.
pub(super) fn is_switch_word(value: &str) -> bool {
    is_in("true false yes no on off none null 1 0 ask prompt", &value.to_ascii_lowercase())
}

/// The position at which the first word of a text ends: at a space that is not quoted as in a
/// shell.
pub(super) fn end_of_word(text: &str, is_shell: bool) -> usize {
    let mut at = 0;
    while let Some(c) = text[at..].chars().next().filter(|c| !c.is_whitespace()) {
        at += c.len_utf8();
        at += match c {
            '\\' if is_shell => text[at..].chars().next().map_or(0, char::len_utf8),
            // A quote that is not closed is an apostrophe.
            '"' | '\'' if is_shell => text[at..].find(c).map_or(0, |closed| closed + 1),
            _ => 0,
        };
    }
    at
}
