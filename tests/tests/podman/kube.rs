//! `podman kube play`, which runs the manifests of Kubernetes.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use forensics_tests::page::{can_read_yaml, yaml};
use forensics_tests::until;
use forensics_tokio::core::record::PostMortem;
use serde_json::{Value, json};

use crate::engine::{Engine, IMAGE, STATE};

/// Plays a manifest. JSON is YAML, too.
fn play(engine: &Engine, manifest: &Value) {
    let mut play = engine.podman(&["kube", "play", "--network=none", "-"]);
    let play = play.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut play = play.spawn().unwrap();
    play.stdin.take().unwrap().write_all(manifest.to_string().as_bytes()).unwrap();
    let output = play.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// The file for the termination message. The kubelet makes it before the container starts.
fn message_file(engine: &Engine) -> std::path::PathBuf {
    let file = engine.shared().join("termination-log");
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    file
}

#[test]
fn the_deployment_of_the_docs_runs_and_stops_with_a_termination_message() {
    if !can_read_yaml() {
        return;
    }
    let Some(engine) = Engine::new() else { return };
    let message = message_file(&engine);
    let mut manifest = yaml("kubernetes.md").remove(0);
    let pod = &mut manifest["spec"]["template"]["spec"];
    let container = &mut pod["containers"][0];
    engine.ok(&["tag", IMAGE, container["image"].as_str().unwrap()]);
    // What podman 4.3 cannot do without a network, without systemd, or at all.
    let fields = container.as_object_mut().unwrap();
    for field in ["ports", "livenessProbe", "readinessProbe"] {
        assert!(fields.remove(field).is_some(), "no {field}");
    }
    let is_namespace = |env: &&mut Value| env["name"] == "POD_NAMESPACE";
    let namespace = container["env"].as_array_mut().unwrap().iter_mut().find(is_namespace);
    *namespace.unwrap() = json!({ "name": "POD_NAMESPACE", "value": "default" });
    // It makes no file for the termination message.
    let path = container["terminationMessagePath"].clone();
    let mounts = container["volumeMounts"].as_array_mut().unwrap();
    mounts.push(json!({ "name": "message", "mountPath": path }));
    let volumes = pod["volumes"].as_array_mut().unwrap();
    volumes.push(json!({ "name": "message", "hostPath": { "path": message, "type": "File" } }));
    manifest["spec"]["replicas"] = json!(1);

    play(&engine, &manifest);
    let (pod, name) = ("gateway-pod-0", "gateway-pod-0-gateway");
    until("it listens", || engine.log(name).contains("listening on"));
    let folder = engine.inspect(name, "{{(index .Mounts 0).Source}}");
    engine.ok(&["pod", "stop", "--time=30", pod]);
    let log = engine.log(name);
    assert_eq!(engine.inspect(name, STATE), "0 false", "{log}");
    assert_eq!(
        engine.inspect(name, "{{.Config.User}} {{.HostConfig.ReadonlyRootfs}}"),
        "65532:65532 true"
    );
    assert!(log.contains("= 55s is needed: aligned"), "{log}");
    assert!(log.contains(" cause=container_stop ") && log.contains(" pod=default/gateway-pod-0 "));
    assert!(log.contains("Pre-stop delay of 5.00s") && log.contains("Diagnostic written"), "{log}");
    assert!(!log.contains(" WARN "), "{log}");
    let message = fs::read_to_string(message).unwrap();
    assert!(message.starts_with("gateway ended in 5."), "{message}");
    assert!(
        message.contains(", exit status 0, as planned; SIGTERM, cause container_stop: "),
        "{message}"
    );
    assert!(message.contains(" pod=default/gateway-pod-0 "), "{message}");
    let verdict = PostMortem::of_last(&Path::new(&folder).join("shutdown")).unwrap().unwrap();
    assert!(verdict.is_clean(), "{verdict}");
}

#[test]
fn after_a_kill_the_termination_message_says_what_was_running() {
    let Some(engine) = Engine::new() else { return };
    let message = message_file(&engine);
    let manifest = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "web" },
        "spec": {
            // podman 4.3 ignores this, so the stop below says it again.
            "terminationGracePeriodSeconds": 2,
            "containers": [{
                "name": "gateway",
                "image": IMAGE,
                "args": ["--records=/var/lib/gateway/shutdown", "--wedge=drain"],
                "env": [{
                    "name": "POD_NAME",
                    "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } },
                }],
                "volumeMounts": [
                    { "name": "shutdown", "mountPath": "/var/lib/gateway" },
                    { "name": "message", "mountPath": "/dev/termination-log" },
                ],
            }],
            "volumes": [
                { "name": "shutdown", "hostPath": { "path": engine.shared() } },
                { "name": "message", "hostPath": { "path": message, "type": "File" } },
            ],
        },
    });
    play(&engine, &manifest);
    until("it listens", || engine.log("web-gateway").contains("listening on"));
    engine.ok(&["pod", "stop", "--time=2", "web"]);
    assert_eq!(engine.inspect("web-gateway", STATE), "137 false");
    let message = fs::read_to_string(message).unwrap();
    assert!(message.starts_with("gateway was stopping, "), "{message}");
    assert!(message.contains("\nrunning: drain for "), "{message}");
    assert!(message.contains("\nphases: notify ok "), "{message}");
    let verdict = engine.verdict();
    assert_eq!(verdict["outcome"], "killed_in_phase", "{verdict}");
    assert_eq!(verdict["phases"][0]["phase"], "drain", "{verdict}");
}
