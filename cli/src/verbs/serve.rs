//! `serve`: other machines and engines read this store as a registry.
//!
//! The engine is started if none answers; afterwards the server finds it again by itself when it restarts.
//!
//! Not here: HTTP (`runtime-serve`).

use std::net::SocketAddr;

use runtime_serve::{Options, PullThrough, ServeError, Socket, Tls};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::{Global, ServeArgs};
use crate::client::Client;
use crate::error::CliError;
use crate::output;
use crate::pull;

/// `serve`: until SIGTERM or SIGINT, and then until open transfers had time to end.
///
/// # Errors
/// [`CliError::Listen`], [`CliError::Serve`], and those of connecting to the engine.
pub(crate) async fn run(global: &Global, args: &ServeArgs) -> Result<(), CliError> {
    // Everything that can be wrong is told before anybody is served.
    let options = options(args)?;
    let is_tls = options.tls.is_some();
    Client::connect(global).await?;
    let engine = Socket::new(&global.socket(), &global.namespace);
    let listen = |source| CliError::Listen { address: args.listen.clone(), source };
    let listener = TcpListener::bind(&args.listen).await.map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    let signals = |source| CliError::Process("signals", source);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(signals)?;
    let stop = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    output::note(&announcement(address, is_tls, global));
    runtime_serve::serve(listener, engine, options, stop).await.map_err(CliError::from)
}

fn options(args: &ServeArgs) -> Result<Options, CliError> {
    let mut options = Options::default();
    if let (Some(certificate), Some(key)) = (&args.tls_cert, &args.tls_key) {
        options.tls = Some(Tls { certificate: certificate.clone(), key: key.clone() });
    }
    if args.pull_through {
        options.pull_through = Some(PullThrough {
            registry: pull::options(&args.login)?,
            fresh: args.fresh,
            registries: args.registry.clone(),
            ..PullThrough::default()
        });
    }
    Ok(options)
}

fn announcement(address: SocketAddr, is_tls: bool, global: &Global) -> String {
    let scheme = if is_tls { "https" } else { "http" };
    let whose = &global.namespace;
    let mut text = format!("windlass: serving the images of namespace {whose} at {scheme}://{address}");
    if !address.ip().is_loopback() {
        text.push_str(" to everybody who reaches it");
    }
    text
}

impl From<ServeError> for CliError {
    fn from(source: ServeError) -> Self {
        Self::Serve(source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Verb};
    use clap::Parser;

    fn parsed(line: &str) -> (Global, ServeArgs) {
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
        match cli.verb {
            Verb::Serve(args) => (cli.global, *args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_a_port_that_others_reach_is_warned_of() {
        let (global, _) = parsed("windlass -n team serve");
        let told = |address: &str| announcement(address.parse().unwrap(), false, &global);
        assert_eq!(
            told("127.0.0.1:5000"),
            "windlass: serving the images of namespace team at http://127.0.0.1:5000"
        );
        assert!(told("0.0.0.0:80").ends_with("to everybody who reaches it"));
    }

    #[test]
    fn nothing_is_pulled_unless_it_is_asked_for() {
        assert!(options(&parsed("windlass serve").1).unwrap().pull_through.is_none());
        let (_, args) = parsed("windlass serve --pull-through --fresh 5m --registry docker.io --plain-http");
        let through = options(&args).unwrap().pull_through.unwrap();
        assert_eq!((through.fresh.as_secs(), through.registries), (300, vec!["docker.io".to_owned()]));
        assert!(through.registry.plain_http);
    }
}
