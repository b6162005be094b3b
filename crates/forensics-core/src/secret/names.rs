//! How much a name sounds like that of a secret: an option's, a variable's, a header's, a property's.

/// How sure it sounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sound {
    /// A key, a directory, credentials: it may as well be a path or a number, which are worth knowing.
    Faint,
    Clear,
}

/// Parts of a name, its words joined.
const ANYWHERE: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "secret",
    "apikey",
    "accesskey",
    "accountkey",
    "sharedkey",
    "signingkey",
    "encryptionkey",
    "masterkey",
    "requirepass",
    "masterauth",
];

/// Words of a name.
const WHOLE: &[&str] =
    &["token", "pass", "pw", "passin", "passout", "authorization", "bearer", "cookie"];

/// Words that only count at a name's end.
const LAST: &[&str] = &["pin", "otp"];

const FAINT: &[&str] = &["key", "pwd", "credential", "credentials", "creds"];

/// Last words that make of a secret something about it.
const ABOUT: &[&str] = &[
    "file",
    "files",
    "path",
    "dir",
    "url",
    "uri",
    "env",
    "stdin",
    "prompt",
    "name",
    "id",
    "type",
    "length",
    "policy",
    "ttl",
    "command",
    "cmd",
    "fd",
    "mode",
    "size",
    "count",
    "through",
    "jar",
    "helper",
    "hint",
    "field",
    "header",
    "expiry",
    "algorithm",
    "agent",
    "store",
    "provider",
];

/// Words that make of a key one that everybody may know.
const OPEN: &[&str] = &[
    "public",
    "pub",
    "primary",
    "foreign",
    "sort",
    "partition",
    "cache",
    "hot",
    "routing",
    "row",
    "group",
    "object",
    "idempotency",
    "index",
    "unique",
    "recv",
];

/// First words of an option that switches something and has no value.
const SWITCHES: &[&str] = &[
    "no", "disable", "disabled", "enable", "without", "with", "use", "require", "allow", "ask",
    "prompt", "show", "hide", "reset", "generate", "gen", "print", "list",
];

/// Words that end in `pass` and are none.
const NO_PASS: &[&str] = &[
    "bypass",
    "compass",
    "trespass",
    "surpass",
    "encompass",
    "overpass",
    "underpass",
    "multipass",
];

/// How the name sounds; `None` for one that sounds like nothing secret.
pub(super) fn sound(name: &str) -> Option<Sound> {
    if !name.contains(char::is_alphabetic) {
        return None;
    }
    // Of an approle of Vault's; other tools call a name so.
    if name.eq_ignore_ascii_case("secret_id") {
        return Some(Sound::Clear);
    }
    let words = words(name);
    let (first, last) = (words.first()?.as_str(), words.last()?.as_str());
    if first == "no" || ABOUT.contains(&last) || last.starts_with("passwordless") {
        return None;
    }
    let joined = words.concat();
    let is_clear = ANYWHERE.iter().any(|part| joined.contains(part))
        || LAST.contains(&last)
        || words.iter().any(|word| sounds_clear(word));
    if is_clear {
        return Some(Sound::Clear);
    }
    let is_open = words.iter().any(|word| OPEN.contains(&word.as_str()));
    let is_faint = joined.contains("privatekey")
        || words.iter().any(|word| FAINT.contains(&word.as_str()) || word.ends_with("pwd"));
    (is_faint && !is_open).then_some(Sound::Faint)
}

/// Whether it is an option that says by its first word that no value follows.
pub(super) fn is_switch(option: &str) -> bool {
    words(option).first().is_some_and(|first| SWITCHES.contains(&first.as_str()))
}

fn sounds_clear(word: &str) -> bool {
    WHOLE.contains(&word)
        || word.ends_with("token")
        || (word.ends_with("pass") && !NO_PASS.contains(&word))
}

/// The words of a name, in lower case: parted by signs, and where a capital begins one.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut was_lower = false;
    for c in name.chars() {
        if matches!(c, '-' | '_' | '.') || (was_lower && c.is_uppercase()) {
            words.push(String::new());
        }
        was_lower = c.is_lowercase();
        if let Some(word) = words.last_mut().filter(|_| !matches!(c, '-' | '_' | '.')) {
            word.extend(c.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sound_as_those_who_chose_them_meant() {
        use Sound::*;
        let cases = [
            (Some(Clear), "password PGPASSWORD dbPassword keyStorePassword user.passwd SSHPASS"),
            (Some(Clear), "token authToken _authToken GITHUB_TOKEN X-Auth-Token accesstoken"),
            (Some(Clear), "api-key apiKey APIKEY X-Api-Key AccountKey AWS_SECRET_ACCESS_KEY pin"),
            (Some(Clear), "client_secret secret_id SecretKey passphrase RPCPASS MYSQL_PASS pw"),
            (Some(Faint), "key tls-key private-key privateKey PWD OLDPWD MYSQL_PWD credentials"),
            (
                None,
                "password-file no-password passwordless token-ttl secret-name secret-id pin-mode",
            ),
            (None, "keyring key-file keyboard monkey turkey public-key sortKey primary_key hotkey"),
            (None, "bypass compass tokens tokenizer AWS_ACCESS_KEY_ID cookie-jar auth sig signal"),
            (None, "user host port name id"),
        ];
        for (expected, names) in cases {
            for name in names.split(' ') {
                assert_eq!(sound(name), expected, "{name}");
            }
        }
    }
}
