//! Content of registries, asked without an engine: `content fetch-object`, `content fetch-blob`; and `content push-object`,
//! which sends what an engine has.
//!
//! Bytes go to standard output as they come and are hashed on the way: wrong ones end in an error and exit code 1, but have been
//! written by then. A manifest is written only when its digest is proved.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use storage_model::{Descriptor, Digest, Hasher, Reference, media};
use storage_registry::{Client as Registry, Config, Credentials, RegistryError};

use crate::args::{FetchBlobArgs, FetchObjectArgs, LoginArgs, PushObjectArgs};
use crate::client::{Client, failed};
use crate::error::CliError;
use crate::interrupt;
use crate::output;
use crate::pull;
use crate::verbs::daemon::HOSTS_DIRS;

/// `content fetch-object`: what the reference stands for, or the manifest or blob of this digest.
///
/// # Errors
/// [`CliError::Registry`].
pub(super) async fn fetch_object(args: &FetchObjectArgs) -> Result<(), CliError> {
    let registry = registry(&args.login)?;
    let what = format!("fetch {}", args.reference);
    let call = async {
        let Some(digest) = args.object else {
            let found = registry.resolve(&args.reference).await.map_err(wrong(&what))?;
            return manifest(&registry, &args.reference, &found.descriptor, &what).await;
        };
        // A digest does not say what it is of: a manifest is asked for first, because it is the smaller question.
        match registry.resolve(&args.reference.with_digest(digest)).await {
            Ok(found) => manifest(&registry, &args.reference, &found.descriptor, &what).await,
            Err(RegistryError::NotFound { .. }) => blob(&registry, &args.reference, digest).await,
            Err(error) => Err(wrong(&what)(error)),
        }
    };
    interrupt::or_interrupted(call).await
}

/// `content fetch-blob`.
///
/// # Errors
/// [`CliError::Registry`].
pub(super) async fn fetch_blobs(args: &FetchBlobArgs) -> Result<(), CliError> {
    let registry = registry(&args.login)?;
    let call = async {
        for digest in &args.digests {
            blob(&registry, &args.reference, *digest).await?;
        }
        Ok(())
    };
    interrupt::or_interrupted(call).await
}

/// `content push-object`: reads it from the engine, and sends it.
///
/// # Errors
/// [`CliError::Registry`], and the engine's.
pub(super) async fn push_object(client: &Client, args: &PushObjectArgs) -> Result<(), CliError> {
    let registry = registry(&args.login)?;
    let digest = super::resolve(client, &args.digest).await?;
    let what = format!("push {digest} to {}", args.reference);
    let call = async {
        let file = local(client, &digest).await?;
        let digest = file.digest;
        if media::is_index(&args.media_type) || media::is_manifest(&args.media_type) {
            let bytes = file.read()?;
            let tagged = args.reference.tag().is_some() && args.reference.digest().is_none();
            let reference = if tagged { args.reference.clone() } else { args.reference.with_digest(digest) };
            registry.push_manifest(&reference, &args.media_type, bytes.into()).await.map_err(wrong(&what))?;
        } else {
            let descriptor = Descriptor::new(&args.media_type, digest, file.size);
            let path = file.path.clone();
            let open = move || File::open(&path);
            let silent = Arc::new(|_: u64| {});
            let pushed = registry.push_blob(&args.reference, &descriptor, open, &[], silent).await;
            pushed.map_err(wrong(&what))?;
        }
        output::print(&format!("Pushed {digest} {}\n", output::printable(&args.media_type)))
    };
    interrupt::or_interrupted(call).await
}

/// Content of the engine in a file of ours, which goes when this is dropped: a transfer that breaks reads it again.
struct Local {
    path: PathBuf,
    digest: Digest,
    size: u64,
}

impl Drop for Local {
    fn drop(&mut self) {
        // It is in a directory for temporary files: whoever cleans there takes it.
        let _ = fs::remove_file(&self.path);
    }
}

impl Local {
    fn read(&self) -> Result<Vec<u8>, CliError> {
        fs::read(&self.path).map_err(|source| CliError::File {
            what: "read",
            path: self.path.clone(),
            source,
        })
    }
}

async fn local(client: &Client, digest: &str) -> Result<Local, CliError> {
    use std::os::unix::fs::OpenOptionsExt;
    let what = format!("read {digest}");
    let name = format!("windlass-push-{}-{}", std::process::id(), crate::progress::short(digest));
    let path = std::env::temp_dir().join(name);
    let failed_at = |path: &std::path::Path| {
        let path = path.to_owned();
        move |source| CliError::File { what: "write", path, source }
    };
    let created = File::options().write(true).create_new(true).mode(0o600).open(&path);
    let mut file = created.map_err(failed_at(&path))?;
    // From here on it goes with `local`, whatever happens.
    let mut local = Local { path, digest: Digest::of(b""), size: 0 };
    let mut hasher = Hasher::new();
    let mut stream = client.read(digest).await.map_err(failed(&*what))?;
    while let Some(part) = stream.message().await.map_err(failed(&*what))? {
        hasher.update(&part.data);
        file.write_all(&part.data).map_err(failed_at(&local.path))?;
    }
    (local.size, local.digest) = (hasher.bytes(), hasher.finish());
    Ok(local)
}

/// A client for the registry, with the user's logins and the machine's hosts.toml files.
fn registry(login: &LoginArgs) -> Result<Registry, CliError> {
    let credentials = pull::credentials(login.creds.as_deref(), &login.registry)?;
    let args = &login.registry;
    let hosts_dir = match &args.hosts_dir {
        Some(directory) => vec![directory.clone()],
        None => HOSTS_DIRS.iter().map(PathBuf::from).collect(),
    };
    let config = Config {
        hosts_dir,
        docker_config: pull::docker_config(),
        credentials: credentials.map(|login| Credentials::password(login.username, login.password)),
        plain_http: args.plain_http,
        skip_verify: args.skip_verify,
        ca_files: args.ca_file.iter().cloned().collect(),
        ..Config::default()
    };
    Registry::new(config).map_err(wrong("set up the registry's client"))
}

fn wrong(what: &str) -> impl FnOnce(RegistryError) -> CliError {
    let what = what.to_owned();
    move |source| CliError::Registry { what, source }
}

async fn manifest(
    registry: &Registry,
    reference: &Reference,
    descriptor: &Descriptor,
    what: &str,
) -> Result<(), CliError> {
    let bytes = registry.manifest(reference, descriptor).await.map_err(wrong(what))?;
    output::print_bytes(&bytes)
}

/// A blob to standard output.
async fn blob(registry: &Registry, reference: &Reference, digest: Digest) -> Result<(), CliError> {
    let what = format!("fetch {digest} from {reference}");
    let descriptor = Descriptor::new("application/octet-stream", digest, SIZE_UNKNOWN);
    let size = match registry.blob(reference, &descriptor, 0).await {
        // The client wants to know the size beforehand: a registry that is asked for too much says how much there is.
        Err(RegistryError::SizeMismatch { actual, .. }) => actual,
        Err(error) => return Err(wrong(&what)(error)),
        Ok(_) => SIZE_UNKNOWN,
    };
    let mut stream =
        registry.blob(reference, &Descriptor { size, ..descriptor }, 0).await.map_err(wrong(&what))?;
    let mut hasher = Hasher::new();
    while let Some(bytes) = stream.next().await {
        let bytes = bytes.map_err(wrong(&what))?;
        hasher.update(&bytes);
        output::print_bytes(&bytes)?;
    }
    let actual = hasher.finish();
    if actual == digest { Ok(()) } else { Err(CliError::WrongContent { expected: digest, actual }) }
}

/// More than any blob has.
const SIZE_UNKNOWN: u64 = u64::MAX;
