//! Pulling: the request from what was typed, the stream of events, Ctrl-C.
//!
//! Cancelling is dropping: the engine sees the stream go and ends the pull, unless another client waits for it too. What
//! has arrived is kept for the next try and removed by the next collection.

use std::env;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use runtime_api::windlass::v1::pull_event::Event;
use runtime_api::windlass::v1::{Credentials, Done, PullRequest};
use tokio::signal::unix::{SignalKind, signal};
use tonic::Status;

use crate::args::{Format, Global, PullArgs, RegistryArgs};
use crate::client::{Client, failed};
use crate::error::CliError;
use crate::image;
use crate::output;
use crate::progress::{Progress, summary};

const SIGINT: u8 = 2;
const SIGTERM: u8 = 15;

/// Longest password that is read from standard input, in bytes; tokens of cloud registries have some thousands.
const PASSWORD_BYTES_MAX: u64 = 64 * 1024;

/// `pull` and `images pull`.
///
/// # Errors
/// [`CliError`]: no engine, the engine's answer, Ctrl-C.
pub(crate) async fn run(global: &Global, args: &PullArgs) -> Result<(), CliError> {
    let credentials = credentials(args.creds.as_deref(), &args.registry)?;
    let request = request(&args.reference.to_string(), &args.registry, credentials);
    let client = Client::connect(global).await?;
    let mut progress = Progress::choose(args.quiet, global.format);
    // To tell a tag that has not moved from one that has.
    let before = image::find(&client, &request.reference).await?.map(|image| image.target.digest.to_string());
    let done = pull(&client, request, &mut progress).await?;
    let moved = before.as_deref() != Some(done.digest.as_str());
    match (args.quiet, global.format) {
        (true, Format::Json) => {
            output::print(&output::json(&serde_json::json!({ "name": done.name, "digest": done.digest }))?)
        }
        (true, Format::Table) => output::print(&format!("{}@{}\n", done.name, done.digest)),
        (false, Format::Json) => Ok(()),
        (false, Format::Table) => output::print(&format!("{}\n", summary(&done, moved))),
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
    let signals = |source| CliError::Process("signals", source);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(signals)?;
    let outcome = tokio::select! {
        outcome = stream(client, request, progress, &what) => outcome,
        _ = interrupt.recv() => Err(CliError::Interrupted(SIGINT)),
        _ = terminate.recv() => Err(CliError::Interrupted(SIGTERM)),
    };
    progress.finish();
    if matches!(outcome, Err(CliError::Interrupted(_))) && progress.wants_summary() {
        output::note(
            "windlass: interrupted; what has arrived is kept, and the same command goes on from there",
        );
    }
    outcome
}

async fn stream(
    client: &Client,
    request: PullRequest,
    progress: &mut Progress,
    what: &str,
) -> Result<Done, CliError> {
    let mut events = client.engine().pull(request).await.map_err(failed(what))?.into_inner();
    while let Some(event) = events.message().await.map_err(failed(what))? {
        progress.event(&event)?;
        if let Some(Event::Done(done)) = event.event {
            return Ok(done);
        }
    }
    Err(failed(what)(Status::internal("the stream of events ended without a result")))
}

/// The request for `reference`, with paths the engine can open from where it is.
pub(crate) fn request(reference: &str, args: &RegistryArgs, credentials: Option<Credentials>) -> PullRequest {
    PullRequest {
        reference: reference.to_owned(),
        platform: args.platform.as_ref().map(ToString::to_string).unwrap_or_default(),
        snapshotter: args.snapshotter.clone().unwrap_or_default(),
        plain_http: args.plain_http,
        skip_verify: args.skip_verify,
        ca_file: absolute(args.ca_file.as_deref()),
        hosts_dir: absolute(args.hosts_dir.as_deref()),
        credentials,
        docker_config: absolute(docker_config().as_deref()),
        ..PullRequest::default()
    }
}

fn absolute(path: Option<&Path>) -> String {
    let whole = path.map(|path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
    whole.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The user's Docker config, if there is one: `$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`.
fn docker_config() -> Option<PathBuf> {
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
        let request = request("a", &args, None);
        assert!(Path::new(&request.ca_file).is_absolute());
        assert!(request.hosts_dir.is_empty());
    }
}
