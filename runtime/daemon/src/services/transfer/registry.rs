//! The registry end of a transfer: how it is spoken to, and the client's credentials.

use runtime_api::any;
use runtime_api::containerd::types::transfer as wire;
use runtime_engine::RegistryOptions;
use storage_model::{Namespace, Reference};
use storage_registry::{Credentials, Secret};
use tonic::Status;

use crate::status::{invalid, status};
use crate::streams::{Stream, Streams};

/// What a client says of a registry, in the engine's words.
///
/// The client is asked for credentials at once, not when the registry wants them: it is asked once, for the host of the
/// reference and no other, so nothing of it can go elsewhere. `http_debug` is a matter of our own log.
///
/// # Errors
/// `Unimplemented` for headers, `NotFound` for a stream that is not open, `InvalidArgument` for what cannot be read.
pub(super) async fn options(
    registry: &wire::OciRegistry,
    streams: &Streams,
    namespace: &Namespace,
) -> Result<RegistryOptions, Status> {
    let Some(resolver) = &registry.resolver else { return Ok(RegistryOptions::default()) };
    if let Some(name) = resolver.headers.keys().next() {
        return Err(Status::unimplemented(format!(
            "headers of the client's own, like {name:?}, are not sent"
        )));
    }
    let credentials = match resolver.auth_stream.as_str() {
        "" => None,
        stream => ask(streams.take(namespace, stream)?, &registry.reference).await?,
    };
    let hosts_dir = match resolver.host_dir.as_str() {
        "" => None,
        path if path.starts_with('/') => Some(path.into()),
        path => return Err(invalid(format!("the directory of hosts {path:?} is not an absolute path"))),
    };
    let plain_http = match resolver.default_scheme.as_str() {
        "" | "https" => false,
        "http" => true,
        other => return Err(invalid(format!("registries speak http or https, not {other:?}"))),
    };
    Ok(RegistryOptions { plain_http, hosts_dir, credentials, ..Default::default() })
}

/// Asks the client who it is to the registry of `reference`.
async fn ask(stream: Stream, reference: &str) -> Result<Option<Credentials>, Status> {
    let Stream { mut from_client, to_client } = stream;
    let parsed: Reference = reference.parse().map_err(|error| invalid(format!("{reference:?}: {error}")))?;
    let question = wire::AuthRequest {
        host: parsed.registry().to_string(),
        reference: reference.to_owned(),
        wwwauthenticate: Vec::new(),
    };
    let gone = || Status::cancelled("the client left without its credentials");
    to_client.send(Ok(any::pack(&question))).await.map_err(|_| gone())?;
    let answer = from_client.message().await?.ok_or_else(gone)?;
    let answer: wire::AuthResponse = any::unpack(&answer).map_err(status)?;
    Ok(match answer.auth_type() {
        wire::AuthType::None => None,
        wire::AuthType::Credentials if answer.username.is_empty() && answer.secret.is_empty() => None,
        wire::AuthType::Credentials => Some(Credentials::password(answer.username, answer.secret)),
        wire::AuthType::Refresh => Some(Credentials::IdentityToken(Secret::new(answer.secret))),
        wire::AuthType::Header => {
            return Err(Status::unimplemented(
                "a whole Authorization header is not taken: give a name and a password",
            ));
        }
    })
}
