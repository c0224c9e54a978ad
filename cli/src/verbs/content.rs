//! `content ...`: which verb is where, and those that touch one blob.

mod edit;
mod list;
mod prune;
mod remote;
mod upload;

use runtime_api::containerd::services::content::v1::{DeleteContentRequest, Info, UpdateRequest};

use super::{all_labels, for_each, label_change};
use crate::args::{ContentVerb, Format, Global, Label};
use crate::client::{Client, failed};
use crate::error::CliError;
use crate::output::{self, printable};
use crate::pull;

/// Fewest digits of a digest that are taken for the beginning of one.
const DIGITS_MIN: usize = 4;

/// `content ...`.
///
/// # Errors
/// [`CliError`].
pub(crate) async fn run(global: &Global, verb: &ContentVerb) -> Result<(), CliError> {
    let format = &global.format;
    let connect = || Client::connect(global);
    match verb {
        ContentVerb::Ls(args) => list::run(&connect().await?, args, format).await,
        ContentVerb::Active(args) => list::active(&connect().await?, args, format).await,
        ContentVerb::Get { digest } => get(&connect().await?, digest).await,
        ContentVerb::Rm { digests } => {
            let client = connect().await?;
            for_each(digests, |digest| remove(&client, digest)).await
        }
        ContentVerb::Label { digest, labels } => label(&connect().await?, digest, labels, format).await,
        ContentVerb::Edit(args) => edit::run(&connect().await?, args).await,
        ContentVerb::Ingest(args) => upload::ingest(&connect().await?, args).await,
        ContentVerb::Fetch(args) => pull::fetch(global, args).await,
        ContentVerb::FetchObject(args) => remote::fetch_object(args).await,
        ContentVerb::FetchBlob(args) => remote::fetch_blobs(args).await,
        ContentVerb::PushObject(args) => remote::push_object(&connect().await?, args).await,
        ContentVerb::Prune(args) => prune::run(&connect().await?, args, format).await,
    }
}

/// The whole digest that `typed` is, or is the beginning of.
///
/// # Errors
/// [`CliError::NotFound`], [`CliError::Ambiguous`], and the engine's.
async fn resolve(client: &Client, typed: &str) -> Result<String, CliError> {
    let digits = typed.strip_prefix("sha256:").unwrap_or(typed);
    let is_hex = digits.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
    if is_hex && digits.len() == 64 {
        return Ok(format!("sha256:{digits}"));
    }
    let not_found = || CliError::NotFound {
        kind: "content",
        name: typed.to_owned(),
        namespace: client.namespace().to_string(),
    };
    if !is_hex || digits.len() < DIGITS_MIN {
        return Err(not_found());
    }
    let mut matching: Vec<String> =
        list::all(client, &[]).await?.into_iter().map(|info| info.digest).collect();
    matching.retain(|digest| digest.strip_prefix("sha256:").is_some_and(|hex| hex.starts_with(digits)));
    match (matching.len(), matching.pop()) {
        (1, Some(digest)) => Ok(digest),
        (_, None) => Err(not_found()),
        (_, Some(last)) => {
            matching.push(last);
            let given = typed.to_owned();
            Err(CliError::Ambiguous { kind: "digest", given, names: matching.join(", ") })
        }
    }
}

async fn get(client: &Client, typed: &str) -> Result<(), CliError> {
    let digest = resolve(client, typed).await?;
    copy(client, &digest).await
}

/// Content to standard output, as it is.
///
/// # Errors
/// The engine's, and [`CliError::Output`].
pub(crate) async fn copy(client: &Client, digest: &str) -> Result<(), CliError> {
    let what = format!("get {digest}");
    let mut stream = client.read(digest).await.map_err(failed(&*what))?;
    while let Some(part) = stream.message().await.map_err(failed(&*what))? {
        output::print_bytes(&part.data)?;
    }
    Ok(())
}

async fn remove(client: &Client, typed: &str) -> Result<(), CliError> {
    let digest = resolve(client, typed).await?;
    let request = DeleteContentRequest { digest: digest.clone() };
    client.content().delete(request).await.map_err(failed(format!("remove {digest}")))?;
    output::print(&format!("{digest}\n"))
}

async fn label(client: &Client, typed: &str, labels: &[Label], format: &Format) -> Result<(), CliError> {
    let digest = resolve(client, typed).await?;
    let what = format!("label {digest}");
    let (labels, mask) = label_change(labels);
    let info = Some(Info { digest, labels, ..Info::default() });
    let request = UpdateRequest { info, update_mask: Some(mask) };
    let updated = client.content().update(request).await.map_err(failed(what))?.into_inner();
    let labels: std::collections::BTreeMap<_, _> =
        updated.info.unwrap_or_default().labels.into_iter().collect();
    output::document(format, &labels, || format!("{}\n", printable(&all_labels(&labels))))
}
