//! `run`: the image, the container, and then the wires between the user and its process.
//!
//! `image here? -> pull -> Engine.Run (record, snapshot, shim) -> shim: start -> signals, window size -> wait -> its code`.
//! Whatever fails before the process runs is exit code 125, unless the shim says 126 or 127. With `--rm` the engine
//! removes the container, so a client that dies leaves nothing behind.

mod attach;
mod environment;
mod exec;
mod id_file;
mod request;
mod security;
mod signals;
mod terminal;

use runtime_api::windlass::v1::{RunResponse, StartRequest, WaitRequest};
use storage_model::Platform;

use crate::args::{Format, Global, OneArgs, PullPolicy, RunArgs, StartTaskArgs};
use crate::client::{Client, failed};
use crate::error::CliError;
use crate::image::{self, Details, Image};
use crate::output;
use crate::progress::Progress;
use crate::pull;
use crate::verbs::containers::find;

pub(crate) use exec::exec;

/// Runs the container; returns the exit code of its process.
///
/// # Errors
/// [`CliError::NotStarted`] with whatever kept the process from running.
pub(crate) async fn run(global: &Global, args: &RunArgs) -> Result<u8, CliError> {
    begin(global, args).await.map_err(CliError::before_start)
}

async fn begin(global: &Global, args: &RunArgs) -> Result<u8, CliError> {
    // All that can be wrong with the arguments, before anything is made.
    let mut request = request::build(args)?;
    let client = Client::connect(global).await?;
    if args.root().is_none() {
        request.image = bring(&client, args).await?;
    }
    let what = format!("run {}", request.image);
    // Taken first: a file that is there already is somebody's.
    let mut cid_file = args.cidfile.as_deref().map(id_file::Taken::take).transpose()?;
    let started = client.engine().run(request).await.map_err(failed(what))?.into_inner();
    if let Some(file) = &mut cid_file {
        file.fill(&started.id)?;
    }
    let pid_file = args.pid_file.as_deref();
    if args.detach {
        if let Some(path) = pid_file {
            id_file::write_pid(path, find(&client, &started.id).await?.pid)?;
        }
        output::print(&format!("{}\n", started.id))?;
        return Ok(0);
    }
    attach::attach(&client, &started, attach::How { tty: args.tty, rm: args.rm, pid_file }).await
}

/// `tasks start`: starts a container again, with our own standard descriptors or on its terminal.
///
/// # Errors
/// As [`run`].
pub(crate) async fn start(global: &Global, args: &StartTaskArgs) -> Result<u8, CliError> {
    let client = Client::connect(global).await?;
    let container = find(&client, &args.id).await?;
    let id = container.id.clone();
    let request = StartRequest { id: id.clone(), attach: !args.detach };
    let started = client.lives().start(request).await.map_err(failed(format!("start container {id}")))?;
    if args.detach {
        return output::print(&format!("{id}\n")).map(|()| crate::error::exit::OK);
    }
    let started = RunResponse { id, shim_socket: started.into_inner().shim_socket };
    let how = attach::How { tty: container.terminal, rm: false, pid_file: None };
    attach::attach(&client, &started, how).await
}

/// `attach`: the terminal of a container that runs, or what it prints from here on.
///
/// # Errors
/// [`CliError`].
pub(crate) async fn attach_to(global: &Global, args: &OneArgs) -> Result<u8, CliError> {
    let client = Client::connect(global).await?;
    let container = find(&client, &args.id).await?;
    if container.terminal && !container.bundle.is_empty() {
        let socket = runtime_shim::socket_path(std::path::Path::new(&container.bundle));
        return attach::join(&container.id, &socket, container.pid).await;
    }
    let id = container.id.clone();
    crate::verbs::life::logs::follow(&client, &id).await?;
    let request = WaitRequest { id: id.clone(), exec_id: String::new() };
    let ended = client.lives().wait(request).await.map_err(failed(format!("wait for container {id}")))?;
    Ok(u8::try_from(ended.into_inner().exit_code).unwrap_or(u8::MAX))
}

/// The full name of the image, which is here afterwards.
async fn bring(client: &Client, args: &RunArgs) -> Result<String, CliError> {
    let typed = args.image();
    let here = image::find(client, typed).await?;
    let fits = match &here {
        Some(image) => other_platform(client, image, args).await?.is_none(),
        None => false,
    };
    let wanted = match args.pull {
        PullPolicy::Always => true,
        PullPolicy::Missing => !fits,
        PullPolicy::Never => false,
    };
    match &here {
        Some(image) if !wanted => return is_asked_for(client, image, args).await,
        None if !wanted => return image::get(client, typed).await.map(|image| image.name),
        _ => {}
    }
    let reference = image::reference(typed)?;
    let credentials = pull::credentials(args.creds.as_deref(), &args.registry)?;
    let mut request = pull::request_with(&reference.to_string(), &args.registry, credentials);
    request.platform = args.platform.as_ref().map(ToString::to_string).unwrap_or_default();
    request.snapshotter = args.snapshotter.name();
    request.lazy = args.lazy.word();
    request.no_fill = args.lazy.no_fill;
    // Standard output is the container's: no JSON lines here.
    let mut progress = Progress::choose(args.quiet, &Format::Table);
    let done = pull::pull(client, request, &mut progress).await?;
    if progress.wants_summary() {
        output::note(&crate::progress::summary(&done, here.is_none()));
    }
    is_asked_for(client, &image::get(client, &done.name).await?, args).await
}

/// The image's name, if what the engine would run of it is for the platform that was asked for.
async fn is_asked_for(client: &Client, image: &Image, args: &RunArgs) -> Result<String, CliError> {
    match (other_platform(client, image, args).await?, &args.platform) {
        (Some(here), Some(wanted)) => Err(CliError::OtherPlatform {
            name: image.name.clone(),
            here: here.to_string(),
            wanted: wanted.to_string(),
        }),
        _ => Ok(image.name.clone()),
    }
}

/// The platform the engine would run of an image, if that is not the one that is asked for.
async fn other_platform(
    client: &Client,
    image: &Image,
    args: &RunArgs,
) -> Result<Option<Platform>, CliError> {
    let Some(wanted) = &args.platform else { return Ok(None) };
    let here = Details::read(client, image).await?.platform();
    Ok(Some(here).filter(|here| here != wanted))
}
