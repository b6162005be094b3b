//! A container like that of a container runtime: namespaces, an empty root, mounts, a user without
//! privileges.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use forensics_tests::{ANY_SIGNAL, Ended, Program, can, root_can, static_gateway, until};
use tempfile::TempDir;

/// Creates the root on a tmpfs at `$root` and starts the program in it. `$volumes` are pairs of a
/// folder and its mount point, `$message` is the file for the termination message.
const SCRIPT: &str = r#"
mount -t tmpfs -o mode=755 none "$root"
cp "$program" "$root/gateway"
mkdir "$root/proc" "$root/dev"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 none "$root/dev"
touch "$root/dev/null"
mount --bind /dev/null "$root/dev/null"
mkdir -p "$root${message_path%/*}"
touch "$root$message_path"
mount --bind "$message" "$root$message_path"
set -f
set -- $volumes -- "$@"
while [ "$1" != -- ]; do
    mkdir -p "$root$2"
    mount --bind "$1" "$root$2"
    shift 2
done
shift
[ -z "$read_only" ] || mount -o remount,ro "$root"
ip link set lo up
set -- --userspec="$user" "$root" /gateway "$@"
unset root program message message_path volumes read_only user
if [ -n "$shared" ]; then
    unset shared
    setpriv --no-new-privs --inh-caps=-all \
        --bounding-set=-all,+sys_chroot,+setuid,+setgid chroot "$@" &
    wait $!
    exit
fi
unset shared
exec setpriv --no-new-privs --inh-caps=-all \
    --bounding-set=-all,+sys_chroot,+setuid,+setgid chroot "$@"
"#;

/// The settings of a container.
pub(crate) struct Container {
    pub(crate) user: String,
    pub(crate) read_only: bool,
    /// The whole environment.
    pub(crate) env: Vec<(String, String)>,
    pub(crate) message_path: String,
    /// Mount points of folders that everyone can write to, such as the kubelet's `emptyDir`.
    pub(crate) volumes: Vec<String>,
    /// Another process is process 1, as with `shareProcessNamespace`.
    pub(crate) shared: bool,
}

/// The defaults of a current runtime.
impl Default for Container {
    fn default() -> Self {
        Self {
            user: "65532:65532".to_owned(),
            read_only: true,
            env: Vec::new(),
            message_path: "/dev/termination-log".to_owned(),
            volumes: Vec::new(),
            shared: false,
        }
    }
}

impl Container {
    /// A container whose stop every repeated signal speeds up.
    pub(crate) fn impatient() -> Self {
        let (name, value) = ANY_SIGNAL;
        Self { env: vec![(name.to_owned(), value.to_owned())], ..Self::default() }
    }
}

/// A gateway in a container, listening.
pub(crate) struct Running {
    pub(crate) program: Program,
    /// Its pid in our namespace.
    pub(crate) pid: u32,
    /// The folder with its files.
    outside: TempDir,
}

/// A gateway that has ended.
pub(crate) struct Stopped {
    pub(crate) ended: Ended,
    /// The termination message.
    pub(crate) message: String,
    outside: TempDir,
}

/// Whether this machine can run containers.
pub(crate) fn can_contain() -> bool {
    let mut probe = unshare("mount -t tmpfs none /mnt && ip link set lo up");
    root_can(&mut probe) && can(Command::new("setpriv").arg("--version"))
}

fn unshare(script: &str) -> Command {
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "bash", "-e", "-c"]);
    unshare.args([script, "bash"]);
    unshare
}

impl Container {
    /// Starts the gateway as process 1 with these arguments, and waits until it listens.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        self.start_with(tempfile::tempdir().unwrap(), arguments)
    }

    /// Starts another container with the volumes of `before`, which has ended.
    pub(crate) fn start_again(&self, before: Stopped, arguments: &[&str]) -> Running {
        self.start_with(before.outside, arguments)
    }

    fn start_with(&self, outside: TempDir, arguments: &[&str]) -> Running {
        let root = outside.path().join("root");
        fs::create_dir_all(&root).unwrap();
        let message = outside.path().join("message");
        fs::write(&message, "").unwrap();
        fs::set_permissions(&message, fs::Permissions::from_mode(0o666)).unwrap();
        let mut volumes = String::new();
        for (place, inside) in self.volumes.iter().enumerate() {
            let folder = volume(outside.path(), place);
            fs::create_dir_all(&folder).unwrap();
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
            volumes.push_str(&format!("{} {inside} ", folder.display()));
        }
        let mut unshare = unshare(SCRIPT);
        unshare
            .env_clear()
            // So that it is a container even if these tests run in a systemd service.
            .env("container", "test")
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .env("root", &root)
            .env("program", static_gateway())
            .env("message", &message)
            .env("message_path", &self.message_path)
            .env("volumes", volumes)
            .env("shared", if self.shared { "yes" } else { "" })
            .env("read_only", if self.read_only { "yes" } else { "" })
            .env("user", &self.user)
            .args(arguments);
        let program = Program::start(&mut unshare);
        program.wait_for_stdout("listening on ");
        let pid = gateway_below(program.pid());
        Running { program, pid, outside }
    }
}

fn volume(outside: &Path, place: usize) -> PathBuf {
    outside.join(format!("volume-{place}"))
}

/// The pid in our namespace of the gateway that is a descendant of `pid`.
pub(crate) fn gateway_below(mut pid: u32) -> u32 {
    while name_of(pid) != "gateway" {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        let first = children.split_whitespace().next();
        pid = first.unwrap_or_else(|| panic!("no gateway below {pid}")).parse().unwrap();
    }
    pid
}

fn name_of(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

impl Running {
    /// Sends the gateway a signal from outside, as a runtime does.
    pub(crate) fn kill(&self, signal: &str) {
        let killed = Command::new("/bin/kill").args([signal, &self.pid.to_string()]).status();
        assert!(killed.unwrap().success());
    }

    /// Sends a request from inside its network namespace. `None` if the server does not listen any
    /// more.
    pub(crate) fn get(&self, port: u16, path: &str) -> Option<(u16, String)> {
        const CLIENT: &str = r#"
import sys, http.client
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
try:
    connection.request("GET", sys.argv[2], headers={"Connection": "close"})
except ConnectionRefusedError:
    sys.exit()
answer = connection.getresponse()
print(answer.status, answer.read().decode().strip())
"#;
        let mut client = Command::new("nsenter");
        client.args(["--net", "--target", &self.pid.to_string()]);
        client.args(["/usr/bin/python3", "-c", CLIENT, &port.to_string(), path]);
        let said = client.stderr(Stdio::inherit()).output().unwrap();
        assert!(said.status.success(), "{path}");
        let said = String::from_utf8(said.stdout).unwrap();
        let (status, body) = said.trim().split_once(' ')?;
        Some((status.parse().unwrap(), body.to_owned()))
    }

    /// Waits until it is ready. It listens before that.
    pub(crate) fn wait_until_ready(&self, port: u16) {
        let is_ready = || self.get(port, "/readyz").is_some_and(|(status, _)| status == 200);
        until("it is ready", is_ready);
    }

    /// The current termination message.
    pub(crate) fn message(&self) -> String {
        fs::read_to_string(self.outside.path().join("message")).unwrap()
    }

    /// Waits until the termination message contains this text.
    pub(crate) fn wait_for_message(&self, text: &str) -> String {
        let end = std::time::Instant::now() + forensics_tests::LIMIT;
        loop {
            let message = self.message();
            if message.contains(text) {
                return message;
            }
            assert!(std::time::Instant::now() < end, "no `{text}` in {message}");
            std::thread::yield_now();
        }
    }

    /// Waits until it has ended.
    pub(crate) fn wait(self) -> Stopped {
        let ended = self.program.wait();
        let message = fs::read_to_string(self.outside.path().join("message")).unwrap();
        assert!(message.len() <= 4096, "{message}");
        Stopped { ended, message, outside: self.outside }
    }

    /// Stops it by SIGTERM and waits until it has ended.
    pub(crate) fn stop(self) -> Stopped {
        self.kill("-TERM");
        self.wait()
    }
}

impl Stopped {
    /// The folder that was mounted as volume `place`.
    pub(crate) fn volume(&self, place: usize) -> PathBuf {
        volume(self.outside.path(), place)
    }

    /// The first word of a field of the context line.
    pub(crate) fn field(&self, key: &str) -> Option<&str> {
        let line = self.ended.line("Shutdown context: ");
        line.split(' ').find_map(|field| field.strip_prefix(key)?.strip_prefix('='))
    }

    /// The lines of the log that are warnings.
    pub(crate) fn warnings(&self) -> Vec<&str> {
        self.ended.stderr.lines().filter(|line| line.contains(" WARN ")).collect()
    }
}
