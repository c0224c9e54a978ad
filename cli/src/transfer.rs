//! Images on their way: `push`, `images import`, `images export`, `images convert`.
//!
//! Each is one call whose events are shown as they come; Ctrl-C drops the call, and the engine leaves nothing of it. What
//! came of it is written to standard output, one name and digest a line; an archive there comes alone.
//!
//! Not here: pulling (`pull`), which has events of its own.

mod archive;

use std::io::Read as _;
use std::path::Path;

use runtime_api::windlass::v1::transfer_event::Event;
use runtime_api::windlass::v1::{ConvertRequest, PushRequest, TransferDone, TransferEvent};
use tonic::{Status, Streaming};

use crate::args::{ConvertArgs, Format, Global, PushArgs};
use crate::client::{Client, failed};
use crate::error::CliError;
use crate::image;
use crate::interrupt;
use crate::output::{self, printable};
use crate::progress::{Progress, events, transferred};
use crate::pull;

pub(crate) use archive::{export, import};

/// `push` and `images push`.
///
/// # Errors
/// [`CliError`]: nothing of that name, the engine's or the registry's answer, Ctrl-C. The registry may have blobs then, but
/// no tag.
pub(crate) async fn push(global: &Global, args: &PushArgs) -> Result<(), CliError> {
    let registry = Some(pull::options(&args.login)?);
    let client = Client::connect(global).await?;
    let reference = args.reference.to_string();
    let image = match &args.image {
        Some(typed) => image::get(&client, typed).await?,
        None => image::get(&client, &reference).await?,
    };
    let request = PushRequest {
        image: image.name,
        reference: reference.clone(),
        platforms: args.platforms.names(),
        all_platforms: args.platforms.all_platforms,
        registry,
        manifest_digest: args.manifest.map(|digest| digest.to_string()).unwrap_or_default(),
        max_concurrent_uploads: args.max_concurrent_uploaded_layers.unwrap_or(0),
    };
    let what = format!("push {reference}");
    let mut progress = Progress::choose(args.quiet, &global.format);
    let call = async {
        let events = client.engine().push(request).await.map_err(failed(&*what))?.into_inner();
        follow(events, &mut progress, &what).await
    };
    let outcome = interrupt::or_interrupted(call).await;
    progress.finish();
    let done = outcome?;
    if progress.wants_summary() {
        output::note(&transferred("Pushed", &reference, &done));
    }
    told(&done, &global.format, args.quiet)
}

/// `images convert`.
///
/// # Errors
/// [`CliError`]; the image of the new name is then as before.
pub(crate) async fn convert(global: &Global, args: &ConvertArgs) -> Result<(), CliError> {
    let client = Client::connect(global).await?;
    let image = image::get(&client, &args.image).await?;
    let target = image::reference(&args.target)?.to_string();
    let compression = match (args.uncompress, args.compression) {
        (true, _) => "uncompressed",
        (false, Some(compression)) => compression.name(),
        (false, None) => "",
    };
    let prioritized = match &args.prioritize {
        Some(file) => prioritized(file)?,
        None => Vec::new(),
    };
    let what = format!("convert {} to {target}", image.name);
    let request = ConvertRequest {
        image: image.name,
        target: target.clone(),
        compression: compression.to_owned(),
        level: args.level.unwrap_or(0),
        oci: args.oci,
        platforms: args.platforms.names(),
        all_platforms: args.platforms.all_platforms,
        lazy: args.form().to_owned(),
        prioritized,
    };
    let mut progress = Progress::choose(args.quiet, &global.format);
    let call = async {
        let events = client.engine().convert(request).await.map_err(failed(&*what))?.into_inner();
        follow(events, &mut progress, &what).await
    };
    let outcome = interrupt::or_interrupted(call).await;
    progress.finish();
    let done = outcome?;
    if progress.wants_summary() {
        output::note(&transferred("Converted", &target, &done));
    }
    match &global.format {
        // As `ctr` prints it: the digest alone.
        Format::Table => output::print(
            &done.images.iter().map(|image| format!("{}\n", printable(&image.digest))).collect::<String>(),
        ),
        format => told(&done, format, args.quiet),
    }
}

/// Largest list of files to put first, in bytes: what one message to the engine holds.
const PRIORITIZED_BYTES_MAX: u64 = 3 << 20;

/// Reads the list of files to put first.
///
/// # Errors
/// [`CliError::File`].
fn prioritized(path: &Path) -> Result<Vec<u8>, CliError> {
    let failed = |source| CliError::File { what: "read", path: path.to_owned(), source };
    let mut list = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(PRIORITIZED_BYTES_MAX + 1).read_to_end(&mut list).map_err(failed)?;
    if list.len() as u64 > PRIORITIZED_BYTES_MAX {
        return Err(failed(std::io::ErrorKind::FileTooLarge.into()));
    }
    Ok(list)
}

/// Shows events until the one that ends them.
async fn follow(
    mut events: Streaming<TransferEvent>,
    progress: &mut Progress,
    what: &str,
) -> Result<TransferDone, CliError> {
    while let Some(event) = events.message().await.map_err(failed(what))? {
        progress.event(&event)?;
        if let Some(Event::Done(done)) = event.event {
            return Ok(done);
        }
    }
    Err(failed(what)(Status::internal("the stream of events ended without a result")))
}

/// What came of it, on standard output: names and digests, or what a program asked for.
fn told(done: &TransferDone, format: &Format, quiet: bool) -> Result<(), CliError> {
    match format {
        // The last JSON line has said it.
        Format::Json if !quiet => Ok(()),
        Format::Template(template) => {
            let document = events::transfer_done(done);
            let images = document["images"].as_array().cloned().unwrap_or_default();
            output::print(&template.render_all(&images)?)
        }
        format => output::document(format, &events::transfer_done(done), || {
            let line = |image: &runtime_api::windlass::v1::NamedDigest| {
                format!("{}@{}\n", printable(&image.name), printable(&image.digest))
            };
            done.images.iter().map(line).collect()
        }),
    }
}
