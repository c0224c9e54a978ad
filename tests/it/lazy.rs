//! Images that are shown before they have arrived: real registry, real engine, real FUSE mounts.

mod images;
mod plugin;
mod same;
mod state;

pub(crate) use images::{Way, lazily};

/// What `lazy status` says of an image.
fn status(engine: &tests::Engine, image: &str) -> anyhow::Result<serde_json::Value> {
    let text = engine.ok(["--format", "json", "lazy", "status", image])?;
    let mut values = crate::json::values(&text);
    anyhow::ensure!(values.len() == 1, "{text}");
    Ok(values.remove(0)[0].take())
}
