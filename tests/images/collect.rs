//! Collections in the middle of everything: what is being made is never taken.

use std::io::Cursor;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use runtime_engine::{ConvertRequest, ImportRequest, PullRequest};
use storage_model::Compression;
use tests::Registry;

use crate::bench::{Bench, layout_tar};
use crate::fixtures;

/// Runs `work` while another thread collects without pause.
fn while_collecting<T>(bench: &Bench, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let collector = scope.spawn(|| {
            let mut collections = 0_u32;
            while !done.load(Ordering::Relaxed) {
                bench.engine.collect()?;
                collections += 1;
            }
            Ok::<_, anyhow::Error>(collections)
        });
        let worked = work();
        done.store(true, Ordering::Relaxed);
        let collections = collector.join().expect("no panic")?;
        assert!(collections > 0);
        worked
    })
}

#[test]
fn vuln_b3_nothing_is_collected_between_its_arrival_and_its_name() -> Result<()> {
    let registry = Registry::start()?;
    let (builder, expected) = fixtures::crowd(4, 30, 3000);
    let image = builder.build()?;
    let name = registry.push(&image, "busy", "1")?;
    let bench = Bench::new()?;
    let archive = layout_tar(&image)?;
    for round in 0..3 {
        while_collecting(&bench, || {
            bench.pull_as(PullRequest {
                reference: name.clone(),
                no_unpack: round == 1,
                ..Default::default()
            })?;
            bench.unpack(&name)?;
            let request = ConvertRequest {
                image: name.clone(),
                target: "local/zstd:1".into(),
                compression: Some(Compression::Zstd),
                ..Default::default()
            };
            let namespace = bench.namespace();
            bench.transfer(async |events| bench.engine.convert(&namespace, request, events).await)?;
            bench.space().delete_image(&name)?;
            let request = ImportRequest { base_name: "local/in".into(), ..Default::default() };
            bench.import(Cursor::new(archive.clone()), request)?;
            for image in ["local/in:latest", "local/zstd:1"] {
                let tree = bench.tree(image)?;
                let files = tree.values().filter(|node| node.kind == "file").count();
                assert_eq!(files, expected.len(), "{image}");
            }
            Ok(())
        })?;
        assert_eq!(bench.left()?, [""; 0]);
    }
    Ok(())
}
