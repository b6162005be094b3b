//! Runs the configurations of docs/recipes.md: supervisord itself, and what docker compose would
//! start.

#![allow(clippy::unwrap_used)] // A test's unwrap is an assertion.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use forensics_tests::{Ended, Program, can, example, kill, outcomes, page, until, until_guarded};
use forensics_tokio::core::context::{PLATFORMS, Platform};
use forensics_tokio::core::duration::{Timespan, parse};
use forensics_tokio::core::record::PostMortem;
use forensics_tokio::testing::Process;

/// A real supervisord, with a configuration like a distribution's and the section of a program.
struct Supervisor {
    program: Program,
    configuration: String,
    _dir: tempfile::TempDir,
}

impl Supervisor {
    /// Starts it, and waits until the gateway listens.
    fn start(section: &str) -> Self {
        // supervisord may change its user, who must be able to read this folder.
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let home = dir.path().to_str().unwrap();
        let configuration = format!("{home}/supervisord.conf");
        // The gateway's output goes to supervisord's output, so that the test can read it.
        let text = format!(
            "[supervisord]\nnodaemon=true\nsilent=true\nlogfile=/dev/null\nlogfile_maxbytes=0\n\
             pidfile={home}/pid\nchildlogdir={home}\n\
             [unix_http_server]\nfile={home}/socket\n\
             [rpcinterface:supervisor]\n\
             supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n\
             [supervisorctl]\nserverurl=unix://{home}/socket\n\
             {section}\n\
             stdout_logfile=/dev/fd/1\nstdout_logfile_maxbytes=0\n\
             stderr_logfile=/dev/fd/2\nstderr_logfile_maxbytes=0\n"
        );
        fs::write(&configuration, text).unwrap();
        let mut command = Command::new("supervisord");
        let program = Program::start(command.args(["-c", &configuration]));
        program.wait_for_stdout("listening on http://");
        Self { program, configuration, _dir: dir }
    }

    fn control(&self, arguments: &[&str]) -> Output {
        let mut control = Command::new("supervisorctl");
        control.args(["-c", &self.configuration]).args(arguments).output().unwrap()
    }

    /// Waits until `supervisorctl status` shows this.
    fn wait_for_state(&self, state: &str) {
        until(state, || {
            let status = self.control(&["status", "gateway"]);
            String::from_utf8_lossy(&status.stdout).contains(state)
        });
    }
}

#[test]
fn under_supervisord_it_is_stopped_by_its_supervisor_within_the_grace_period() {
    if !can(Command::new("supervisord").arg("--version")) {
        return;
    }
    let records = tempfile::tempdir().unwrap();
    let section = page::blocks("recipes.md", "ini").remove(0);
    let value = |key: &str| {
        let values = section.lines().filter_map(|line| line.strip_prefix(key));
        values.map(str::to_owned).next().unwrap_or_else(|| panic!("no {key}"))
    };
    let (waits, grace) = (value("stopwaitsecs="), value("environment=FORENSICS_STOP_TIMEOUT=\""));
    assert_eq!(grace.split_once('"').unwrap().0, format!("{waits}s"));

    let gateway = example("gateway");
    let section = section
        .replace("/usr/local/bin/gateway", &format!("{} --listen 127.0.0.1:0", gateway.display()))
        .replace("/var/lib/gateway/shutdown", records.path().to_str().unwrap());
    let supervisor = Supervisor::start(&section);
    supervisor.wait_for_state("RUNNING");
    let stopped = supervisor.control(&["stop", "gateway"]);
    assert!(stopped.status.success(), "{stopped:?}");
    let verdict = PostMortem::of_last(records.path()).unwrap().unwrap();
    assert!(verdict.is_clean(), "{verdict}");
    assert_eq!(verdict.cause.as_deref(), Some("supervisor"), "{verdict}");

    // Status 0 is a planned end. So it is not started again, even if a signal of another sender
    // stopped it.
    assert!(supervisor.control(&["start", "gateway"]).status.success());
    let pid = supervisor.control(&["pid", "gateway"]);
    let pid = String::from_utf8(pid.stdout).unwrap();
    until_guarded(pid.trim().parse().unwrap());
    assert!(Command::new("/bin/kill").arg(pid.trim()).status().unwrap().success());
    supervisor.wait_for_state("EXITED");

    supervisor.program.kill("-TERM");
    let ended = supervisor.program.wait();
    let well = outcomes(["ok", "ok", "ok", "ok"]);
    assert_eq!(ended.phases(), [well.clone(), well].concat(), "{}", ended.stderr);
    assert!(ended.line("Teardown started").contains("deadline 45.00s"), "{}", ended.stderr);
}

#[test]
fn the_compose_file_has_valid_options_and_variables() {
    if !page::can_read_yaml() {
        return;
    }
    let compose = page::yaml("recipes.md").remove(0);
    let service = &compose["services"]["gateway"];
    let environment = service["environment"].as_object().unwrap();
    assert_eq!(service["stop_grace_period"], environment["FORENSICS_STOP_TIMEOUT"]);
    let span = |name: &str| parse(environment[name].as_str().unwrap()).unwrap().to_std().unwrap();
    assert!(span("FORENSICS_DRAIN_TIMEOUT") < span("FORENSICS_STOP_TIMEOUT"));
    // The record is in a volume, which outlives the container.
    let mounts = service["volumes"].as_array().unwrap();
    let place = environment["FORENSICS_RECORD_DIR"].as_str().unwrap();
    let (volume, _) = mounts[0].as_str().unwrap().split_once(&format!(":{place}")).unwrap();
    assert!(compose["volumes"].get(volume).is_some());

    // If the command were a string, a shell would be process 1.
    let command = service["command"].as_array().unwrap();
    let arguments: Vec<_> = command.iter().map(|argument| argument.as_str().unwrap()).collect();
    let [program, arguments @ ..] = &arguments[..] else { panic!("no command") };
    assert_eq!(Path::new(program).file_name().unwrap(), "gateway");
    let records = tempfile::tempdir().unwrap();
    let variables = environment.iter().map(|(name, value)| match name.as_str() {
        "FORENSICS_RECORD_DIR" => (name, records.path().to_str().unwrap()),
        _ => (name, value.as_str().unwrap()),
    });
    // Only the port is changed.
    let arguments = arguments.iter().map(|argument| argument.replace(":8080", ":0"));
    let mut gateway = Command::new(example("gateway"));
    gateway.args(arguments).envs(variables);
    let gateway = Process::start(&mut gateway);
    gateway.wait_for_stdout("listening on http://");
    kill(&gateway, "-TERM");
    let ended = Ended(gateway.wait());
    ended.assert_well(0);
    let configured = ended.line("Configured by the environment");
    for name in environment.keys() {
        assert!(configured.contains(&format!("{name}=")), "{configured}");
    }
    assert!(PostMortem::of_last(records.path()).unwrap().unwrap().is_clean());
}

#[test]
fn the_page_about_platforms_has_what_the_program_says() {
    let page =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/platforms.md")).unwrap();
    for platform in &PLATFORMS {
        let row = page.lines().find(|line| line.starts_with(&format!("| {} |", platform.name)));
        let row: Vec<_> = row.expect(platform.name).split(" | ").collect();
        assert_eq!(row[1], format!("`{}`", platform.variable));
        assert_eq!(parse(row[3]).unwrap(), platform.stop_timeout.into());
        assert_eq!(row[4], platform.setting.unwrap_or("it cannot be changed"));
        assert_eq!(row[5], format!("<{}> |", platform.source));
    }
}

#[test]
fn a_platform_is_named_and_its_default_stop_timeout_is_a_hint() {
    let run = |platform: &Platform, stop_timeout: Option<&str>| {
        let mut command = Command::new(example("gateway"));
        command
            .env(platform.variable, "x")
            .envs(stop_timeout.map(|it| ("FORENSICS_STOP_TIMEOUT", it)));
        let gateway = Program::gateway_by(&mut command).program;
        gateway.kill("-TERM");
        gateway.wait()
    };
    for platform in &PLATFORMS {
        let ended = run(platform, None);
        let context = ended.stderr.lines().find(|line| line.contains("Shutdown context:")).unwrap();
        assert!(context.contains(&format!(" platform={} ", platform.id)), "{context}");
        let hint = format!(
            "gateway: on {} (inferred from {}) the default stop timeout is {}, ",
            platform.name,
            platform.variable,
            Timespan::from(platform.stop_timeout),
        );
        assert!(ended.stderr.contains(&hint), "{hint}\n{}", ended.stderr);
        // What the user has set is known, so there is nothing to infer.
        let ended = run(platform, Some("5min"));
        assert!(!ended.stderr.contains("default stop timeout"), "{}", ended.stderr);
    }
}
