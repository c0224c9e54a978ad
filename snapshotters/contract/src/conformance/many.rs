//! Many layers, many threads.

use std::fs;
use std::ops::ControlFlow;
use std::sync::Barrier;

use storage_model::Labels;

use super::{Bench, active, committed, describe};
use crate::{ErrorKind, Info, Kind, LabelChange, SnapshotError, Snapshotter};

pub(super) fn a_hundred_and_twenty_eight_layers_are_mounted(bench: &mut Bench<'_>) {
    const LAYERS: usize = 128;
    let flat = tempfile::tempdir().unwrap();
    let write = |root: &std::path::Path, n: usize| {
        fs::write(root.join(format!("own-{n}")), n.to_string()).unwrap();
        fs::write(root.join("shared"), n.to_string()).unwrap();
        if n >= 2 && n.is_multiple_of(2) {
            fs::remove_file(root.join(format!("own-{}", n - 2))).unwrap();
        }
    };
    let contents = |root: &std::path::Path| -> Vec<_> {
        describe(root).into_iter().map(|(path, entry)| (path, entry.content)).collect()
    };
    let mut parent = None;
    for n in 0..LAYERS {
        let name = format!("layer-{n}");
        bench.layer(&name, parent.as_deref(), |root| {
            assert_eq!(contents(root), contents(flat.path()), "before layer {n}");
            write(root, n);
            write(flat.path(), n);
            assert_eq!(contents(root), contents(flat.path()), "after layer {n}");
        });
        parent = Some(name);
    }
    bench.look(&parent.unwrap(), |root| assert_eq!(contents(root), contents(flat.path())));
}

pub(super) fn of_many_that_make_one_key_exactly_one_succeeds(bench: &mut Bench<'_>) {
    const THREADS: usize = 16;
    bench.layer("base", None, |_| {});
    let snapshotter = bench.shared();
    let race = |act: &(dyn Fn(usize) -> Result<(), SnapshotError> + Sync)| {
        let start = Barrier::new(THREADS);
        let results: Vec<_> = std::thread::scope(|scope| {
            let run = |n| {
                start.wait();
                act(n)
            };
            let threads: Vec<_> = (0..THREADS).map(|n| scope.spawn(move || run(n))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
        results.into_iter().filter_map(Result::err).map(|error| error.kind()).collect::<Vec<_>>()
    };
    for round in 0..4 {
        let key = active(&format!("key {round}"));
        let losers = race(&|n| {
            let parent = Some(committed("base")).filter(|_| n % 4 < 2);
            if n % 2 == 0 {
                snapshotter.prepare(&key, parent.as_ref(), &Labels::new()).map(drop)
            } else {
                snapshotter.view(&key, parent.as_ref(), &Labels::new()).map(drop)
            }
        });
        assert!(losers.iter().all(|kind| *kind == ErrorKind::AlreadyExists), "{losers:?}");
        snapshotter.mounts(&key).unwrap();
        for n in 0..THREADS {
            snapshotter.prepare(&active(&format!("{round} {n}")), None, &Labels::new()).unwrap();
        }
        let name = committed(&format!("name {round}"));
        let losers =
            race(&|n| snapshotter.commit(&active(&format!("{round} {n}")), &name, None, &Labels::new()));
        assert!(losers.iter().all(|kind| *kind == ErrorKind::AlreadyExists), "{losers:?}");
        let losers = race(&|_| snapshotter.remove(name.as_str()));
        assert!(losers.iter().all(|kind| *kind == ErrorKind::NotFound), "{losers:?}");
    }
}

pub(super) fn many_threads_make_commit_and_remove_at_once(bench: &mut Bench<'_>) {
    const THREADS: usize = 64;
    bench.layer("base", None, |root| fs::write(root.join("file"), "base").unwrap());
    let snapshotter = bench.shared();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let snapshotter = &*snapshotter;
            scope.spawn(move || {
                let base = committed("base");
                for round in 0..4 {
                    let key = active(&format!("{thread} {round}"));
                    let name = committed(&format!("done {thread} {round}"));
                    snapshotter.prepare(&key, Some(&base), &Labels::new()).unwrap();
                    let target = snapshotter.layer_target(&key).unwrap();
                    fs::write(target.path.join("own"), key.as_str()).unwrap();
                    if round % 2 == 0 {
                        snapshotter.cleanup().unwrap();
                    }
                    snapshotter
                        .commit_with_usage(&key, &name, None, &Labels::new(), Some(Default::default()))
                        .unwrap();
                    assert_eq!(fs::read_to_string(target.path.join("own")).unwrap(), key.as_str());
                    if round > 0 {
                        snapshotter.remove(name.as_str()).unwrap();
                    }
                }
            });
        }
    });
    snapshotter.cleanup().unwrap();
    let mut left = 0;
    let mut visit = |_: Info| {
        left += 1;
        ControlFlow::Continue(())
    };
    snapshotter.walk(&mut visit).unwrap();
    assert_eq!(left, THREADS + 1);
    bench.look("done 7 0", |root| {
        assert_eq!(fs::read_to_string(root.join("own")).unwrap(), "7 0");
        assert_eq!(fs::read_to_string(root.join("file")).unwrap(), "base");
    });
}

/// Everything that can happen to one snapshot, from its prepare to its end.
fn live(s: &dyn Snapshotter, n: usize) {
    let (key, name, view) =
        (active(&format!("key {n}")), committed(&format!("name {n}")), active(&format!("view {n}")));
    let parent = Some(committed("base")).filter(|_| !n.is_multiple_of(4));
    let mounts = s.prepare(&key, parent.as_ref(), &Labels::new()).unwrap();
    let target = s.layer_target(&key).unwrap();
    fs::write(target.path.join("own"), key.as_str()).unwrap();
    assert_eq!(s.mounts(&key).unwrap(), mounts);
    s.update(key.as_str(), LabelChange::set("n", n.to_string())).unwrap();
    assert_eq!(s.stat(key.as_str()).unwrap().labels["n"], n.to_string());
    assert!(s.usage(key.as_str()).unwrap().inodes >= 2);
    // One in four was made on nothing and is put on the parent now.
    s.commit(&key, &name, Some(&committed("base")), &Labels::new()).unwrap();
    s.view(&view, Some(&name), &Labels::new()).unwrap();
    let error = s.remove(name.as_str()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    let seen = fs::read_to_string(s.layers(&name).unwrap()[0].join("own")).unwrap();
    assert_eq!(seen, key.as_str());
    if n.is_multiple_of(100) {
        s.cleanup().unwrap();
    }
    s.remove(view.as_str()).unwrap();
    if !n.is_multiple_of(10) {
        s.remove(name.as_str()).unwrap();
    }
}

pub(super) fn a_thousand_lives_at_once_meet_no_error(bench: &mut Bench<'_>) {
    const LIVES: usize = 1000;
    bench.layer("base", None, |root| fs::write(root.join("file"), "base").unwrap());
    let snapshotter = bench.shared();
    let start = Barrier::new(LIVES);
    std::thread::scope(|scope| {
        for n in 0..LIVES {
            let (s, start) = (&*snapshotter, &start);
            let life = move || {
                start.wait();
                live(s, n);
            };
            std::thread::Builder::new().stack_size(256 * 1024).spawn_scoped(scope, life).unwrap();
        }
    });
    let mut left = Vec::new();
    let mut visit = |info: Info| {
        assert_eq!(info.kind, Kind::Committed);
        left.push(info.name);
        ControlFlow::Continue(())
    };
    snapshotter.walk(&mut visit).unwrap();
    let mut expected: Vec<_> = (0..LIVES).step_by(10).map(|n| format!("name {n}")).collect();
    expected.push("base".to_owned());
    expected.sort();
    left.sort();
    assert_eq!(left, expected);
    snapshotter.cleanup().unwrap();
    for name in ["name 0", "name 990"] {
        bench.look(name, |root| assert_eq!(fs::read_dir(root).unwrap().count(), 2));
    }
}
