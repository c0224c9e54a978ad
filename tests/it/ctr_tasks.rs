//! Debian's unmodified `ctr` for containers and tasks, run on containerd and on us: the same exit code, the same output,
//! the same class of error. Under both, containerd's own shim runs the containers; then ours does, under our daemon.
//!
//! What may differ is taken out before comparing: process ids, times, and the words of an error before its class. Each side
//! has a namespace of its own, since both share the OCI runtime's directory of state and the cgroups.

mod dead_shims;
mod sides;

use anyhow::{Context, Result};
use sides::Both;

#[test]
fn a_run_answers_as_containerds() -> Result<()> {
    let both = Both::start()?;
    // There containerd's code is `Unknown`, which tells nothing: ours is another on purpose.
    let [theirs, ours] =
        both.each(|side| side.run("run --rm --runtime io.containerd.nothing.v1 REF c1 true"))?;
    assert_eq!((theirs.code, ours.code), (Some(1), Some(1)));
    assert!(ours.stderr.contains("containerd-shim-nothing-v1"), "{}", ours.stderr);
    both.assert_same(
        "run --rm REF c1 true
        run --rm REF c1 false
        run --rm REF c1 sh -c 'echo out; echo err >&2; exit 42'
        run --rm REF c1 sh -c 'kill -9 $$'
        run --rm REF c1 no-such-program
        run --rm REF c1 /etc
        run --rm --cwd /no/such/place --env A=1 REF c1 sh -c 'pwd; echo $A'
        run --rm --env A=1 --cwd /tmp REF c1 sh -c 'pwd; echo $A'
        run --rm --user 12:34 REF c1 id
        run --rm --user nobody-here REF c1 id
        run --rm --read-only REF c1 touch /x
        run --rm --hostname hello REF c1 hostname
        run --rm --privileged REF c1 true
        run --rm --memory-limit 33554432 REF c1 true
        run --rm --label a=b REF c1 true
        run --rm --net-host REF c1 true
        run --rm --null-io REF c1 echo hidden
        run --rm --mount type=bind,src=/no/such/source,dst=/mnt,options=rbind:ro REF c1 true
        run --rm --runc-binary /no/such/runc REF c1 true
        run --rm nothing.example/x:1 c1 true
        containers ls
        tasks ls
        run --rm REF bad/name true",
    )
}

#[test]
fn containers_answer_as_containerds() -> Result<()> {
    Both::start()?.assert_same(
        "containers ls
        containers create REF c1 sleep 1000
        containers create REF c1 sleep 1000
        containers create nothing.example/x:1 c2 true
        containers create --runtime io.containerd.nothing.v1 REF c2 true
        containers create --label x=y REF c3 sh -c 'exit 3'
        containers ls
        containers ls -q
        containers ls id==c1
        containers ls labels.x==y
        containers label c1 a=b
        containers label c1 a=
        containers label nothing a=b
        containers info --spec nothing
        containers info nothing
        tasks start -d c1
        tasks start -d c1
        tasks start c3
        tasks start nothing
        containers delete c1
        tasks kill -s KILL c1
        until c1 STOPPED
        tasks delete c1
        tasks delete c1
        tasks delete c3
        containers delete --keep-snapshot c1
        containers delete c1
        containers delete c3
        containers ls -q",
    )
}

#[test]
fn tasks_answer_as_containerds() -> Result<()> {
    Both::start()?.assert_same(
        "run -d REF c1 sleep 1000
        run -d REF c1 sleep 1000
        tasks ls
        tasks ls -q
        tasks ps c1
        tasks ps nothing
        tasks exec --exec-id e1 c1 sh -c 'echo in; exit 5'
        tasks exec --exec-id e1 c1 true
        tasks exec --exec-id e2 --cwd /etc --user 7:8 c1 sh -c 'pwd; id -u'
        tasks exec --exec-id e3 c1 no-such-program
        tasks exec --exec-id e4 nothing true
        tasks exec --exec-id bad/id c1 true
        tasks exec -d --exec-id e5 c1 sleep 1000
        tasks kill --exec-id e5 -s KILL c1
        settled e5 c1
        tasks delete --exec-id e5 c1
        tasks delete --exec-id e5 c1
        tasks kill --exec-id nothing c1
        tasks metrics nothing
        tasks pause c1
        tasks ls
        tasks pause c1
        tasks exec --exec-id e6 c1 true
        tasks resume c1
        tasks resume c1
        tasks ls
        tasks pause nothing
        tasks resume nothing
        tasks delete c1
        tasks kill -s NONSENSE c1
        tasks kill nothing
        tasks kill -s 9 c1
        until c1 STOPPED
        tasks attach nothing
        tasks delete nothing
        containers rm nothing
        tasks delete c1
        containers rm c1
        run -d REF c2 sleep 1000
        tasks delete --force c2
        tasks ls
        containers rm c2
        containers ls -q",
    )
}

#[test]
fn metrics_name_the_same_things_as_containerds() -> Result<()> {
    let both = Both::start()?;
    both.assert_same("run -d REF c1 sleep 1000")?;
    let names = |json: &str| -> Result<Vec<String>> {
        let value: serde_json::Value = serde_json::from_str(json).context("metrics are JSON")?;
        let mut names: Vec<String> = value.as_object().context("an object")?.keys().cloned().collect();
        names.sort();
        Ok(names)
    };
    let [theirs, ours] = both.each(|side| side.run("tasks metrics --format json c1")?.success())?;
    assert_eq!(names(&theirs)?, names(&ours)?);
    let [theirs, ours] = both.each(|side| side.run("tasks metrics c1")?.success())?;
    assert_eq!(theirs.lines().count(), ours.lines().count(), "{theirs}\n{ours}");
    both.assert_same("tasks delete --force c1\ncontainers rm c1")
}

#[test]
fn a_checkpoint_is_refused_or_made_as_containerds() -> Result<()> {
    let both = Both::start()?;
    both.assert_same(
        "run -d REF c1 sleep 1000
        tasks checkpoint c1
        tasks checkpoint nothing
        containers checkpoint nothing ref.example/c:1
        tasks ls
        tasks delete --force c1
        containers rm c1",
    )
}

#[test]
fn a_terminal_behaves_as_under_containerd() -> Result<()> {
    let both = Both::start()?;
    let [theirs, ours] = both.each(|side| {
        let script = "tty; read line; echo got $line; exit 9";
        side.on_terminal(&["run", "--rm", "-t", "REF", "c1", "sh", "-c", script], "hello\n")
    })?;
    assert_eq!(theirs, ours);
    assert_eq!(ours.0, Some(9), "{ours:?}");
    assert!(ours.1.contains("got hello") && ours.1.contains("/dev/pts/0"), "{ours:?}");
    both.assert_same("run -d REF c2 sleep 1000")?;
    let [theirs, ours] = both.each(|side| {
        let words = ["tasks", "exec", "-t", "--exec-id", "e1", "c2", "sh", "-c", "tty; read line; exit 8"];
        side.on_terminal(&words, "hello\n")
    })?;
    assert_eq!((theirs.0, ours.0), (Some(8), Some(8)), "{theirs:?} {ours:?}");
    both.assert_same("tasks delete --force c2\ncontainers rm c2")
}

#[test]
fn our_shim_under_our_daemon_answers_as_containerds_under_containerds() -> Result<()> {
    Both::with_our_shim()?.assert_same(
        "run --rm REF c1 sh -c 'echo out; echo err >&2; exit 42'
        run --rm REF c1 sh -c 'kill -9 $$'
        run -d REF c2 sleep 1000
        tasks ls
        tasks ps c2
        tasks exec --exec-id e1 c2 sh -c 'echo in; exit 5'
        tasks pause c2
        tasks ls
        tasks resume c2
        tasks delete c2
        tasks kill -s KILL c2
        until c2 STOPPED
        tasks delete c2
        containers rm c2
        containers ls -q
        tasks ls",
    )
}

#[test]
fn events_of_tasks_are_told_as_containerds() -> Result<()> {
    let both = Both::start()?;
    let steps = [
        "run -d REF c1 sleep 1000",
        "tasks exec --exec-id e1 c1 true",
        "tasks pause c1",
        "tasks resume c1",
        "tasks kill -s KILL c1",
        "until c1 STOPPED",
        "tasks delete c1",
        "containers rm c1",
    ];
    let [theirs, ours] = both.each(|side| side.topics(&steps))?;
    assert!(theirs.contains(&"/tasks/exit".to_owned()), "{theirs:?}");
    assert_eq!(theirs, ours);
    Ok(())
}
