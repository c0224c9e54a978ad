//! Statuses: none is lost, whoever dies.

use prost::Message;
use runtime_api::any;
use runtime_api::containerd::events::TaskExit;
use runtime_api::containerd::task::v2::DeleteResponse;
use runtime_ttrpc::Client;
use storage_sys::process::Pidfd;

use crate::support::{Daemon, Task, eventually};

#[test]
fn the_statuses_of_many_short_execs_at_once_are_all_right() {
    let daemon = Daemon::new();
    let task = daemon.created("sleep 1000");
    task.start("").unwrap();
    std::thread::scope(|scope| {
        for lane in 0..4_u32 {
            let task = &task;
            scope.spawn(move || {
                for number in 0..5_u32 {
                    let code = lane * 5 + number;
                    let name = format!("e{code}");
                    task.exec(&name, &format!("exit {code}")).unwrap();
                    task.start(&name).unwrap();
                    assert_eq!(task.wait(&name).unwrap(), code);
                    assert_eq!(task.delete(&name).unwrap().exit_status, code);
                }
            });
        }
    });
    task.kill("", 9, false).unwrap();
    task.wait("").unwrap();
    task.delete("").unwrap();
    let mut told: Vec<u32> = daemon.hear("twenty ends", |heard| {
        let ends: Vec<u32> = heard
            .iter()
            .filter_map(|envelope| any::unpack::<TaskExit>(envelope.event.as_ref()?).ok())
            .filter(|exit| exit.id != exit.container_id)
            .map(|exit| exit.exit_status)
            .collect();
        (ends.len() == 20).then_some(ends)
    });
    told.sort_unstable();
    assert_eq!(told, (0..20).collect::<Vec<_>>(), "each once");
    task.shutdown();
    task.assert_clean();
}

#[test]
fn a_storm_of_orphans_that_die_does_not_hide_the_one_that_matters() {
    let daemon = Daemon::new();
    // Without a process namespace of its own, what it leaves behind becomes the shim's.
    let (id, bundle) = daemon.bundle("for i in $(seq 1 300); do (sleep 0 &) ; done; exit 9", |spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "pid");
    });
    let task = daemon.task(&id, &bundle);
    task.create(|_| {}).unwrap();
    task.start("").unwrap();
    assert_eq!(task.wait("").unwrap(), 9);
    let shim = std::fs::read_to_string(bundle.join("shim.pid")).unwrap();
    eventually("no zombie is left", || {
        let path = format!("/proc/{shim}/task/{shim}/children");
        std::fs::read_to_string(path).is_ok_and(|children| children.trim().is_empty())
    });
    task.delete("").unwrap();
    task.shutdown();
    task.assert_clean();
}

#[test]
fn what_a_first_process_leaves_behind_ends_with_it_also_without_a_process_namespace() {
    let daemon = Daemon::new();
    let (id, bundle) = daemon.bundle("sleep 1000 & exit 4", |spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "pid");
    });
    let task = daemon.task(&id, &bundle);
    task.create(|_| {}).unwrap();
    task.start("").unwrap();
    assert_eq!(task.wait("").unwrap(), 4);
    task.delete("").unwrap();
    task.shutdown();
    task.assert_clean();
}

#[test]
fn a_daemon_that_comes_back_finds_states_and_statuses() {
    let daemon = Daemon::new();
    let task = daemon.created("exit 6");
    task.start("").unwrap();
    task.wait("").unwrap();
    let address = std::fs::read_to_string(task.bundle.join("address")).unwrap();
    let Task { id, bundle, client, .. } = task;
    drop(client);
    let client = Client::connect(runtime_ttrpc::socket_of(&address)).unwrap();
    let task = Task { daemon: &daemon, id, bundle, client };
    assert_eq!(task.state("").unwrap().exit_status, 6);
    assert_eq!(task.wait("").unwrap(), 6);
    task.delete("").unwrap();
    task.shutdown();
}

#[test]
fn what_a_killed_shim_leaves_is_taken_away_by_delete_more_than_once() {
    let daemon = Daemon::new();
    let task = daemon.created("sleep 1000");
    let pid = task.start("").unwrap();
    let shim: u32 = std::fs::read_to_string(task.bundle.join("shim.pid")).unwrap().parse().unwrap();
    Pidfd::open(shim).unwrap().signal(9).unwrap();
    eventually("the connection ends", || task.client.is_closed());
    for _ in 0..2 {
        let bundle = task.bundle.display().to_string();
        let output = daemon.program(&task.id, &task.bundle, &["-bundle", &bundle, "delete"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let response = DeleteResponse::decode(output.stdout.as_slice()).unwrap();
        assert_eq!((response.exit_status, response.pid), (137, pid));
    }
    eventually("the process is gone", || Pidfd::open(pid).is_err());
    task.assert_clean();
    // A new shim takes the dead one's socket over.
    let again = daemon.task(&task.id, &task.bundle);
    again.create(|_| {}).unwrap();
    again.delete("").unwrap();
    again.shutdown();
}

#[test]
fn a_shim_is_small() {
    let daemon = Daemon::new();
    let task = daemon.created("sleep 1000");
    task.start("").unwrap();
    let shim = std::fs::read_to_string(task.bundle.join("shim.pid")).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{shim}/status")).unwrap();
    let resident: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .unwrap()
        .parse()
        .unwrap();
    // 4.0 MB measured, of which 0.4 MB are its own and the rest is the program's text.
    assert!(resident < 5 * 1024, "{resident} kB");
    task.kill("", 9, false).unwrap();
    task.wait("").unwrap();
    task.delete("").unwrap();
    task.shutdown();
}
