//! Pulling: the request from what was typed, the stream of events, Ctrl-C.
//!
//! Cancelling is dropping: the engine sees the stream go and ends the pull, unless another client waits for it too. What
//! has arrived is kept for the next try and removed by the next collection.

use std::env;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use runtime_api::windlass::v1::pull_event::Event;
use runtime_api::windlass::v1::{Credentials, Done, PullEvent, PullRequest, RegistryOptions, UnpackRequest};
use tonic::{Status, Streaming};

use crate::args::{FetchArgs, Format, Global, LoginArgs, PlatformsArgs, PullArgs, RegistryArgs, UnpackArgs};
use crate::client::{Client, failed};
use crate::error::CliError;
use crate::image;
use crate::interrupt::{self, SIGINT};
use crate::output;
use crate::progress::{Progress, events, summary};
use crate::verbs::label_map;

/// Longest password that is read from standard input, in bytes; tokens of cloud registries have some thousands.
const PASSWORD_BYTES_MAX: u64 = 64 * 1024;

/// `pull` and `images pull`.
///
/// # Errors
/// [`CliError`]: no engine, the engine's answer, Ctrl-C.
pub(crate) async fn run(global: &Global, args: &PullArgs) -> Result<(), CliError> {
    let mut request = request(&args.reference.to_string(), &args.login)?;
    platforms(&mut request, &args.platforms);
    request.snapshotter = args.snapshotter.name();
    request.no_unpack = args.no_unpack;
    request.lazy = args.lazy.word();
    request.no_fill = args.lazy.no_fill;
    request.labels = label_map(&args.label);
    request.max_concurrent_downloads = args.max_concurrent_downloads.unwrap_or(0);
    bring(global, request, args.quiet, args.print_chainid).await
}

/// `content fetch`: the same without unpacking.
///
/// # Errors
/// As [`run`].
pub(crate) async fn fetch(global: &Global, args: &FetchArgs) -> Result<(), CliError> {
    let mut request = request(&args.reference.to_string(), &args.login)?;
    platforms(&mut request, &args.platforms);
    request.no_unpack = true;
    request.labels = label_map(&args.label);
    request.max_concurrent_downloads = args.max_concurrent_downloads.unwrap_or(0);
    bring(global, request, args.quiet, false).await
}

async fn bring(global: &Global, request: PullRequest, quiet: bool, with_chain: bool) -> Result<(), CliError> {
    let client = Client::connect(global).await?;
    let mut progress = Progress::choose(quiet, &global.format);
    // To tell a tag that has not moved from one that has.
    let before = image::find(&client, &request.reference).await?.map(|image| image.target.digest.to_string());
    let done = pull(&client, request, &mut progress).await?;
    let moved = before.as_deref() != Some(done.digest.as_str());
    match (quiet, &global.format) {
        (true, Format::Json) => {
            output::print(&output::json(&serde_json::json!({ "name": done.name, "digest": done.digest }))?)
        }
        (false, Format::Json) => Ok(()),
        (true, Format::Table) => output::print(&format!("{}@{}\n", done.name, done.digest)),
        (false, Format::Table) => output::print(&format!("{}\n", summary(&done, moved))),
        (_, format) => output::document(format, &events::pull_done(&done), String::new),
    }?;
    match (&global.format, with_chain) {
        (Format::Table, true) => {
            output::print(&format!("image chain ID: {}\n", output::printable(&done.chain_id)))
        }
        _ => Ok(()),
    }
}

/// `snapshots unpack`: prints the chain ID.
///
/// # Errors
/// As [`run`].
pub(crate) async fn unpack(
    client: &Client,
    args: &UnpackArgs,
    snapshotter: &str,
    format: &Format,
) -> Result<(), CliError> {
    let image = image::get(client, &args.image).await?;
    let what = format!("unpack {}", image.name);
    let request = UnpackRequest {
        image: image.name,
        platform: args.platform.as_ref().map(ToString::to_string).unwrap_or_default(),
        snapshotter: snapshotter.to_owned(),
    };
    let mut progress = Progress::choose(args.quiet, format);
    let call = async {
        let events = client.engine().unpack(request).await.map_err(failed(&*what))?.into_inner();
        stream(events, &mut progress, &what).await
    };
    let outcome = interrupt::or_interrupted(call).await;
    progress.finish();
    let done = outcome?;
    match format {
        Format::Json if !args.quiet => Ok(()),
        _ => output::document(format, &events::pull_done(&done), || {
            format!("{}\n", output::printable(&done.chain_id))
        }),
    }
}

/// Pulls, showing events in `progress`; returns what came of it.
///
/// # Errors
/// [`CliError::Engine`] with the engine's answer, [`CliError::Interrupted`] after Ctrl-C or SIGTERM.
pub(crate) async fn pull(
    client: &Client,
    request: PullRequest,
    progress: &mut Progress,
) -> Result<Done, CliError> {
    let what = format!("pull {}", request.reference);
    let call = async {
        let events = client.engine().pull(request).await.map_err(failed(&*what))?.into_inner();
        stream(events, progress, &what).await
    };
    let outcome = interrupt::or_interrupted(call).await;
    progress.finish();
    if matches!(outcome, Err(CliError::Interrupted(_))) && progress.wants_summary() {
        output::note(
            "windlass: interrupted; what has arrived is kept, and the same command goes on from there",
        );
    }
    outcome
}

async fn stream(
    mut events: Streaming<PullEvent>,
    progress: &mut Progress,
    what: &str,
) -> Result<Done, CliError> {
    while let Some(event) = events.message().await.map_err(failed(what))? {
        progress.event(&event)?;
        if let Some(Event::Done(done)) = event.event {
            return Ok(done);
        }
    }
    Err(failed(what)(Status::internal("the stream of events ended without a result")))
}

/// The request for `reference`, with paths the engine can open from where it is.
///
/// # Errors
/// [`CliError::Password`] when it has to be asked for and there is no terminal.
pub(crate) fn request(reference: &str, login: &LoginArgs) -> Result<PullRequest, CliError> {
    let credentials = credentials(login.creds.as_deref(), &login.registry)?;
    Ok(request_with(reference, &login.registry, credentials))
}

/// The same with a login that is known already.
pub(crate) fn request_with(
    reference: &str,
    args: &RegistryArgs,
    credentials: Option<Credentials>,
) -> PullRequest {
    let options = options_with(args, credentials);
    PullRequest {
        reference: reference.to_owned(),
        plain_http: options.plain_http,
        skip_verify: options.skip_verify,
        ca_file: options.ca_file,
        hosts_dir: options.hosts_dir,
        credentials: options.credentials,
        docker_config: options.docker_config,
        ..PullRequest::default()
    }
}

fn platforms(request: &mut PullRequest, args: &PlatformsArgs) {
    let mut names = args.names();
    if !names.is_empty() {
        request.platform = names.remove(0);
    }
    request.platforms = names;
    request.all_platforms = args.all_platforms;
}

/// How the engine shall speak to a registry.
///
/// # Errors
/// [`CliError::Password`].
pub(crate) fn options(login: &LoginArgs) -> Result<RegistryOptions, CliError> {
    let credentials = credentials(login.creds.as_deref(), &login.registry)?;
    Ok(options_with(&login.registry, credentials))
}

fn options_with(args: &RegistryArgs, credentials: Option<Credentials>) -> RegistryOptions {
    RegistryOptions {
        plain_http: args.plain_http,
        skip_verify: args.skip_verify,
        ca_file: absolute(args.ca_file.as_deref()),
        hosts_dir: absolute(args.hosts_dir.as_deref()),
        credentials,
        docker_config: absolute(docker_config().as_deref()),
    }
}

fn absolute(path: Option<&Path>) -> String {
    let whole = path.map(|path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
    whole.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The user's Docker config, if there is one: `$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`.
pub(crate) fn docker_config() -> Option<PathBuf> {
    let directory = match env::var_os("DOCKER_CONFIG").filter(|value| !value.is_empty()) {
        Some(directory) => PathBuf::from(directory),
        None => PathBuf::from(env::var_os("HOME").filter(|home| !home.is_empty())?).join(".docker"),
    };
    Some(directory.join("config.json")).filter(|file| file.is_file())
}

/// The login from `--creds`, with the password from there, from standard input, or asked for.
///
/// # Errors
/// [`CliError::Password`] when it has to be asked for and there is no terminal.
pub(crate) fn credentials(creds: Option<&str>, args: &RegistryArgs) -> Result<Option<Credentials>, CliError> {
    let Some(creds) = creds else { return Ok(None) };
    let (user, given) = match creds.split_once(':') {
        Some((user, password)) => (user, Some(password.to_owned())),
        None => (creds, None),
    };
    let password = match given {
        _ if args.password_stdin => password_from(io::stdin().lock()),
        Some(password) => Ok(password),
        None => ask(user),
    };
    let password = password.map_err(|source| match source.kind() {
        io::ErrorKind::Interrupted => CliError::Interrupted(SIGINT),
        _ => CliError::Password { user: user.to_owned(), source },
    })?;
    Ok(Some(Credentials { username: user.to_owned(), password }))
}

/// A password and perhaps a line end, which is not part of it.
fn password_from(input: impl Read) -> io::Result<String> {
    let mut text = String::new();
    input.take(PASSWORD_BYTES_MAX).read_to_string(&mut text)?;
    let password = text.strip_suffix('\n').unwrap_or(&text);
    let password = password.strip_suffix('\r').unwrap_or(password);
    if password.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "standard input is empty"));
    }
    Ok(password.to_owned())
}

/// Asks on the terminal, without showing what is typed.
fn ask(user: &str) -> io::Result<String> {
    if !io::stdin().is_terminal() {
        return Err(io::Error::new(io::ErrorKind::NotConnected, "standard input is not a terminal"));
    }
    storage_sys::prompt::password(&format!("Password for {}: ", output::printable(user)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_from_a_pipe_loses_only_its_line_end() {
        for (input, password) in
            [("secret", "secret"), ("secret\n", "secret"), ("two words\r\n", "two words"), ("a\n\n", "a\n")]
        {
            assert_eq!(password_from(input.as_bytes()).unwrap(), password);
        }
        assert!(password_from(&b"\n"[..]).is_err());
    }

    #[test]
    fn a_login_may_carry_its_password_with_colons() {
        let args = RegistryArgs::default();
        let login = credentials(Some("me:a:b"), &args).unwrap().unwrap();
        assert_eq!((login.username.as_str(), login.password.as_str()), ("me", "a:b"));
        assert!(credentials(None, &args).unwrap().is_none());
    }

    #[test]
    fn the_engine_gets_absolute_paths() {
        let args = RegistryArgs { ca_file: Some("ca.pem".into()), ..RegistryArgs::default() };
        let request = request_with("a", &args, None);
        assert!(Path::new(&request.ca_file).is_absolute());
        assert!(request.hosts_dir.is_empty());
    }
}
