//! `logs`: what a container printed, and with `-f` what it goes on to print.
//!
//! The engine says where the files are; they are read here, on the same machine. The end of the container ends `-f`: it is
//! waited for first and the files are read once more after it, so that the last line is not missed.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use runtime_api::windlass::v1::{LogsRequest, WaitRequest};
use runtime_logs::{Entry, Options, Reader, Stream};

use crate::args::{Global, LogsArgs};
use crate::client::{Client, failed};
use crate::error::CliError;
use crate::interrupt::or_interrupted;
use crate::output::amount;
use crate::verbs::containers::find;

/// How often files are looked at for more, while a container prints: quick for an eye, and nothing for a processor.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// `logs`.
///
/// # Errors
/// [`CliError::NoLog`] when its output is kept nowhere, [`CliError::File`] when it cannot be read.
pub(crate) async fn run(global: &Global, args: &LogsArgs) -> Result<(), CliError> {
    let client = Client::connect(global).await?;
    let id = find(&client, &args.id).await?.id;
    let options = Options { tail: args.tail.0, since: args.since, until: args.until };
    show(&client, &id, &options, args.follow, args.timestamps).await
}

/// What container `id` prints from here on, until it has ended.
///
/// # Errors
/// As [`run`].
pub(crate) async fn follow(client: &Client, id: &str) -> Result<(), CliError> {
    let options = Options { tail: Some(0), ..Options::default() };
    show(client, id, &options, true, false).await
}

async fn show(
    client: &Client,
    id: &str,
    options: &Options,
    follow: bool,
    timestamps: bool,
) -> Result<(), CliError> {
    let request = LogsRequest { id: id.to_owned() };
    let answer =
        client.lives().logs(request).await.map_err(failed(format!("find the log of container {id}")))?;
    let answer = answer.into_inner();
    if answer.path.is_empty() {
        return Err(CliError::NoLog { id: id.to_owned(), driver: answer.driver });
    }
    let path = Path::new(&answer.path);
    let unread = |source| CliError::File { what: "read", path: path.to_owned(), source };
    let mut reader = Reader::open(path, options).map_err(unread)?;
    let mut show = || -> Result<(), CliError> {
        for entry in &mut reader {
            print(&entry.map_err(unread)?, timestamps)?;
        }
        Ok(())
    };
    show()?;
    if !follow || answer.ended {
        return Ok(());
    }
    let request = WaitRequest { id: id.to_owned(), exec_id: String::new() };
    let mut lives = client.lives();
    let mut ended = std::pin::pin!(lives.wait(request));
    let follow = async {
        loop {
            tokio::select! {
                // A container that was removed meanwhile has ended, too.
                _ = &mut ended => return show(),
                () = tokio::time::sleep(LOOK_AGAIN) => show()?,
            }
        }
    };
    or_interrupted(follow).await
}

/// One piece, to the stream it was printed on. As it is: who reads a log on a terminal trusts what runs there.
fn print(entry: &Entry, timestamps: bool) -> Result<(), CliError> {
    let stamp = if timestamps { format!("{} ", amount::rfc3339_nanos(entry.time)) } else { String::new() };
    let write = |to: &mut dyn Write| {
        to.write_all(stamp.as_bytes())?;
        to.write_all(&entry.bytes)?;
        to.flush()
    };
    let written = match entry.stream {
        Stream::Stdout => write(&mut io::stdout().lock()),
        Stream::Stderr => write(&mut io::stderr().lock()),
    };
    written.map_err(CliError::Output)
}
