//! Networks of containers, with the real plug-ins: who reaches whom, what is published, what is left.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use anyhow::{Context, Result};
use tests::wait_until;

use crate::shell::{PATIENCE, Shell, here};

/// Answers each connection to port 80 with its host name.
const SERVER: &str =
    "while :; do hostname=$(cat /etc/hostname); echo I am $hostname | busybox nc -l -p 80 >/dev/null; done";

/// What a server at `address` says; empty while nobody answers.
fn ask(address: &str) -> String {
    let mut answer = String::new();
    if let Ok(mut stream) = TcpStream::connect(address) {
        let _ = stream.set_read_timeout(Some(std::time::Duration::from_secs(2)));
        let _ = stream.write_all(b"\n");
        let _ = stream.read_to_string(&mut answer);
    }
    answer
}

fn address(shell: &Shell, name: &str) -> Result<String> {
    let container = shell.container(name)?.context("the container")?;
    let address = container["addresses"][0].as_str().context("an address")?.to_owned();
    Ok(address.split('/').next().unwrap_or_default().to_owned())
}

/// The port of this machine that leads to port 80 of a container.
fn published(shell: &Shell, name: &str) -> Result<String> {
    let container = shell.container(name)?.context("the container")?;
    let ports = container["ports"].as_str().context("its ports")?;
    let port = ports.split("->").next().and_then(|host| host.rsplit(':').next()).context("a port")?;
    Ok(port.to_owned())
}

#[test]
fn a_published_port_answers_from_here_and_is_free_again_afterwards() -> Result<()> {
    let shell = Shell::new()?;
    shell.detached("web", &["-p", "127.0.0.1::80", "--hostname", "server"], SERVER)?;
    let at = format!("127.0.0.1:{}", published(&shell, "web")?);
    wait_until("the server answers", PATIENCE, || ask(&at) == "I am server\n")?;

    // Another container with the same port is refused by name.
    let taken = shell.run(&["-p", &format!("{at}:80")], &["true"])?;
    assert_eq!(taken.code, Some(125));
    assert!(taken.stderr.contains("web"), "{}", taken.stderr);

    shell.engine.ok(["rm", "-f", "web"])?;
    wait_until("the port is closed", PATIENCE, || ask(&at).is_empty())?;
    shell.assert_nothing_left()?;
    assert_no_rules(&at)
}

/// No firewall rule speaks of the published address any more.
fn assert_no_rules(address: &str) -> Result<()> {
    let port = address.rsplit(':').next().unwrap_or_default();
    let rules = here("iptables", &["-t", "nat", "-S"])?;
    assert!(!rules.contains(&format!("--dport {port} ")), "{rules}");
    Ok(())
}

#[test]
fn a_port_that_a_program_listens_on_is_refused() -> Result<()> {
    let shell = Shell::new()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let end = shell.run(&["-p", &format!("127.0.0.1:{port}:80")], &["true"])?;
    assert_eq!(end.code, Some(125));
    assert!(
        end.stderr.contains(&port.to_string()) && end.stderr.contains("a program of this machine"),
        "{}",
        end.stderr
    );
    shell.assert_nothing_left()
}

#[test]
fn containers_of_the_bridge_reach_each_other_and_know_their_names() -> Result<()> {
    let shell = Shell::new()?;
    shell.detached("first", &["--net", "bridge"], SERVER)?;
    let first = address(&shell, "first")?;
    let dns =
        ["--net", "bridge", "--dns", "192.0.2.53", "--dns-search", "example", "--add-host", "db:192.0.2.7"];
    let script = format!(
        "until busybox nc -w 2 {first} 80 </dev/null | grep I; do sleep 0.1; done; cat /etc/resolv.conf; \
         grep -c \"$(cat /etc/hostname)\" /etc/hosts; grep db /etc/hosts"
    );
    let end = shell.script(&dns, &script)?;
    assert_eq!(
        end.stdout, "I am first\nsearch example\nnameserver 192.0.2.53\n1\n192.0.2.7\tdb\n",
        "{}",
        end.stderr
    );
    // The network of another container is that container's.
    let script = "busybox ip -4 addr show eth0 | grep inet | awk '{print $2}'; cat /etc/hostname";
    let joined = shell.script(&["--net", "container:first"], script)?;
    assert!(
        joined.stdout.starts_with(&first) && joined.stdout.ends_with("first\n"),
        "{}{}",
        joined.stdout,
        joined.stderr
    );
    shell.engine.ok(["rm", "-f", "first"])?;
    shell.assert_nothing_left()
}

#[test]
fn none_has_loopback_alone_and_host_is_this_machines() -> Result<()> {
    let shell = Shell::new()?;
    let interfaces = "ls /sys/class/net; cat /sys/class/net/lo/operstate";
    let none = shell
        .script(&[], "busybox ip -o link | awk '{print $2}'; busybox ip -o link show lo | grep -c UP")?;
    assert_eq!(none.stdout, "lo:\n1\n", "{}", none.stderr);
    let host = shell.script(&["--net", "host"], "readlink /proc/self/ns/net")?;
    let ours = std::fs::read_link("/proc/self/ns/net")?;
    // busybox of the image may lack readlink as a name: then the list of interfaces is compared.
    if host.code == Some(0) {
        assert_eq!(host.stdout.trim(), ours.to_string_lossy());
    } else {
        let host = shell.script(&["--net", "host"], interfaces)?;
        assert_eq!(host.stdout, here("sh", &["-c", interfaces])?);
    }
    shell.assert_nothing_left()
}

#[test]
fn the_network_of_a_container_that_died_without_a_daemon_is_swept_by_the_next() -> Result<()> {
    let mut shell = Shell::new()?;
    // The daemon that a command started is not ours to kill: one of our own takes its place.
    for pid in shell.engine.processes() {
        here("kill", &["-KILL", &pid.to_string()])?;
    }
    wait_until("the first daemon is gone", PATIENCE, || shell.engine.processes().is_empty())?;
    shell.engine.start_daemon()?;
    shell.detached("web", &["-p", "127.0.0.1::80"], SERVER)?;
    let at = format!("127.0.0.1:{}", published(&shell, "web")?);
    let pid = shell.container("web")?.context("it")?["pid"].as_i64().context("its process")?;
    let directory = shell.engine.state().join("network/containers/default/web");
    assert!(directory.join("netns").exists());

    shell.engine.kill_daemon()?;
    // The container does not notice.
    wait_until("the server answers", PATIENCE, || ask(&at).starts_with("I am"))?;
    here("kill", &["-KILL", &pid.to_string()])?;
    shell.engine.start_daemon()?;
    wait_until("the network is gone", PATIENCE, || !directory.exists())?;
    assert_no_rules(&at)?;
    shell.engine.ok(["rm", "web"])?;
    shell.assert_nothing_left()
}

#[test]
fn ten_containers_at_once_have_ten_addresses() -> Result<()> {
    let shell = Shell::new()?;
    let script = "busybox ip -4 addr show eth0 | grep inet | awk '{print $2}'";
    let ends: Vec<_> = std::thread::scope(|scope| {
        let runs: Vec<_> =
            (0..10).map(|_| scope.spawn(|| shell.script(&["--net", "bridge"], script))).collect();
        runs.into_iter().map(|run| run.join().expect("no panic")).collect::<Result<_>>()
    })?;
    let mut addresses: Vec<_> = ends.iter().map(|end| end.stdout.trim().to_owned()).collect();
    assert!(
        addresses.iter().all(|address| address.starts_with("10.86.")),
        "{addresses:?} {}",
        ends[0].stderr
    );
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 10, "{addresses:?}");
    shell.assert_nothing_left()?;
    // The last one takes the bridge away.
    let bridges = here("ip", &["-o", "link", "show", "type", "bridge"])?;
    let state = shell.engine.state().join("network/bridge.json");
    let bridge: serde_json::Value = serde_json::from_slice(&std::fs::read(state)?)?;
    assert!(!bridges.contains(bridge["interface"].as_str().context("its name")?), "{bridges}");
    Ok(())
}
