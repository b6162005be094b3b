//! Well-known programs that take a secret where its name does not tell.

/// Which part of an argument is secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Whole,
    /// Behind the first of these: `user:password`, `user%password`.
    After(char),
}

/// An option with a secret for its value, apart from it or, of a short one, right behind it.
pub(super) struct SecretOption {
    programs: &'static [&'static str],
    /// Only after this word: `docker login -p`, but not `docker run -p`.
    command: Option<&'static str>,
    option: &'static str,
    pub(super) part: Part,
}

const fn of(programs: &'static [&'static str], option: &'static str, part: Part) -> SecretOption {
    SecretOption { programs, command: None, option, part }
}

const fn in_command(
    programs: &'static [&'static str],
    command: &'static str,
    option: &'static str,
) -> SecretOption {
    SecretOption { programs, command: Some(command), option, part: Part::Whole }
}

const MYSQL: &[&str] = &[
    "mysql",
    "mysqldump",
    "mysqladmin",
    "mysqlcheck",
    "mysqlimport",
    "mysqlpump",
    "mysqlslap",
    "mysqlbinlog",
    "mysqlshow",
    "mysqlsh",
    "mariadb",
    "mariadb-dump",
    "mariadb-admin",
    "mariadb-check",
    "mariadb-backup",
    "mariabackup",
    "xtrabackup",
    "mycli",
];
const MONGO: &[&str] = &[
    "mongo",
    "mongosh",
    "mongodump",
    "mongorestore",
    "mongoexport",
    "mongoimport",
    "mongostat",
    "mongotop",
];
const LDAP: &[&str] = &[
    "ldapsearch",
    "ldapmodify",
    "ldapadd",
    "ldapdelete",
    "ldappasswd",
    "ldapcompare",
    "ldapmodrdn",
    "ldapwhoami",
];
const SNMP: &[&str] =
    &["snmpget", "snmpgetnext", "snmpwalk", "snmpset", "snmpbulkwalk", "snmptrap"];
const ORACLE: &[&str] = &["sqlplus", "sqlldr", "expdp", "impdp"];

const OPTIONS: &[SecretOption] = &[
    of(MYSQL, "-p", Part::Whole),
    of(MONGO, "-p", Part::Whole),
    of(LDAP, "-w", Part::Whole),
    of(SNMP, "-A", Part::Whole),
    of(SNMP, "-X", Part::Whole),
    of(SNMP, "-c", Part::Whole),
    of(
        &["sshpass", "az", "7z", "7za", "7zz", "7zr", "unrar", "cqlsh", "beeline"],
        "-p",
        Part::Whole,
    ),
    of(&["rar"], "-hp", Part::Whole),
    of(&["rar", "useradd", "usermod", "rdesktop", "pkcs11-tool"], "-p", Part::Whole),
    of(&["xfreerdp", "xfreerdp3", "wlfreerdp"], "/p:", Part::Whole),
    in_command(&["docker", "podman", "buildah", "skopeo", "helm", "oras", "crane"], "login", "-p"),
    in_command(&["gh"], "secret", "--body"),
    in_command(&["gh"], "secret", "-b"),
    of(&["kubectl", "oc"], "--from-literal", Part::After('=')),
    of(&["redis-cli", "valkey-cli"], "-a", Part::Whole),
    of(&["curl"], "-u", Part::After(':')),
    of(&["curl"], "--user", Part::After(':')),
    of(&["curl"], "-U", Part::After(':')),
    of(&["curl"], "--proxy-user", Part::After(':')),
    of(&["curl"], "-E", Part::After(':')),
    of(&["curl"], "--cert", Part::After(':')),
    of(&["curl"], "-b", Part::After('=')),
    of(&["http", "https", "xh"], "-a", Part::After(':')),
    of(&["http", "https", "xh"], "--auth", Part::After(':')),
    of(&["lftp"], "-u", Part::After(',')),
    of(&["zip", "unzip", "sqlcmd", "bcp", "osql", "tsql", "ipmitool"], "-P", Part::Whole),
    of(&["mosquitto_pub", "mosquitto_sub", "mosquitto_rr"], "-P", Part::Whole),
    of(&["smbclient", "rpcclient", "smbget"], "-U", Part::After('%')),
    of(&["openssl"], "-k", Part::Whole),
    of(&["openssl"], "-K", Part::Whole),
    of(&["doctl"], "-t", Part::Whole),
];

/// Commands whose first own argument is the secret.
const BARE: &[(&[&str], &str)] = &[
    (&["vault", "bao"], "login"),
    (&["vault", "bao"], "unseal"),
    (&["redis-cli", "valkey-cli"], "auth"),
];

/// Flags of curl's that take no value and may stand in front of `u` in one word: `-sSu user:password`.
const CURL_FLAGS: &[u8] = b"0123456#BGIJLMNORSafgijklnpqsv";

/// The program of this name, where its options are known.
pub(super) fn known(name: &str) -> Option<&'static str> {
    let of_options = OPTIONS.iter().map(|option| option.programs);
    let of_commands = BARE.iter().map(|(programs, _)| *programs);
    let mut all = of_options.chain(of_commands).chain([ORACLE]);
    all.find_map(|programs| programs.iter().find(|one| **one == name).copied())
}

/// The secret option of `program` in `word`: the option as it stands there, what stands right behind
/// it, and what of that is secret.
pub(super) fn option<'a>(
    program: &str,
    commands: &[&str],
    word: &'a str,
) -> Option<(&'a str, &'a str, Part)> {
    if program.is_empty() {
        return None;
    }
    OPTIONS.iter().filter(|row| row.programs.contains(&program)).find_map(|row| {
        let fits = |command: &str| commands.contains(&command);
        if !row.command.is_none_or(fits) {
            return None;
        }
        let behind = behind(program, row.option, word)?;
        let (option, value) = word.split_at(word.len() - behind.len());
        match value.strip_prefix('=') {
            Some(value) if row.option.starts_with("--") => {
                Some((&word[..option.len() + 1], value, row.part))
            }
            // `--username` is no `--user`; of a short one that goes on, who can tell.
            _ if row.option.starts_with("--") && !value.is_empty() => None,
            _ => Some((option, value, row.part)),
        }
    })
}

/// What follows the option in the word that begins with it.
fn behind<'a>(program: &str, option: &str, word: &'a str) -> Option<&'a str> {
    word.strip_prefix(option).or_else(|| {
        let letter = option.strip_prefix('-').filter(|_| program == "curl" && option.len() == 2)?;
        let flags = word.strip_prefix('-')?;
        let is_flag = |c| u8::try_from(c).is_ok_and(|c: u8| CURL_FLAGS.contains(&c));
        let rest = flags.trim_start_matches(is_flag);
        (rest.len() < flags.len()).then(|| rest.strip_prefix(letter))?
    })
}

/// Whether the next argument, if it is no option, is the secret of that command.
pub(super) fn takes_bare(program: &str, word: &str) -> bool {
    let is = |(programs, command): &(&[&str], &str)| {
        programs.contains(&program) && command.eq_ignore_ascii_case(word)
    };
    BARE.iter().any(is)
}

/// Whether the program takes `user/password@database`.
pub(super) fn is_oracle(program: &str) -> bool {
    ORACLE.contains(&program)
}
