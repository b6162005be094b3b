//! A program with rights that its caller lacks does not trust the caller's environment and arguments.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use forensics_tests::{Program, can, copy_program, example, root_can};

/// The user who calls it.
const CALLER: u32 = 65534;

/// How the program gets its rights: its name, its group, its mode, and the capabilities of its file.
const KINDS: [(&str, u32, u32, Option<&str>); 3] = [
    ("set-user-ID", 0, 0o4755, None),
    ("set-group-ID", 0, 0o2755, None),
    ("capabilities", 0, 0o755, Some("cap_dac_override,cap_sys_ptrace+ep")),
];

/// A copy of the gateway in this folder, with the rights of `kind`.
fn copy(dir: &Path, kind: (&str, u32, u32, Option<&str>)) -> String {
    copy_of(&example("gateway"), dir, kind)
}

/// The same of another program.
fn copy_of(
    program: &Path,
    dir: &Path,
    (name, group, mode, capabilities): (&str, u32, u32, Option<&str>),
) -> String {
    let file = dir.join(name).into_os_string().into_string().unwrap();
    copy_program(program, &file);
    chown(&file, Some(0), Some(group)).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
    if let Some(capabilities) = capabilities {
        assert!(Command::new("setcap").args([capabilities, &file]).status().unwrap().success());
    }
    file
}

/// A folder through which every user can pass.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    dir
}

fn as_caller(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={CALLER}"), format!("--regid={CALLER}")]);
    command.args(["--clear-groups", "--inh-caps=-all", program]);
    command
}

fn can_test() -> bool {
    root_can(as_caller("true").arg("")) && can(Command::new("setcap").arg("-h"))
}

#[test]
fn the_callers_variables_are_ignored_and_it_does_not_start_itself_as_the_diagnostic() {
    if !can_test() {
        return;
    }
    for kind in KINDS {
        let dir = folder();
        let program = copy(dir.path(), kind);
        let at = |name: &str| dir.path().join(name);
        for file in ["message", "log"] {
            fs::write(at(file), "root's own\n").unwrap();
            chown(at(file), Some(0), Some(0)).unwrap();
            fs::set_permissions(at(file), Permissions::from_mode(0o664)).unwrap();
        }
        let mut command = as_caller(&program);
        command.args(["--listen", "127.0.0.1:0", "--diag-log"]).arg(at("diag.log"));
        command.env("FORENSICS_TERMINATION_MESSAGE", at("message"));
        command.env("FORENSICS_DIAG_LOG", at("log"));
        command.env("FORENSICS_DEADLINE", "not a time span");
        // Those with more rights can write here.
        fs::set_permissions(dir.path(), Permissions::from_mode(0o775)).unwrap();
        let gateway = Program::start(&mut command);
        gateway.wait_for_stdout("listening on");
        gateway.kill("-TERM");
        let ended = gateway.wait();
        ended.assert_well(2);
        ended.line("The FORENSICS_ variables are ignored");
        for file in ["message", "log"] {
            assert_eq!(fs::read_to_string(at(file)).unwrap(), "root's own\n", "{}: {file}", kind.0);
        }
        if let Ok(log) = fs::read_to_string(at("diag.log")) {
            assert!(log.contains("does not start itself as the diagnostic"), "{}: {log}", kind.0);
            assert!(!log.contains("--- end of diagnostic"), "{}: {log}", kind.0);
        }
    }
}

#[test]
fn no_caller_gets_the_diagnostic_by_arguments_or_by_a_file() {
    if !can_test() {
        return;
    }
    let dir = folder();
    let order = dir.path().join("order");
    fs::write(&order, format!("shutdown-diagnostic-of {} 1\n", std::process::id())).unwrap();
    let ordinary = example("gateway").into_os_string().into_string().unwrap();
    let programs = KINDS.map(|kind| copy(dir.path(), kind)).into_iter().chain([ordinary]);
    for program in programs {
        for stdin in [Stdio::null(), fs::File::open(&order).unwrap().into()] {
            // As root, because only root can open the folder of the ordinary program.
            let mut command = match program.starts_with(dir.path().to_str().unwrap()) {
                true => as_caller(&program),
                false => Command::new(&program),
            };
            let output = command.args(["shutdown-diagnostic", "1"]).stdin(stdin).output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(!said.contains("--- end of diagnostic"), "{program}: {said}");
            assert!(!output.status.success(), "{program}: {said}");
        }
    }
}

/// A child may have only the rights of the caller, who can then take its descriptors. With that of the log it
/// could remove what is there.
#[test]
fn the_command_of_the_diagnostic_does_not_get_the_log() {
    if !can_test() {
        return;
    }
    for kind in KINDS {
        let dir = folder();
        let program = copy_of(Path::new(env!("CARGO_BIN_EXE_outspoken")), dir.path(), kind);
        fs::set_permissions(dir.path(), Permissions::from_mode(0o775)).unwrap();
        let log = dir.path().join("diag.log");
        let mut command = as_caller(&program);
        let outspoken = Program::start(
            command.args(["concise", "descriptors"]).arg(dir.path().join("records")).arg(&log),
        );
        outspoken.wait_for_stdout("ready");
        outspoken.kill("-TERM");
        outspoken.wait();
        let log = fs::read_to_string(log).unwrap();
        assert!(log.ends_with("--- end of diagnostic\n"), "{}: {log}", kind.0);
        for output in [" 1 -> pipe:", " 2 -> pipe:"] {
            assert!(log.contains(output), "{}: {log}", kind.0);
        }
        assert!(!log.contains("diag.log"), "{}: {log}", kind.0);
    }
}

/// The caller chooses the current folder, and can make links where other users can create files. In a program
/// whose file has a group or capabilities, such a link belongs to the user as whom the program runs.
#[test]
fn no_caller_chooses_the_folder_of_the_record_the_log_and_the_marker() {
    if !can_test() {
        return;
    }
    for kind in KINDS {
        let dir = folder();
        let at = |name: &str| dir.path().join(name);
        let program = copy_of(Path::new(env!("CARGO_BIN_EXE_outspoken")), dir.path(), kind);
        for (name, mode) in [("private", 0o775), ("tmp", 0o1777)] {
            fs::create_dir(at(name)).unwrap();
            fs::set_permissions(at(name), Permissions::from_mode(mode)).unwrap();
        }
        fs::write(at("private/planned.json"), "").unwrap();
        let link = at("tmp/link");
        assert!(
            as_caller("ln").arg("-s").arg(at("private")).arg(&link).status().unwrap().success()
        );
        // One of root's, as a file system of the caller could claim.
        let roots = at("link");
        symlink(at("private"), &roots).unwrap();
        for below in [Path::new(""), &link, &roots] {
            let mut command = as_caller(&program);
            command.current_dir(at("private")).args(["concise", "descriptors"]);
            let outspoken =
                Program::start(command.arg(below.join("records")).arg(below.join("diag.log")));
            outspoken.wait_for_stdout("ready");
            outspoken.kill("-TERM");
            let ended = outspoken.wait();
            let line = ended.line("Shutdown context");
            assert!(!line.contains("planned_marker_present"), "{}: {line}", kind.0);
            let why = if below == Path::new("") { "must be absolute" } else { "the symbolic link" };
            ended.line(why);
            let files = fs::read_dir(at("private")).unwrap().count();
            assert_eq!(files, 1, "{}: {below:?}", kind.0);
        }
    }
}
