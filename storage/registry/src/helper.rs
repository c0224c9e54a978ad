//! Credential helpers: programs named `docker-credential-NAME` that give the login of a server.
//!
//! The server goes to the program's standard input; it answers with JSON, or fails. "Not found" is an answer
//! (anonymous); any other failure is an error, never a reason to try another login.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use crate::{Credentials, Secret};

/// Longest a helper may take: some ask a cloud service.
const HELPER_SECONDS_MAX: u64 = 30;
/// Most output of a helper that is read, in bytes.
const OUTPUT_BYTES_MAX: u64 = 256 * 1024;

/// What went wrong with a helper. Never holds its output, which may be a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HelperFault {
    /// The configured name could be a path.
    #[error("its name may only have letters, digits, '.', '_' and '-'")]
    Name,
    /// Not installed, or not executable.
    #[error("the program cannot be started: is it installed and in PATH?")]
    Start(#[source] io::Error),
    /// It could not be talked to.
    #[error("talking to the program failed")]
    Talk(#[source] io::Error),
    /// It ended with an error.
    #[error("the program failed ({0})")]
    Failed(std::process::ExitStatus),
    /// It took too long.
    #[error("the program did not answer within {HELPER_SECONDS_MAX} s")]
    Slow,
    /// It answered something else than JSON with a user name and a secret.
    #[error("its answer is not the JSON of a login")]
    Answer,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Username")]
    username: String,
    #[serde(rename = "Secret")]
    secret: String,
}

/// The program of helper `name`.
pub(crate) fn program(name: &str) -> String {
    format!("docker-credential-{}", name.chars().take(80).collect::<String>())
}

/// Asks helper `name` for the login of `server`; `None` if it has none.
pub(crate) async fn get(name: &str, server: &str) -> Result<Option<Credentials>, HelperFault> {
    let fine = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
    if name.is_empty() || name.len() > 80 || !name.bytes().all(fine) {
        return Err(HelperFault::Name);
    }
    let limit = Duration::from_secs(HELPER_SECONDS_MAX);
    tokio::time::timeout(limit, ask(name, server)).await.map_err(|_| HelperFault::Slow)?
}

async fn ask(name: &str, server: &str) -> Result<Option<Credentials>, HelperFault> {
    let mut child = Command::new(program(name))
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(HelperFault::Start)?;
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(server.as_bytes()).await {
            // A helper may answer without reading its input.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(HelperFault::Talk(error)),
            _ => {}
        }
    }
    let mut output = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(OUTPUT_BYTES_MAX).read_to_end(&mut output).await.map_err(HelperFault::Talk)?;
    }
    let status = child.wait().await.map_err(HelperFault::Talk)?;
    if !status.success() {
        // The words are those of docker-credential-helpers (`credentials/error.go`): they are the protocol.
        let absent = String::from_utf8_lossy(&output).contains("credentials not found in native keychain");
        return if absent { Ok(None) } else { Err(HelperFault::Failed(status)) };
    }
    let answer: Answer = serde_json::from_slice(&output).map_err(|_| HelperFault::Answer)?;
    Ok(match (answer.username.as_str(), answer.secret) {
        (_, secret) if secret.is_empty() => None,
        ("<token>", secret) => Some(Credentials::IdentityToken(Secret::new(secret))),
        (username, secret) => Some(Credentials::password(username, secret)),
    })
}
