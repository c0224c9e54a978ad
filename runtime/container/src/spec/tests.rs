use std::collections::HashSet;

use oci_spec::runtime::Capability;
use serde_json::{Value, json};

use super::*;

struct NoFiles;

impl FileLookup for NoFiles {
    fn read(&self, _path: &str) -> Result<Option<Vec<u8>>, LookupError> {
        Ok(None)
    }
}

fn image(config: Value) -> ImageConfig {
    let document = json!({"architecture": "amd64", "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": []}});
    ImageConfig::parse(document.to_string().as_bytes(), 0).unwrap()
}

fn spec_of(config: Value, options: &RunOptions) -> Value {
    serde_json::to_value(build(&image(config), options, &NoFiles).unwrap()).unwrap()
}

#[test]
fn the_command_is_the_entrypoint_with_the_users_words_or_the_images() {
    let config = json!({"Entrypoint": ["/entry", "-e"], "Cmd": ["serve"]});
    let words = |args: &[&str], entrypoint: Option<&[&str]>| {
        let owned = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let options =
            RunOptions { args: owned(args), entrypoint: entrypoint.map(owned), ..RunOptions::default() };
        build(&image(config.clone()), &options, &NoFiles)
            .map(|spec| spec.process().clone().unwrap().args().clone().unwrap())
    };
    assert_eq!(words(&[], None).unwrap(), ["/entry", "-e", "serve"]);
    assert_eq!(words(&["ls", "-l"], None).unwrap(), ["/entry", "-e", "ls", "-l"]);
    assert_eq!(words(&[], Some(&["sh"])).unwrap(), ["sh"]);
    assert_eq!(words(&["-c", "x"], Some(&["sh"])).unwrap(), ["sh", "-c", "x"]);
    assert!(matches!(words(&[], Some(&[])), Err(SpecError::NoCommand)));
    assert!(matches!(words(&["a\0b"], None), Err(SpecError::Nul { what: "argument", .. })));
}

#[test]
fn the_environment_is_the_images_changed_by_the_users() {
    let config = json!({"Cmd": ["x"], "Env": ["A=1", "B=2", "PATH=/bin", "A=3"]});
    let options = RunOptions {
        env: ["B", "C=x=y", "A=4"].map(str::to_owned).to_vec(),
        terminal: true,
        ..RunOptions::default()
    };
    assert_eq!(
        spec_of(config, &options)["process"]["env"],
        json!(["A=4", "PATH=/bin", "C=x=y", "TERM=xterm"])
    );
    let bare = spec_of(json!({"Cmd": ["x"]}), &RunOptions::default());
    assert_eq!(bare["process"]["env"], json!([format!("PATH={}", super::command::PATH_DEFAULT)]));
}

#[test]
fn a_users_relative_directory_is_refused_and_an_images_is_taken_from_the_root() {
    let options = RunOptions { cwd: Some("tmp".into()), ..RunOptions::default() };
    let result = build(&image(json!({"Cmd": ["x"]})), &options, &NoFiles);
    assert!(matches!(result, Err(SpecError::Relative { what: "working directory", .. })));
    let spec = spec_of(json!({"Cmd": ["x"], "WorkingDir": "srv/app"}), &RunOptions::default());
    assert_eq!(spec["process"]["cwd"], "/srv/app");
}

#[test]
fn vuln_r9_nothing_is_inheritable_or_ambient() {
    for privileged in [false, true] {
        let options = RunOptions { privileged, ..RunOptions::default() };
        let spec = spec_of(json!({"Cmd": ["x"]}), &options);
        let sets = spec["process"]["capabilities"].as_object().unwrap();
        let names: HashSet<&str> = sets.keys().map(String::as_str).collect();
        assert_eq!(names, HashSet::from(["bounding", "effective", "permitted"]));
    }
}

#[test]
fn the_default_capabilities_are_containerds_fourteen() {
    let set = defaults::capabilities();
    assert_eq!(set.len(), 14);
    for absent in
        [Capability::SysAdmin, Capability::NetAdmin, Capability::SysPtrace, Capability::DacReadSearch]
    {
        assert!(!set.contains(&absent));
    }
}

#[test]
fn vuln_r15_labels_and_annotations_of_an_image_reach_nothing() {
    let config = json!({"Cmd": ["x"], "Labels": {
        "io.containerd.runc.v2.group": "g", "containerd.io/snapshot.ref": "s", "io.cri-containerd.kind": "k",
        "windlass.io/ephemeral": "1", "run.oci.hooks.stdout": "/host", "org.criu.config": "/host"},
        "Volumes": {"/../../etc": {}}, "StopSignal": "9"});
    let with = spec_of(config, &RunOptions::default());
    let without = spec_of(json!({"Cmd": ["x"]}), &RunOptions::default());
    let comparable = |mut spec: Value| {
        // Sets are written in any order.
        for name in ["bounding", "effective", "permitted"] {
            spec["process"]["capabilities"][name] = Value::Null;
        }
        spec
    };
    assert_eq!(comparable(with.clone()), comparable(without));
    assert!(with.get("annotations").is_none() && with.get("hooks").is_none());
}

#[test]
fn vuln_r18_power_readings_and_kernel_internals_are_hidden() {
    let spec = spec_of(json!({"Cmd": ["x"]}), &RunOptions::default());
    let masked: Vec<&str> =
        spec["linux"]["maskedPaths"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    for path in
        ["/sys/devices/virtual/powercap", "/sys/firmware", "/proc/kcore", "/proc/keys", "/proc/timer_list"]
    {
        assert!(masked.contains(&path), "{path}");
    }
    assert!(spec["linux"]["readonlyPaths"].as_array().unwrap().contains(&json!("/proc/sys")));
    assert_eq!(spec["process"]["noNewPrivileges"], true);
}

#[test]
fn vuln_r19_devices_are_denied_unless_listed() {
    let spec = spec_of(json!({"Cmd": ["x"]}), &RunOptions::default());
    let rules = spec["linux"]["resources"]["devices"].as_array().unwrap();
    assert_eq!(rules[0], json!({"allow": false, "access": "rwm"}));
    assert!(rules[1..].iter().all(|rule| rule["type"] == "c" && rule["major"].is_i64()));
}

#[test]
fn the_hosts_network_comes_only_when_asked_for() {
    let kinds = |net_host| {
        let spec = spec_of(json!({"Cmd": ["x"]}), &RunOptions { net_host, ..RunOptions::default() });
        let list = spec["linux"]["namespaces"].as_array().unwrap().clone();
        let mounts =
            spec["mounts"].as_array().unwrap().iter().any(|mount| mount["destination"] == "/etc/hosts");
        (list.iter().any(|namespace| namespace["type"] == "network"), mounts)
    };
    assert_eq!(kinds(false), (true, false));
    assert_eq!(kinds(true), (false, Path::new("/etc/hosts").exists()));
}

#[test]
fn a_bind_without_a_kind_is_made_one() {
    let mount = MountOption { source: "/srv".into(), destination: "/data".into(), ..MountOption::default() };
    let options = RunOptions { mounts: vec![mount], ..RunOptions::default() };
    let spec = spec_of(json!({"Cmd": ["x"]}), &options);
    assert_eq!(
        spec["mounts"].as_array().unwrap().last().unwrap(),
        &json!({"destination": "/data", "type": "bind", "source": "/srv", "options": ["rbind"]})
    );
    let mount = MountOption { destination: "data".into(), ..MountOption::default() };
    let options = RunOptions { mounts: vec![mount], ..RunOptions::default() };
    assert!(build(&image(json!({"Cmd": ["x"]})), &options, &NoFiles).is_err());
}

#[test]
fn a_placed_spec_names_root_cgroup_and_host() {
    let mut spec = build(&image(json!({"Cmd": ["x"]})), &RunOptions::default(), &NoFiles).unwrap();
    place(&mut spec, "default", "c1", Path::new("/somewhere/rootfs"));
    set_console_size(&mut spec, 24, 80);
    let value = serde_json::to_value(spec).unwrap();
    assert_eq!(value["root"]["path"], "/somewhere/rootfs");
    assert_eq!(value["linux"]["cgroupsPath"], "/windlass/default/c1");
    assert_eq!(value["hostname"], "c1");
    assert_eq!(value["process"]["consoleSize"], json!({"height": 24, "width": 80}));
}

#[test]
fn privileged_means_no_filter_and_nothing_hidden() {
    let spec = spec_of(json!({"Cmd": ["x"]}), &RunOptions { privileged: true, ..RunOptions::default() });
    for gone in ["seccomp", "maskedPaths", "readonlyPaths"] {
        assert!(spec["linux"].get(gone).is_none(), "{gone}");
    }
    assert_eq!(spec["linux"]["resources"]["devices"], json!([{"allow": true, "access": "rwm"}]));
}
