//! Makes an image that is planned to be shown: its layers become snapshots that stand for them.
//!
//! `layers that cannot be read in pieces: blob brought, indexed -> each layer's table and snapshot, lowest first -> its
//! index`. The lease of the pull keeps all of it until the config's label does.

use std::sync::Arc;

use lazy_index::Toc;
use lazy_snapshotter::{Access, Layer, Origin};
use snapshotters_contract::ErrorKind;
use storage_model::{Digest, Labels, Reference};

use super::LazyError;
use super::plan::{How, Plan, Planned};
use crate::layers::{LayerState, Task, fetch_all};
use crate::pull::RegistryOptions;
use crate::work::blocking;
use crate::{Engine, EngineError};

/// Makes the snapshots of `plan`.
///
/// # Errors
/// Those of the store and of the registry. Snapshots that were made stay until the next collection.
pub(crate) async fn publish(task: &Task, plan: &Plan, origin: Origin) -> Result<(), EngineError> {
    let opaque = plan.layers.iter().filter(|layer| matches!(layer.how, How::Opaque));
    let opaque: Vec<_> = opaque.map(|layer| layer.descriptor.clone()).collect();
    fetch_all(task, opaque).await?;
    let mut parent = None;
    for layer in &plan.layers {
        let meter = task.reporter.meter(&layer.descriptor);
        match &layer.how {
            How::Here => meter.set(LayerState::Exists),
            how => {
                let (toc, format, proof) = match how {
                    How::Described { toc, format, proof } => (toc.clone(), *format, *proof),
                    _ => (super::index::index(task, layer).await?, "indexed", None),
                };
                let described = Layer {
                    blob: layer.descriptor.digest,
                    blob_bytes: layer.descriptor.size,
                    diff_id: layer.diff_id,
                    toc: Digest::of(b""),
                    proof,
                    format: format.to_owned(),
                    origins: vec![origin.clone()],
                    fill: false,
                };
                add(task, layer, parent.clone(), described, toc).await?;
                meter.set(LayerState::Done);
            }
        }
        parent = Some(layer.name.clone());
    }
    Ok(())
}

async fn add(
    task: &Task,
    layer: &Planned,
    parent: Option<snapshotters_contract::CommittedName>,
    described: Layer,
    toc: Arc<Toc>,
) -> Result<(), EngineError> {
    let (engine, space, name, image) =
        (task.engine.clone(), task.space.clone(), layer.name.clone(), task.name.to_string());
    blocking(move || {
        let added =
            engine.lazy().add_layer(&space, &name, parent.as_ref(), described.clone(), &toc, &Labels::new());
        match added {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                // Another pull was sooner, or an image that says other things of the same chain is here.
                let stack = engine.lazy().stack(&space, &name)?;
                let same = stack
                    .and_then(|mut stack| stack.layers.pop())
                    .is_some_and(|other| other.blob == described.blob && other.proof == described.proof);
                if same {
                    return Ok(());
                }
                let why =
                    "is here under the same chain ID with another blob; remove that image first".to_owned();
                Err(LazyError::NotPossible { name: image, layer: described.blob, why }.into())
            }
            added => Ok(added?),
        }
    })
    .await
}

/// How the repository of `reference` is reached later, by another process: without secrets.
pub(crate) fn origin(engine: &Engine, reference: &Reference, options: &RegistryOptions) -> Origin {
    Origin {
        reference: reference.to_string(),
        access: Access {
            hosts_dir: match &options.hosts_dir {
                Some(directory) => vec![directory.clone()],
                None => engine.config().hosts_dirs.clone(),
            },
            docker_config: options.docker_config.clone(),
            plain_http: options.plain_http,
            skip_verify: options.skip_verify,
            ca_files: options.ca_files.clone(),
        },
    }
}

/// The same read back, for a client of our own.
pub(crate) fn options(origin: &Origin) -> RegistryOptions {
    let Access { hosts_dir, docker_config, plain_http, skip_verify, ca_files } = origin.access.clone();
    RegistryOptions {
        hosts_dir: hosts_dir.into_iter().next(),
        docker_config,
        plain_http,
        skip_verify,
        ca_files,
        credentials: None,
    }
}
