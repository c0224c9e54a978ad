//! Errors in words: `windlass: <what>: <why>`, and below it what to try. The one place where gRPC's codes become English.
//!
//! The engine's messages say what, which one, and why, and most say what to do; advice is added here only when it knows
//! something the engine does not: how this command was called, and by whom.

use std::error::Error;
use std::io;

use tonic::{Code, Status};

use crate::error::{CliError, StartError};
use crate::output::printable;

/// What standard error gets for `error`, with a line end; nothing when there is nothing to say.
pub(crate) fn report(error: &CliError) -> String {
    if error.is_silent() {
        return String::new();
    }
    let mut text = format!("windlass: {}\n", explain(error));
    if let Some(advice) = advice(error) {
        text.push_str(&format!("try: {advice}\n"));
    }
    text
}

/// The error and its causes on one line, each once.
fn explain(error: &CliError) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let more = match as_status(next) {
            Some(status) => of_status(status),
            None => match next.downcast_ref::<io::Error>() {
                Some(error) => of_io(error),
                None => next.to_string(),
            },
        };
        if !words.ends_with(&more) {
            words = format!("{words}: {more}");
        }
        // A status has said everything; below it there is only the transport's jargon.
        cause = if as_status(next).is_some() { None } else { next.source() };
    }
    words
}

/// The engine's answer, boxed as [`CliError`] keeps it or not.
fn as_status<'error>(error: &'error (dyn Error + 'static)) -> Option<&'error Status> {
    error.downcast_ref::<Box<Status>>().map(AsRef::as_ref).or_else(|| error.downcast_ref::<Status>())
}

/// The engine's answer. Its message is made printable: it may quote a registry or an image.
fn of_status(status: &Status) -> String {
    let message = printable(status.message());
    let code = match status.code() {
        // The message says it.
        Code::NotFound
        | Code::AlreadyExists
        | Code::InvalidArgument
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::Aborted
        | Code::Ok => "",
        Code::Cancelled => "cancelled",
        Code::DeadlineExceeded => "it took too long",
        Code::ResourceExhausted => "something has run out",
        Code::Unimplemented => "the engine does not know this call",
        Code::Unavailable if is_transport(status) => "the engine went away",
        Code::Unavailable => "not possible just now",
        Code::DataLoss => "damaged data",
        Code::Internal | Code::Unknown => "the engine failed",
    };
    match (code, message.as_str()) {
        ("", "") => status.code().description().to_owned(),
        ("", message) => message.to_owned(),
        (code, "") => code.to_owned(),
        (code, _) if is_transport(status) => code.to_owned(),
        (code, message) => format!("{code}: {message}"),
    }
}

/// Whether the status was made up on our side because the connection ended.
fn is_transport(status: &Status) -> bool {
    status.source().is_some()
}

/// The operating system's words without its number.
fn of_io(error: &io::Error) -> String {
    let words = error.to_string();
    words.split(" (os error ").next().unwrap_or(&words).to_owned()
}

/// What the user can do about it.
fn advice(error: &CliError) -> Option<&'static str> {
    match error {
        CliError::NotStarted(error) | CliError::NotChecked(error) => advice(error),
        CliError::TerminalInput(_) => Some("name a file, or send it in: `< FILE`, `PROGRAM |`"),
        CliError::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
            Some("another port with --listen ADDRESS:PORT; port 0 is a free one")
        }
        CliError::Terminal(_) => Some("send it to a file or a program: `> FILE`, `| PROGRAM`"),
        CliError::Engine { what, source } => of_code(what, source),
        CliError::Connect { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => Some(AS_ROOT),
        CliError::Connect { .. } => {
            Some("is `windlass daemon` running there? Without --address one is started when it is needed")
        }
        CliError::Start(StartError::File { source, .. }) if is_permission(source) => Some(AS_ROOT),
        CliError::Start(_) => Some("`windlass daemon` with the same --root and --state shows all it says"),
        CliError::WrongRoot { .. } => {
            Some("give this root an engine of its own with --state DIR, or leave --root out")
        }
        CliError::SocketPath(_) => Some("choose a shorter directory with --state"),
        CliError::NotUnpacked { .. } => Some("`windlass snapshots unpack IMAGE` unpacks it"),
        CliError::NotFound { kind: "lease", .. } => Some("`windlass leases ls` lists those there are"),
        CliError::NotFound { kind: "content", .. } => Some("`windlass content ls` lists what is here"),
        CliError::OtherPlatform { .. } => Some("name the manifest of that platform: REPOSITORY@sha256:..."),
        CliError::NotFound { kind: "container", .. } => {
            Some("`windlass containers ls` lists those there are")
        }
        CliError::Password { .. } => {
            Some("give it as --creds USER:PASSWORD, or pipe it in with --password-stdin")
        }
        _ => None,
    }
}

const AS_ROOT: &str = "run it as root, or with `sudo`: mounting images needs root's rights";

fn is_permission(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

/// Advice by the engine's code and what was asked; none when its message gives some itself.
fn of_code(what: &str, status: &Status) -> Option<&'static str> {
    let pulls = what.starts_with("pull ");
    let message = status.message();
    match status.code() {
        _ if ["try ", "use --", "--force", "run `", "`windlass"]
            .iter()
            .any(|advice| message.contains(advice)) =>
        {
            None
        }
        Code::Unauthenticated | Code::PermissionDenied if pulls => {
            Some("log in with `docker login` (its config.json is read here), or give --creds USER")
        }
        Code::NotFound if what.starts_with(crate::image::LOOK_FOR) => {
            Some("`windlass images ls` lists those that are here, `windlass pull` brings one in")
        }
        Code::NotFound if pulls && message.contains("not found") => {
            Some("a private image needs a login as well: `docker login`, or --creds USER")
        }
        Code::ResourceExhausted => Some("`windlass gc` frees what nothing uses; `df` shows what is full"),
        Code::Unavailable if is_transport(status) => {
            Some("again; if it stays away, its log is daemon.log in the root directory")
        }
        Code::Unavailable | Code::DeadlineExceeded if pulls => {
            Some("again: what has arrived is kept and not fetched twice")
        }
        Code::DataLoss if pulls => Some("again; when it stays so, the registry's copy is damaged"),
        Code::Unimplemented => {
            Some("`windlass version`: an older engine may still be running; stop it and repeat")
        }
        Code::Internal | Code::Unknown => {
            Some("the engine's log (daemon.log in the root directory) has more")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine(what: &str, status: Status) -> String {
        report(&CliError::Engine { what: what.to_owned(), source: Box::new(status) })
    }

    #[test]
    fn an_answer_of_the_engine_is_told_with_its_message_and_advice() {
        for (what, status, expected) in [
            (
                "pull a",
                Status::not_found("docker.io/library/a has no tag latest"),
                "windlass: pull a: docker.io/library/a has no tag latest\n",
            ),
            ("remove image a", Status::not_found("no image a"), "windlass: remove image a: no image a\n"),
            (
                "pull a",
                Status::unauthenticated("x refused the login"),
                "windlass: pull a: x refused the login\ntry: log in with `docker login` (its config.json is read here), or give --creds USER\n",
            ),
            (
                "remove container c",
                Status::failed_precondition("container c is running: use --force"),
                "windlass: remove container c: container c is running: use --force\n",
            ),
            (
                "pull a",
                Status::resource_exhausted("/var/lib/windlass is full"),
                "windlass: pull a: something has run out: /var/lib/windlass is full\ntry: `windlass gc` frees what nothing uses; `df` shows what is full\n",
            ),
            (
                "collect",
                Status::internal("broken"),
                "windlass: collect: the engine failed: broken\ntry: the engine's log (daemon.log in the root directory) has more\n",
            ),
            (
                "x",
                Status::permission_denied(""),
                "windlass: x: The caller does not have permission to execute the specified operation\n",
            ),
        ] {
            assert_eq!(engine(what, status), expected);
        }
    }

    #[test]
    fn a_message_that_quotes_a_registry_cannot_move_the_cursor() {
        assert!(!engine("pull a", Status::not_found("evil \u{1b}[2J")).contains('\u{1b}'));
    }

    #[test]
    fn missing_rights_say_run_as_root() {
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        let start = StartError::File { what: "create", path: "/run/windlass".into(), source: denied() };
        for error in [
            CliError::Start(start),
            CliError::Connect { socket: "/run/windlass/windlass.sock".into(), source: denied() },
        ] {
            assert!(report(&error).ends_with(&format!("try: {AS_ROOT}\n")), "{}", report(&error));
        }
    }

    #[test]
    fn a_daemon_that_died_has_its_last_words_shown() {
        let ended = StartError::Ended {
            words: vec!["one".to_owned(), "two".to_owned()],
            log: "/r/daemon.log".into(),
        };
        let text = report(&CliError::Start(ended));
        assert!(
            text.starts_with(
                "windlass: start the engine: it ended at once; the end of /r/daemon.log:\n  one\n  two\ntry: "
            ),
            "{text}"
        );
    }

    #[test]
    fn a_reader_that_went_away_is_told_nothing() {
        assert_eq!(report(&CliError::Output(io::Error::from(io::ErrorKind::BrokenPipe))), "");
        assert_eq!(report(&CliError::Interrupted(2).before_start()), "");
    }

    #[test]
    fn the_systems_words_come_without_its_number() {
        let error =
            CliError::File { what: "read", path: "/x".into(), source: io::Error::from_raw_os_error(2) };
        assert_eq!(report(&error), "windlass: read /x: No such file or directory\n");
    }
}
