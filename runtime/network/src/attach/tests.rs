use super::*;
use std::os::unix::fs::PermissionsExt;

/// A directory with a plug-in `fake` that appends what it is asked to `calls` and answers with one address, unless `refuse`
/// is there; and a network `net` of two of them.
struct World {
    directory: tempfile::TempDir,
    network: Network,
}

const FAKE: &str = r#"#!/bin/sh
here=$(dirname "$0")
echo "$CNI_COMMAND $CNI_CONTAINERID $CNI_NETNS $(cat)" >> "$here/calls"
if [ -e "$here/refuse-$CNI_COMMAND" ]; then
  echo '{"code":11,"msg":"no more addresses","details":"the pool is empty"}'
  exit 1
fi
[ "$CNI_COMMAND" = ADD ] && echo '{"cniVersion":"1.0.0","ips":[{"address":"10.9.0.2/24","gateway":"10.9.0.1"}],"dns":{"nameservers":["10.9.0.1"]}}'
exit 0
"#;

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let plugin = path.join("fake");
        fs::write(&plugin, FAKE).unwrap();
        fs::set_permissions(&plugin, fs::Permissions::from_mode(0o755)).unwrap();
        let list = r#"{"cniVersion":"1.0.0","name":"net","plugins":[
            {"type":"fake","n":1},{"type":"fake","n":2,"capabilities":{"portMappings":true}}]}"#;
        fs::write(path.join("net.conflist"), list).unwrap();
        let network = Self::network(path);
        Self { directory, network }
    }

    fn network(path: &Path) -> Network {
        Network::new(Place::with(path, vec![path.to_owned()], path))
    }

    fn request(&self, id: &str, kind: &str) -> NetworkRequest {
        NetworkRequest {
            namespace: "default".to_owned(),
            id: id.to_owned(),
            kind: kind.parse().unwrap(),
            hostname: id.to_owned(),
            ..NetworkRequest::default()
        }
    }

    fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.directory.path().join("calls")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn assert_nothing_left(&self) {
        let prefix = self.directory.path().to_str().unwrap().to_owned();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains(&prefix), "{mounts}");
        assert!(self.network.known().is_empty());
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = mount::unmount_under(self.directory.path());
    }
}

#[test]
fn a_container_is_attached_by_every_plug_in_and_detached_by_all_backwards() {
    let world = World::new();
    let mut request = world.request("web", "net");
    request.ports = Port::parse("127.0.0.1::80").unwrap();
    request.hosts = vec!["gate:host-gateway".to_owned()];
    let attached = world.network.attach(&request).unwrap();
    assert_eq!(attached.addresses, ["10.9.0.2/24"]);
    assert_ne!(attached.ports[0].host_port, 0);
    let netns = attached.netns.clone().unwrap();
    assert!(!network::is_same(&netns, Path::new("/proc/self/ns/net")).unwrap());
    let read = |at: usize| fs::read_to_string(&attached.files[at].source).unwrap();
    assert!(read(0).ends_with("10.9.0.1\tgate\n10.9.0.2\tweb\n"), "{}", read(0));
    assert!(read(1).contains("nameserver 10.9.0.1\n"), "{}", read(1));
    let status = world.network.status("default", "web").unwrap();
    assert_eq!((status.kind.as_str(), status.addresses.len()), ("net", 1));
    world.network.check("default", "web").unwrap();
    assert!(matches!(world.network.attach(&request), Err(NetworkError::Attached { .. })));

    world.network.detach("default", "web").unwrap();
    world.network.detach("default", "web").unwrap();
    let calls = world.calls();
    let verbs: Vec<_> = calls.iter().map(|call| call.split(' ').next().unwrap()).collect();
    assert_eq!(verbs, ["ADD", "ADD", "CHECK", "CHECK", "DEL", "DEL"]);
    assert!(calls[1].contains(r#""portMappings""#) && calls[1].contains(r#""prevResult""#), "{}", calls[1]);
    assert!(!calls[0].contains("portMappings"));
    assert!(calls[4].contains(r#""n":2"#) && calls[5].contains(r#""n":1"#), "{calls:?}");
    assert!(calls[5].contains(r#""prevResult""#), "{}", calls[5]);
    world.assert_nothing_left();
}

/// Whoever sees a container end detaches it: the engine's watch and the client that removes it came at the same time, called
/// every plug-in twice, and one of them failed at the other's unmounting.
#[test]
fn two_who_detach_one_container_call_its_plug_ins_once() {
    let world = World::new();
    world.network.attach(&world.request("web", "net")).unwrap();
    std::thread::scope(|scope| {
        let detach = || world.network.detach("default", "web").unwrap();
        for _ in 0..4 {
            scope.spawn(detach);
        }
    });
    assert_eq!(world.calls().iter().filter(|call| call.starts_with("DEL")).count(), 2);
    world.assert_nothing_left();
}

#[test]
fn a_plug_in_that_refuses_is_quoted_and_leaves_nothing() {
    let world = World::new();
    fs::write(world.directory.path().join("refuse-ADD"), "").unwrap();
    let error = world.network.attach(&world.request("web", "net")).unwrap_err().to_string();
    assert!(error.contains("no more addresses: the pool is empty"), "{error}");
    assert!(world.calls().iter().filter(|call| call.starts_with("DEL")).count() == 2);
    world.assert_nothing_left();
}

#[test]
fn what_a_crash_left_is_swept_by_the_next_engine_and_the_living_stay() {
    let world = World::new();
    for id in ["dead", "alive"] {
        world.network.attach(&world.request(id, "net")).unwrap();
    }
    let next = World::network(world.directory.path());
    assert_eq!(next.sweep(|_, id| id == "alive"), 1);
    assert_eq!(next.known(), [("default".to_owned(), "alive".to_owned())]);
    // One whose plug-in fails stays for the next time.
    let refuse = world.directory.path().join("refuse-DEL");
    fs::write(&refuse, "").unwrap();
    assert_eq!(next.sweep(|_, _| false), 0);
    fs::remove_file(refuse).unwrap();
    assert_eq!(next.sweep(|_, _| false), 1);
    world.assert_nothing_left();
}

#[test]
fn an_attachment_that_was_cut_short_is_undone_without_its_result() {
    let world = World::new();
    world.network.attach(&world.request("web", "net")).unwrap();
    let directory = world.network.directory("default", "web");
    let mut record = Record::read(&directory).unwrap();
    record.plugins.as_mut().unwrap().result = None;
    record.write(&directory).unwrap();
    // The machine was restarted: the mount is gone too.
    mount::detach(&directory.join("netns")).unwrap();
    world.network.detach("default", "web").unwrap();
    let last = world.calls().pop().unwrap();
    assert!(
        last.starts_with("DEL web-") && !last.contains("prevResult") && !last.contains("netns"),
        "{last}"
    );
    world.assert_nothing_left();
}

#[test]
fn the_network_of_another_container_is_the_same_namespace() {
    let world = World::new();
    let mut request = world.request("second", "container:first");
    assert!(matches!(world.network.attach(&request), Err(NetworkError::NotRunning { .. })));
    request.shared.pid = Some(std::process::id());
    let attached = world.network.attach(&request).unwrap();
    assert!(attached.host, "this process is in the machine's network");
    assert!(network::is_same(&attached.netns.unwrap(), Path::new("/proc/self/ns/net")).unwrap());
    world.network.detach("default", "second").unwrap();
    world.assert_nothing_left();
}

#[test]
fn none_and_host_cost_nothing_unless_names_are_asked_for() {
    let world = World::new();
    assert_eq!(world.network.attach(&world.request("a", "none")).unwrap(), Attached::default());
    assert!(world.network.attach(&world.request("a", "host")).unwrap().host);
    world.assert_nothing_left();
    let mut request = world.request("a", "none");
    request.hosts = vec!["db:10.0.0.7".to_owned()];
    assert_eq!(world.network.attach(&request).unwrap().files.len(), 3);
    world.network.detach("default", "a").unwrap();
    for text in ["db", ":1.2.3.4", "db:nowhere", "a b:1.2.3.4", "gate:host-gateway"] {
        request.hosts = vec![text.to_owned()];
        let error = world.network.attach(&request).unwrap_err();
        assert!(error.to_string().contains(text) && error.is_bad_request(), "{error}");
    }
    request.hosts.clear();
    request.ports = Port::parse("80:80").unwrap();
    assert!(matches!(world.network.attach(&request), Err(NetworkError::NoPorts { .. })));
    world.assert_nothing_left();
}

#[test]
fn a_network_that_is_not_there_and_a_plug_in_that_is_not_there_are_told() {
    let world = World::new();
    let error = world.network.attach(&world.request("web", "nowhere")).unwrap_err();
    assert!(error.to_string().contains("known are net, bridge"), "{error}");
    fs::remove_file(world.directory.path().join("fake")).unwrap();
    let error = world.network.attach(&world.request("web", "net")).unwrap_err();
    assert!(error.to_string().contains("containernetworking-plugins"), "{error}");
    world.assert_nothing_left();
}
