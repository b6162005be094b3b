//! Commands that stop something and are known to have no secrets in short options and plain words.

/// Programs, and which of their commands; empty for any use of the program.
const HARMLESS: &[(&str, &str)] = &[
    ("kill pkill killall killall5 skill fuser shutdown reboot poweroff halt telinit", ""),
    ("init systemd systemd-shutdown systemd-logind systemd-oomd earlyoom sshd sshd-session", ""),
    ("containerd containerd-shim containerd-shim-runc-v2 crio service invoke-rc.d rc-service", ""),
    ("docker podman nerdctl docker-compose crictl", "stop stopp kill restart pause rm rmp down"),
    ("runc crun", "kill delete"),
    ("kubectl oc", "delete drain scale rollout cordon"),
    ("loginctl", "terminate-session terminate-user terminate-seat kill-session kill-user"),
    ("machinectl virsh lxc pct qm", "stop terminate poweroff reboot kill shutdown destroy"),
    ("pm2 nomad monit initctl sv", "stop restart delete down"),
    ("systemctl", SYSTEMCTL),
    ("tmux", "kill-session kill-server"),
];

const SYSTEMCTL: &str = "stop restart try-restart reload reload-or-restart kill isolate start poweroff \
    reboot halt kexec suspend daemon-reload daemon-reexec disable mask";

/// Programs that run another one.
const WRAPPERS: &str = "sudo doas env nohup setsid timeout nice ionice xargs exec";

/// Whether the word is in a list, whose words are separated by spaces.
pub(super) fn is_in(list: &str, word: &str) -> bool {
    list.split(' ').any(|one| one == word)
}

/// Which word of a command names the program, after `sudo -n`, `env LANG=C`, `timeout 30` and so
/// on.
pub(super) fn program_at(words: &[&str]) -> Option<usize> {
    words.iter().position(|word| {
        let is_argument = word.starts_with(|c: char| c == '-' || c.is_ascii_digit());
        !(is_argument || word.contains('=') || is_in(WRAPPERS, name(word)))
    })
}

/// The position in the words of a command at which a harmless command begins. `None` if it is not
/// known to be harmless.
pub(super) fn harmless_from(words: &[&str]) -> Option<usize> {
    // After a character that ends a command in a shell, there may be another command.
    let is_end = [';', '&', '|', '`'];
    if words.iter().any(|word| word.trim_end_matches(is_end).contains(is_end)) {
        return None;
    }
    let program = program_at(words)?;
    let called = name(words[program]);
    let (_, commands) = HARMLESS.iter().find(|(programs, _)| is_in(programs, called))?;
    if commands.is_empty() {
        return Some(program);
    }
    let is_plain = |word: &&str| !word.starts_with('-');
    let command = program + 1 + words[program + 1..].iter().position(is_plain)?;
    is_in(commands, words[command]).then_some(command)
}

/// The program's name, from its path or from the title that it set: `sshd: ops@pts/0`.
pub(super) fn name(word: &str) -> &str {
    let title = word.split(char::is_whitespace).next().unwrap_or(word);
    let path = title.trim_matches(['-', ':', '"', '\'']);
    path.rsplit('/').next().unwrap_or(path)
}

/// Whether the program takes a script after `-c`.
pub(super) fn is_shell(program: &str) -> bool {
    program.ends_with("sh") || matches!(program, "su" | "runuser")
}
