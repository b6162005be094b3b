//! The manifests of docs/kubernetes.md: parsed, checked for consistency, and run as the kubelet
//! would run them.

use std::fs;
use std::thread;
use std::time::Duration;

use forensics_tests::{outcomes, page};
use serde_json::Value;

use crate::container::{Container, Running, can_contain};

/// The document of kind `kind` in the page's `yaml` blocks.
fn manifest(kind: &str) -> Value {
    let all = page::yaml("kubernetes.md");
    let found = all.iter().find(|manifest| manifest["kind"] == kind);
    found.unwrap_or_else(|| panic!("no {kind}")).clone()
}

/// A workload, with its only container.
struct Workload {
    spec: Value,
    pod: Value,
    container: Value,
}

impl Workload {
    fn of(kind: &str) -> Self {
        let spec = manifest(kind)["spec"].clone();
        let pod = spec["template"]["spec"].clone();
        assert_eq!(pod["containers"].as_array().unwrap().len(), 1);
        let container = pod["containers"][0].clone();
        Self { spec, pod, container }
    }

    fn arguments(&self) -> Vec<&str> {
        let arguments = self.container["args"].as_array().unwrap().iter();
        arguments.map(|argument| argument.as_str().unwrap()).collect()
    }

    fn option(&self, name: &str) -> Option<&str> {
        let arguments = self.arguments().into_iter();
        let mut values = arguments.filter_map(|argument| {
            argument.strip_prefix("--")?.strip_prefix(name)?.strip_prefix('=')
        });
        values.next()
    }

    /// The port and the path of a probe.
    fn probe(&self, probe: &str) -> (u16, &str) {
        let get = &self.container[probe]["httpGet"];
        let ports = self.container["ports"].as_array().unwrap();
        let port = ports.iter().find(|port| port["name"] == get["port"]).unwrap();
        let port = port["containerPort"].as_u64().unwrap();
        (port.try_into().unwrap(), get["path"].as_str().unwrap())
    }

    /// The container that the kubelet would start, in the pod `shop/NAME`.
    fn container(&self, name: &str) -> Container {
        let fields = [("metadata.name", name), ("metadata.namespace", "shop")];
        let env = self.container["env"].as_array().unwrap().iter().map(|variable| {
            let path = &variable["valueFrom"]["fieldRef"]["fieldPath"];
            let (_, value) = fields.iter().find(|(field, _)| path == field).unwrap();
            (variable["name"].as_str().unwrap().to_owned(), (*value).to_owned())
        });
        let context = &self.pod["securityContext"];
        let mounts = self.container["volumeMounts"].as_array().unwrap().iter();
        Container {
            user: format!("{}:{}", context["runAsUser"], context["runAsGroup"]),
            read_only: self.container["securityContext"]["readOnlyRootFilesystem"] == true,
            env: env.collect(),
            message_path: self.container["terminationMessagePath"].as_str().unwrap().to_owned(),
            volumes: mounts.map(|mount| mount["mountPath"].as_str().unwrap().to_owned()).collect(),
            ..Container::default()
        }
    }
}

#[test]
fn the_settings_of_the_manifests_are_consistent() {
    if !page::can_read_yaml() {
        return;
    }
    for kind in ["Deployment", "StatefulSet"] {
        let workload = Workload::of(kind);
        let labels = &workload.spec["template"]["metadata"]["labels"];
        assert_eq!(&workload.spec["selector"]["matchLabels"], labels, "{kind}");
        let grace = &workload.pod["terminationGracePeriodSeconds"];
        assert_eq!(workload.option("grace").unwrap(), format!("{grace}s"), "{kind}");
        assert!(workload.container["lifecycle"].is_null(), "no preStop: {kind}");

        let (port, path) = workload.probe("readinessProbe");
        assert!(workload.option("listen").unwrap().ends_with(&format!(":{port}")), "{kind}");
        assert_eq!(path, "/readyz");
        assert_eq!(workload.probe("livenessProbe"), (port, "/livez"));

        let mounts = workload.container["volumeMounts"].as_array().unwrap();
        let volumes = workload.pod["volumes"].as_array().into_iter().flatten();
        let claims = workload.spec["volumeClaimTemplates"].as_array().into_iter().flatten();
        let names: Vec<&Value> =
            volumes.map(|it| &it["name"]).chain(claims.map(|it| &it["metadata"]["name"])).collect();
        assert_eq!(names, mounts.iter().map(|mount| &mount["name"]).collect::<Vec<_>>());
        let mount = mounts[0]["mountPath"].as_str().unwrap();
        for option in ["records", "diag-log"] {
            let path = workload.option(option).unwrap_or("/var/lib/gateway/");
            assert!(path.starts_with(&format!("{mount}/")), "{kind}: {option}");
        }
        let message = workload.container["terminationMessagePath"].as_str().unwrap();
        assert_eq!(
            workload.option("termination-message").unwrap_or("/dev/termination-log"),
            message
        );

        assert_eq!(workload.pod["securityContext"]["runAsNonRoot"], true);
        let hardened = &workload.container["securityContext"];
        assert_eq!(hardened["allowPrivilegeEscalation"], false);
        assert_eq!(hardened["readOnlyRootFilesystem"], true);
        assert_eq!(hardened["capabilities"]["drop"][0], "ALL");
    }
}

/// Waits for the pre-stop delay and ends it by a second signal, because there is no load balancer
/// to wait for.
fn end_the_lead(running: &Running) {
    running.program.wait_for_stderr("Pre-stop delay of ");
    // The 200 ms in which signals count as one request are real time.
    thread::sleep(Duration::from_millis(250));
    running.kill("-TERM");
}

#[test]
fn each_manifest_runs_and_stops_as_it_should() {
    if !page::can_read_yaml() || !can_contain() {
        return;
    }
    for kind in ["Deployment", "StatefulSet"] {
        let workload = Workload::of(kind);
        let mut container = workload.container("gateway-0");
        // To end the pre-stop delay.
        container.env.extend(Container::impatient().env);
        let running = container.start(&workload.arguments());
        let status = fs::read_to_string(format!("/proc/{}/status", running.pid)).unwrap();
        for line in ["Uid:\t65532\t65532", "CapEff:\t0000000000000000", "NoNewPrivs:\t1"] {
            assert!(status.contains(line), "{line} in {status}");
        }
        let (port, path) = workload.probe("readinessProbe");
        running.wait_until_ready(port);
        running.kill("-TERM");
        running.program.wait_for_stderr("Pre-stop delay of ");
        assert_eq!(running.get(port, path), Some((503, "stopping".to_owned())));
        let (port, path) = workload.probe("livenessProbe");
        assert_eq!(running.get(port, path), Some((200, "alive".to_owned())));
        end_the_lead(&running);
        let stopped = running.wait();
        let stderr = &stopped.ended.stderr;
        assert_eq!(stopped.ended.code(), 0, "{stderr}");
        assert_eq!(stopped.ended.phases(), outcomes(["ok", "ok", "ok", "ok"]), "{stderr}");
        // Only the second signal is a warning, because the grace period is long enough.
        assert_eq!(stopped.warnings().len(), 1, "{stderr}");
        assert_eq!(stopped.field("pod"), Some("shop/gateway-0"));
        let planned = ", as planned; SIGTERM, cause container_stop";
        assert!(stopped.message.contains(planned), "{}", stopped.message);
        assert_eq!(fs::read_dir(stopped.volume(0).join("shutdown")).unwrap().count(), 1);
        let diagnostic = stopped.volume(0).join("log/shutdown-diag.log").exists();
        assert_eq!(diagnostic, workload.option("diag-log").is_some());
    }
}

#[test]
fn a_container_that_was_killed_and_is_started_again_in_its_pod_says_how_it_ended() {
    if !page::can_read_yaml() || !can_contain() {
        return;
    }
    let workload = Workload::of("Deployment");
    let wedged = [&workload.arguments()[..], &["--wedge", "drain"]].concat();
    let container = workload.container("gateway-0");
    let running = container.start(&wedged);
    running.wait_until_ready(8080);
    running.kill("-TERM");
    end_the_lead(&running);
    running.wait_for_message("\nrunning: drain for ");
    running.kill("-KILL");
    let stopped = running.wait();

    let running = container.start_again(stopped, &workload.arguments());
    let said = running.program.wait_for_stderr("Previous run: ");
    assert!(said.contains("outcome=killed_in_phase"), "{said}");
    assert!(said.contains("phase=drain"), "{said}");
    assert!(said.contains("see Last State in kubectl describe pod gateway-0 -n shop"), "{said}");
    let stopped = running.stop();
    assert_eq!(stopped.ended.code(), 0, "{}", stopped.ended.stderr);
}
