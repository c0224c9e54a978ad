//! `version` and `info`.

use runtime_api::windlass::v1::{InfoRequest, InfoResponse};
use serde_json::{Value, json};

use crate::args::{Global, VersionArgs};
use crate::client::{Client, failed};
use crate::error::CliError;
use crate::output::{self, printable};

const OWN: &str = env!("CARGO_PKG_VERSION");

/// `version`.
///
/// # Errors
/// [`CliError`]; none from the engine with `--client`.
pub(crate) async fn version(global: &Global, args: &VersionArgs) -> Result<(), CliError> {
    let engine = if args.client { None } else { Some(ask(global).await?.version) };
    let document = json!({ "client": OWN, "engine": engine });
    output::document(&global.format, &document, || {
        let engine = engine.map(|version| format!("engine {}\n", printable(&version))).unwrap_or_default();
        format!("client {OWN}\n{engine}")
    })
}

/// `info`.
///
/// # Errors
/// [`CliError`].
pub(crate) async fn info(global: &Global) -> Result<(), CliError> {
    let info = ask(global).await?;
    let socket = global.socket().to_string_lossy().into_owned();
    output::document(&global.format, &document(&info, &socket), || text(&info, &socket))
}

async fn ask(global: &Global) -> Result<InfoResponse, CliError> {
    let client = Client::connect(global).await?;
    Ok(client.engine().info(InfoRequest {}).await.map_err(failed("ask the engine"))?.into_inner())
}

fn text(info: &InfoResponse, socket: &str) -> String {
    let mut runtimes: Vec<String> =
        info.runtimes.iter().map(|(name, path)| format!("{name} ({path})")).collect();
    runtimes.sort();
    let none = |list: String, advice: &str| if list.is_empty() { advice.to_owned() } else { list };
    let fields = [
        ("engine", format!("{}, process {}", info.version, info.pid)),
        ("client", OWN.to_owned()),
        ("socket", socket.to_owned()),
        ("root", info.root.clone()),
        ("state", info.state.clone()),
        ("kernel", info.kernel.clone()),
        ("recovery", format!("{:.0} ms", info.recovery_ms)),
        ("snapshotters", info.snapshotters.join(", ")),
        ("runtimes", none(runtimes.join(", "), "none: install runc or crun to run containers")),
        ("features", info.features.join(", ")),
    ];
    let shown = fields.iter().filter(|(_, value)| !value.is_empty());
    shown.map(|(name, value)| format!("{name:<13} {}\n", printable(value))).collect()
}

fn document(info: &InfoResponse, socket: &str) -> Value {
    json!({
        "version": info.version,
        "client_version": OWN,
        "pid": info.pid,
        "socket": socket,
        "root": info.root,
        "state": info.state,
        "kernel": info.kernel,
        "recovery_ms": info.recovery_ms,
        "snapshotters": info.snapshotters,
        "runtimes": info.runtimes,
        "features": info.features,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_a_runtime_is_told_what_to_install() {
        let info = InfoResponse {
            version: "1".to_owned(),
            pid: 7,
            root: "/r".to_owned(),
            ..InfoResponse::default()
        };
        let text = text(&info, "/s");
        assert!(text.contains("engine        1, process 7\n"), "{text}");
        assert!(text.contains("runtimes      none: install runc or crun"), "{text}");
        assert!(!text.contains("features"));
        assert_eq!(document(&info, "/s")["pid"], 7);
    }
}
