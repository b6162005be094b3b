//! Names that indicate a secret: of options, variables, headers, properties and commands.

use super::programs::is_in;

/// How clearly a name indicates a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Likelihood {
    /// The value may also be a path or a short number, which are shown: `--key=/etc/tls.pem`.
    Possible,
    Clear,
}

/// Parts of a name whose words are joined.
const PARTS: &str = "password passwd passphrase secret apikey accesskey accountkey sharedkey \
    authkey signingkey encryptionkey fromliteral masterkey hexkey requirepass masterauth \
    mnemonic passcode";

/// Words anywhere in a name.
const WORDS: &str = "token pass pw passin passout authorization auth auths authentication \
    bearer basic cookie cookies psk pat webhook hmac jwt encrypt ap sas";

/// Words at the end of a name.
const LAST: &str = "pin otp totp sig signature value p";

/// Words of names whose value may also be a path or a number.
const AMBIGUOUS: &str = "key pwd credential credentials cred creds session sessionid jsessionid \
    phpsessid";

/// Last words of names whose value describes a secret and is not one.
const ABOUT: &str = "file files path dir url uri env stdin prompt name id type length policy \
    ttl command cmd fd mode size count through jar helper hint field header expiry algorithm \
    agent store provider";

/// Words that indicate that a key is not a secret.
const PUBLIC: &str = "public pub primary foreign sort partition cache hot routing row group \
    object idempotency index unique recv";

/// First words of options that have no value.
const SWITCHES: &str = "no disable disabled enable without with use require allow ask prompt \
    show hide reset generate gen print list";

/// Words that end in `pass` and do not indicate a secret.
const NO_PASS: &str = "bypass compass trespass surpass encompass overpass underpass multipass";

/// Names whose value may be a user name with a password.
const LOGINS: &str = "user username login proxy-user auth-user account cert";

/// Commands and programs with a secret among the plain words after them.
const ANNOUNCERS: &str = "login unlock unseal add_user authenticate_user user setuser \
    identified obscure alias config users register <<< echo printf kv bearer basic digest token \
    sqlplus sqlldr expdp impdp rman isql radtest smbclient";

/// Subcommands, which are shown even after a word that indicates a secret.
const VERBS: &str = "add check create delete describe edit enable generate get help init list \
    login logout lookup ls modify put read remove renew revoke rm rotate set show status update \
    write";

/// How clearly the name indicates a secret. `None` if it does not.
pub(super) fn likelihood(name: &str) -> Option<Likelihood> {
    let separated = separated(name);
    let words = || separated.split(' ').filter(|word| !word.is_empty());
    let (first, last) = (words().next()?, words().next_back()?);
    let joined = separated.replace(' ', "");
    // These are secrets themselves, the first two in Vault.
    let is_secret = ["secretid", "tokenid", "webhookurl"].iter().any(|end| joined.ends_with(end));
    let is_about = is_in(ABOUT, last) && !is_secret;
    if first == "no" || is_about || last.starts_with("passwordless") {
        return None;
    }
    let is_clear = |word: &str| {
        is_in(WORDS, word)
            || word.ends_with("token")
            || word.ends_with("auth")
            || (word.ends_with("pass") && !is_in(NO_PASS, word))
    };
    let has_part = || PARTS.split(' ').any(|part| joined.contains(part));
    if is_in(LAST, last) || words().any(is_clear) || has_part() {
        return Some(Likelihood::Clear);
    }
    let is_ambiguous = joined.contains("privatekey")
        || words().any(|word| is_in(AMBIGUOUS, word) || word.ends_with("pwd"));
    (is_ambiguous && !words().any(|word| is_in(PUBLIC, word))).then_some(Likelihood::Possible)
}

/// The position at which the value of the first secret in a text begins: after `name=`, `name:`,
/// `"name": "`, `<name>`, or `"name","` as in `{"name":"DB_PASSWORD","value":"x"}`. The value ends
/// with the text.
pub(super) fn secret_value(text: &str) -> Option<(usize, Likelihood)> {
    const BETWEEN: [char; 6] = ['"', '\'', '\\', ']', ' ', '\t'];
    let mut start = 0;
    for piece in text.split_inclusive(|c| !in_name(c)) {
        let name = piece.trim_end_matches(|c| !in_name(c));
        let behind = &text[start + name.len()..];
        start += piece.len();
        let signs = behind.trim_start_matches(BETWEEN).trim_start_matches("%22");
        let is_encoded = |sign| signs.get(..3).is_some_and(|s| s.eq_ignore_ascii_case(sign));
        let value = match signs.strip_prefix(['=', ':', '>', ',']) {
            None if is_encoded("%3d") || is_encoded("%3a") => &signs[3..],
            None => continue,
            Some(value) => value,
        };
        // The scheme of a URL, or one whose password has been hidden.
        if value.starts_with("//") || value.starts_with("***@") {
            continue;
        }
        let name = name.trim_start_matches(|c: char| c == '-' || c.is_ascii_digit());
        if is_login(name)
            && let Some(at) = value.split(char::is_whitespace).next()?.find([':', '%'])
        {
            return Some((text.len() - value.len() + at + 1, Likelihood::Clear));
        }
        if let Some(likelihood) =
            likelihood(name).or_else(|| likelihood(name.strip_prefix(['H', 'D'])?))
        {
            let value = value.trim_start_matches(['=', ':', '"', '\'', ' ']);
            return Some((text.len() - value.len(), likelihood));
        }
    }
    None
}

/// Whether the value of this name may be a user name with a password, as in `--rpc-login=ops:x`.
pub(super) fn is_login(name: &str) -> bool {
    let last = name.rsplit(['-', '_']).next().unwrap_or(name);
    is_in(LOGINS, name) || matches!(last, "user" | "login")
}

/// Whether plain words after this one may be secrets. The name of a program is weak evidence:
/// `auth-server`.
pub(super) fn announces(word: &str, is_program: bool) -> bool {
    let last = word.rsplit(['/', ':', '+']).next().unwrap_or(word);
    if is_in(ANNOUNCERS, &last.to_ascii_lowercase()) {
        return true;
    }
    if word.contains('=') {
        return false;
    }
    if is_program {
        return last.contains("passw") || last.contains("passphrase");
    }
    if word.starts_with('/') || word.contains("://") {
        return likelihood(last).is_some();
    }
    word.split(['/', ':']).any(|part| likelihood(part).is_some())
}

/// Whether the word is a subcommand rather than a secret.
pub(super) fn is_verb(word: &str) -> bool {
    // `get-secret-value`
    let (verb, _) = word.split_once('-').unwrap_or((word, ""));
    let is_short = word.matches('-').count() <= 2;
    is_in(VERBS, verb) && is_short && word.chars().all(|c| c.is_ascii_lowercase() || c == '-')
}

/// Whether the first word of an option indicates that no value follows.
pub(super) fn is_switch(option: &str) -> bool {
    separated(option).split(' ').next().is_some_and(|first| is_in(SWITCHES, first))
}

fn in_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '-' | '_' | '.')
}

/// The words of a name, in lower case and separated by spaces. `db-password` and `dbPassword` give
/// the same.
fn separated(name: &str) -> String {
    let mut words = String::with_capacity(name.len() + 4);
    let mut was_lower = false;
    for c in name.chars() {
        if was_lower && c.is_uppercase() {
            words.push(' ');
        }
        was_lower = c.is_lowercase();
        if matches!(c, '-' | '_' | '.') {
            words.push(' ');
        } else {
            words.extend(c.to_lowercase());
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_classified_by_their_usual_meaning() {
        use Likelihood::*;
        let cases = [
            (Some(Clear), "password PGPASSWORD dbPassword keyStorePassword user.passwd SSHPASS"),
            (Some(Clear), "token authToken _authToken GITHUB_TOKEN X-Auth-Token accesstoken"),
            (Some(Clear), "api-key apiKey APIKEY X-Api-Key AccountKey AWS_SECRET_ACCESS_KEY pin"),
            (
                Some(Clear),
                "auth _auth basic-auth authkey GITHUB_PAT REDISCLI_AUTH psk X-Amz-Signature",
            ),
            (
                Some(Clear),
                "client_secret secret_id secret-id SecretKey passphrase RPCPASS MYSQL_PASS pw",
            ),
            (Some(Possible), "key tls-key private-key privateKey PWD OLDPWD MYSQL_PWD credentials"),
            (None, "password-file no-password passwordless token-ttl secret-name pin-mode"),
            (None, "keyring key-file keyboard monkey turkey public-key sortKey primary_key hotkey"),
            (
                None,
                "bypass compass tokens tokenizer AWS_ACCESS_KEY_ID cookie-jar signal author path",
            ),
            (None, "user host port name id"),
        ];
        for (expected, names) in cases {
            for name in names.split(' ') {
                assert_eq!(likelihood(name), expected, "{name}");
            }
        }
    }
}
