//! The recorded order of an image's first reads: shown, replaced.

use std::sync::Arc;

use lazy_fetch::{TRACE_EVENTS_MAX, TRACE_VERSION, Trace};
use lazy_snapshotter::StackId;
use storage_model::{Descriptor, Digest, Namespace, media};

use super::LazyError;
use crate::pull::RegistryOptions;
use crate::work::blocking;
use crate::{Engine, EngineError};

/// What a trace is in a registry: its media type and its artifact type.
const TRACE_TYPE: &str = "application/vnd.windlass.trace.v1+json";

/// The config of an artifact that has none (OCI image-spec, "Guidance for an Empty Descriptor").
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
const EMPTY: &[u8] = b"{}";

impl Engine {
    /// The trace of the image that `image` means, as JSON.
    ///
    /// # Errors
    /// [`LazyError::NotLazy`] if it is not shown lazily; [`LazyError::NoTrace`] if no start was recorded.
    pub fn export_trace(&self, namespace: &Namespace, image: &str) -> Result<String, EngineError> {
        let (name, stack) = self.traced_stack(namespace, image)?;
        let mut trace = self.lazy().shown().trace(&stack).ok_or(LazyError::NoTrace { name: name.clone() })?;
        trace.image = name;
        Ok(serde_json::to_string_pretty(&trace).expect("strings and numbers") + "\n")
    }

    /// Takes `json` as the trace of the image that `image` means; the next start fetches along it. Returns how many reads
    /// it has.
    ///
    /// # Errors
    /// [`LazyError::Trace`] if it is none; [`LazyError::NotLazy`]. The trace there was stays then.
    pub fn import_trace(&self, namespace: &Namespace, image: &str, json: &str) -> Result<u64, EngineError> {
        let trace = parse(json)?;
        let (_, stack) = self.traced_stack(namespace, image)?;
        self.lazy().shown().set_trace(&stack, &trace)?;
        Ok(trace.events.len() as u64)
    }

    /// Sends the trace to the registry the image came from, as a referrer of its manifest, and returns the referrer's digest.
    ///
    /// # Errors
    /// As [`Engine::export_trace`], and [`EngineError::Registry`]. Nothing that the image is changes.
    pub async fn push_trace(
        &self,
        namespace: &Namespace,
        image: &str,
        options: &RegistryOptions,
    ) -> Result<Digest, EngineError> {
        let (engine, named, text) = (self.clone(), namespace.clone(), image.to_owned());
        let (json, work) = blocking(move || {
            let json = engine.export_trace(&named, &text)?;
            let work = engine.work_on(&named, &text)?;
            Ok((
                json,
                work.ok_or(LazyError::NotLazy { name: text, mode: "where it came from is not known" })?,
            ))
        })
        .await?;
        let client = self.client(options, |_| {})?;
        let reference = work.origin.reference;
        let (config, layer) =
            (Descriptor::of(EMPTY_TYPE, EMPTY), Descriptor::of(TRACE_TYPE, json.as_bytes()));
        for (descriptor, bytes) in [(&config, EMPTY.to_vec()), (&layer, json.into_bytes())] {
            let open = || Ok(std::io::Cursor::new(bytes.clone()));
            client.push_blob(&reference, descriptor, open, &[], Arc::new(|_| {})).await?;
        }
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": media::OCI_MANIFEST,
            "artifactType": TRACE_TYPE,
            "config": config,
            "layers": [layer],
            "subject": Descriptor::new(work.manifest.media_type, work.manifest.digest, work.manifest.size),
        });
        let bytes = serde_json::to_vec(&manifest).expect("descriptors and words");
        let pinned = reference.with_digest(Digest::of(&bytes));
        Ok(client.push_manifest(&pinned, media::OCI_MANIFEST, bytes.into()).await?)
    }

    fn traced_stack(&self, namespace: &Namespace, image: &str) -> Result<(String, StackId), EngineError> {
        let space = self.space(namespace);
        let record = crate::image::resolve::find(&space, image)?;
        let (_, found) = crate::image::read_with_manifest(&space, &record.name, &record.target, "")?;
        let stack = self.stack_of(namespace, &found)?;
        let stack = stack.ok_or_else(|| LazyError::NotLazy {
            name: record.name.clone(),
            mode: "pull it with --lazy always first",
        })?;
        Ok((record.name, stack.id))
    }
}

/// Reads a foreign trace.
fn parse(json: &str) -> Result<Trace, LazyError> {
    let refuse = |why: String| LazyError::Trace { why };
    if json.len() as u64 > lazy_snapshotter::TRACE_BYTES_MAX {
        return Err(refuse(format!("it has more than {} bytes", lazy_snapshotter::TRACE_BYTES_MAX)));
    }
    let trace: Trace = serde_json::from_str(json).map_err(|error| refuse(error.to_string()))?;
    if trace.version != TRACE_VERSION {
        return Err(refuse(format!("it has version {}, and {TRACE_VERSION} is known", trace.version)));
    }
    if trace.events.len() > TRACE_EVENTS_MAX {
        return Err(refuse(format!("it has more than {TRACE_EVENTS_MAX} reads")));
    }
    if let Some(event) = trace.events.iter().find(|event| lazy_fetch::decode_path(&event.path).is_none()) {
        return Err(refuse(format!("{:?} is no path", event.path.chars().take(64).collect::<String>())));
    }
    Ok(trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_traces_are_read_within_limits_or_refused_in_words() {
        let good =
            r#"{"version":1,"image":"x","events":[{"path":"bin/sh","offset":0,"length":7,"at_ms":1}]}"#;
        assert_eq!(parse(good).unwrap().events.len(), 1);
        for (bad, word) in [
            ("", "not a trace"),
            ("[]", "not a trace"),
            (r#"{"version":9,"image":"x","events":[]}"#, "version 9"),
            (r#"{"version":1,"image":"x","events":[{"path":"a%"}]}"#, "no path"),
        ] {
            let error = parse(bad).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
