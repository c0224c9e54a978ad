//! Tasks from `Create` to `Delete`, and what is refused on the way.

use prost_types::Any;
use runtime_api::any;
use runtime_api::containerd::task::v2 as wire;
use runtime_api::containerd::v1::types::Status;
use runtime_api::io::containerd::cgroups::v1::Metrics;
use runtime_ttrpc::Code;
use serde_json::json;

use crate::support::{Daemon, eventually};

#[test]
fn a_task_goes_through_its_life_and_every_step_is_told_in_order() {
    let daemon = Daemon::new();
    let task = daemon.created("exit 7");
    assert_eq!(task.state("").unwrap().status(), Status::Created);
    let pid = task.start("").unwrap();
    assert_eq!(task.wait("").unwrap(), 7);
    let state = task.state("").unwrap();
    assert_eq!((state.status(), state.exit_status, state.pid), (Status::Stopped, 7, pid));
    let deleted = task.delete("").unwrap();
    assert_eq!((deleted.exit_status, deleted.pid), (7, pid));
    assert!(deleted.exited_at.is_some());
    assert_eq!(
        daemon.topics_until("/tasks/delete"),
        ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]
    );
    task.shutdown();
    task.assert_clean();
    assert_eq!(std::fs::read_dir(daemon.path("sockets")).unwrap().count(), 0);
}

#[test]
fn an_exec_has_a_life_and_a_status_of_its_own() {
    let daemon = Daemon::new();
    let task = daemon.created("sleep 1000");
    task.start("").unwrap();
    task.exec("e1", "exit 5").unwrap();
    assert_eq!(task.state("e1").unwrap().status(), Status::Created);
    task.start("e1").unwrap();
    assert_eq!(task.wait("e1").unwrap(), 5);
    assert_eq!(task.delete("e1").unwrap().exit_status, 5);
    assert_eq!(task.state("e1").unwrap_err().code(), Code::NotFound);
    task.exec("e2", "sleep 1000").unwrap();
    task.start("e2").unwrap();
    let pids: wire::PidsResponse = task.call("Pids", &wire::PidsRequest { id: task.id.clone() }).unwrap();
    assert_eq!(pids.processes.len(), 2);
    assert_eq!(pids.processes.iter().filter(|process| process.info.is_some()).count(), 1);
    task.kill("", 9, false).unwrap();
    assert_eq!(task.wait("").unwrap(), 137);
    assert_eq!(task.wait("e2").unwrap(), 137, "it went with its container");
    task.delete("e2").unwrap();
    task.delete("").unwrap();
    task.shutdown();
    task.assert_clean();
}

#[test]
fn what_is_wrong_is_refused_with_the_code_that_clients_look_at() {
    let daemon = Daemon::new();
    let task = daemon.created("sleep 1000");
    assert_eq!(task.create(|_| {}).unwrap_err().code(), Code::AlreadyExists);
    assert_eq!(task.exec("early", "true").unwrap_err().code(), Code::FailedPrecondition);
    task.start("").unwrap();
    assert_eq!(task.start("").unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(task.delete("").unwrap_err().code(), Code::FailedPrecondition, "it runs");
    assert_eq!(task.kill("", 99, false).unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(task.kill("nobody", 9, false).unwrap_err().code(), Code::NotFound);
    task.exec("e", "true").unwrap();
    assert_eq!(task.exec("e", "true").unwrap_err().code(), Code::AlreadyExists);
    assert_eq!(task.kill("e", 9, false).unwrap_err().code(), Code::FailedPrecondition, "not started");
    let nothing = Any { type_url: "x".into(), value: b"no json".to_vec() };
    let bad = task.exec_with("bad", "true", |request| request.spec = Some(nothing)).unwrap_err();
    assert_eq!(bad.code(), Code::InvalidArgument);
    let unknown = task.call::<_, ()>("Dance", &()).unwrap_err();
    assert_eq!(unknown.code(), Code::Unimplemented);
    task.kill("", 9, false).unwrap();
    task.wait("").unwrap();
    assert_eq!(task.kill("", 9, false).unwrap_err().code(), Code::NotFound, "it has ended");
    assert_eq!(task.exec("late", "true").unwrap_err().code(), Code::FailedPrecondition);
    task.delete("").unwrap();
    assert_eq!(task.state("").unwrap_err().code(), Code::NotFound);
    task.shutdown();
    task.assert_clean();
}

#[test]
fn a_container_that_cannot_be_made_says_why_and_leaves_nothing() {
    let daemon = Daemon::new();
    let (id, bundle) = daemon.bundle("true", |spec| spec["process"]["args"] = json!(["/bin/nope"]));
    let task = daemon.task(&id, &bundle);
    let error = task.create(|_| {}).unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.to_string().contains("/bin/nope"), "{error}");
    assert_eq!(task.state("").unwrap_err().code(), Code::NotFound);
    task.assert_clean();
    let error = task.create(|request| request.bundle = "/nowhere".into()).unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    let error = task.create(|request| request.stdout = "/nowhere/fifo".into()).unwrap_err();
    assert!(error.to_string().contains("/nowhere/fifo"), "{error}");
    task.assert_clean();
    task.shutdown();
}

#[test]
fn an_exec_of_a_program_that_is_not_there_ends_with_127_and_the_container_lives_on() {
    let daemon = Daemon::new();
    let task = daemon.created("sleep 1000");
    task.start("").unwrap();
    let process =
        json!({"cwd": "/", "user": {"uid": 0, "gid": 0}, "args": ["/bin/nope"], "env": ["PATH=/bin"]});
    let spec = Any { type_url: "process".into(), value: process.to_string().into_bytes() };
    task.exec_with("e", "", |request| request.spec = Some(spec)).unwrap();
    assert_eq!(task.start("e").unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(task.wait("e").unwrap(), 127);
    assert_eq!(task.delete("e").unwrap().exit_status, 127);
    assert_eq!(task.state("").unwrap().status(), Status::Running);
    task.kill("", 9, false).unwrap();
    task.wait("").unwrap();
    task.delete("").unwrap();
    task.shutdown();
}

#[test]
fn a_paused_container_is_shown_so_goes_on_and_can_be_killed_while_paused() {
    let daemon = Daemon::new();
    let task = daemon.created("sleep 1000");
    task.start("").unwrap();
    let pause = || task.call::<_, ()>("Pause", &wire::PauseRequest { id: task.id.clone() });
    let resume = || task.call::<_, ()>("Resume", &wire::ResumeRequest { id: task.id.clone() });
    pause().unwrap();
    assert_eq!(task.state("").unwrap().status(), Status::Paused);
    task.exec("e", "true").unwrap();
    assert_eq!(task.start("e").unwrap_err().code(), Code::FailedPrecondition);
    resume().unwrap();
    assert_eq!(task.state("").unwrap().status(), Status::Running);
    pause().unwrap();
    task.kill("", 9, false).unwrap();
    assert_eq!(task.wait("").unwrap(), 137);
    task.delete("").unwrap();
    task.shutdown();
    task.assert_clean();
}

#[test]
fn limits_are_changed_while_it_runs_and_what_it_uses_is_told() {
    let daemon = Daemon::new();
    let task = daemon.created("sleep 1000");
    task.start("").unwrap();
    let resources = Any {
        type_url: "resources".into(),
        value: json!({"memory": {"limit": 33_554_432}, "pids": {"limit": 17}}).to_string().into_bytes(),
    };
    let request =
        wire::UpdateTaskRequest { id: task.id.clone(), resources: Some(resources), ..Default::default() };
    task.call::<_, ()>("Update", &request).unwrap();
    let stats: wire::StatsResponse = task.call("Stats", &wire::StatsRequest { id: task.id.clone() }).unwrap();
    let stats = stats.stats.unwrap();
    if any::is::<Metrics>(&stats) {
        let metrics: Metrics = any::unpack(&stats).unwrap();
        assert_eq!(metrics.memory.unwrap().usage.unwrap().limit, 33_554_432);
        assert_eq!(metrics.pids.unwrap().limit, 17);
        assert!(metrics.cpu.unwrap().usage.unwrap().total > 0);
    } else {
        let metrics: runtime_api::io::containerd::cgroups::v2::Metrics = any::unpack(&stats).unwrap();
        assert_eq!(metrics.memory.unwrap().usage_limit, 33_554_432);
        assert_eq!(metrics.pids.unwrap().limit, 17);
    }
    task.kill("", 9, true).unwrap();
    task.wait("").unwrap();
    task.delete("").unwrap();
    task.shutdown();
}

#[test]
fn a_container_that_was_never_started_can_be_deleted() {
    let daemon = Daemon::new();
    let task = daemon.created("true");
    let deleted = task.delete("").unwrap();
    assert_eq!(deleted.exit_status, 137);
    task.shutdown();
    task.assert_clean();
}

#[test]
fn the_containers_of_a_pod_share_one_shim_which_goes_with_the_last() {
    let daemon = Daemon::new();
    let pod = |spec: &mut serde_json::Value| {
        spec["annotations"] = json!({"io.kubernetes.cri.sandbox-id": "pod-1"});
    };
    let (first_id, first_bundle) = daemon.bundle("sleep 1000", pod);
    let (second_id, second_bundle) = daemon.bundle("exit 3", pod);
    let first = daemon.task(&first_id, &first_bundle);
    first.create(|_| {}).unwrap();
    let second = daemon.task(&second_id, &second_bundle);
    assert_eq!(first.client.path(), second.client.path());
    second.create(|_| {}).unwrap();
    first.start("").unwrap();
    second.start("").unwrap();
    assert_eq!(second.wait("").unwrap(), 3);
    second.delete("").unwrap();
    let request = wire::ShutdownRequest { id: second_id, now: false };
    second.call::<_, ()>("Shutdown", &request).unwrap();
    assert_eq!(first.state("").unwrap().status(), Status::Running, "the other lives on");
    first.kill("", 9, false).unwrap();
    first.wait("").unwrap();
    first.delete("").unwrap();
    first.shutdown();
    eventually("both connections end", || second.client.is_closed());
    first.assert_clean();
    second.assert_clean();
}

#[test]
fn a_container_killed_for_memory_says_so_before_it_says_that_it_ended() {
    let daemon = Daemon::new();
    let (id, bundle) = daemon.bundle("dd if=/dev/zero of=/dev/null bs=200M", |spec| {
        spec["linux"]["resources"] = json!({"memory": {"limit": 20_971_520, "swap": 20_971_520},
            "devices": [{"allow": true, "access": "rwm"}]});
    });
    let task = daemon.task(&id, &bundle);
    task.create(|_| {}).unwrap();
    task.start("").unwrap();
    assert_ne!(task.wait("").unwrap(), 0);
    let topics = daemon.topics_until("/tasks/exit");
    let place = |topic: &str| topics.iter().position(|heard| heard == topic);
    assert!(place("/tasks/oom").is_some_and(|oom| Some(oom) < place("/tasks/exit")), "{topics:?}");
    task.delete("").unwrap();
    task.shutdown();
}
