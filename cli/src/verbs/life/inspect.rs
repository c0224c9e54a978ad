//! `inspect`: a list of all that is known of containers.

use runtime_api::windlass::v1::InspectRequest;
use serde_json::{Value, json};

use crate::args::{Format, Global, ManyArgs};
use crate::client::{Client, failed};
use crate::error::CliError;
use crate::output;
use crate::verbs::containers::{find, info};

/// `inspect`.
///
/// # Errors
/// [`CliError`]; nothing is printed then.
pub(crate) async fn run(global: &Global, args: &ManyArgs) -> Result<(), CliError> {
    let client = Client::connect(global).await?;
    let mut all = Vec::new();
    for typed in &args.ids {
        all.push(one(&client, typed).await?);
    }
    // A template is filled in once for each, as Docker does.
    if let Format::Template(template) = &global.format {
        let lines = all.iter().map(|value| template.render(value)).collect::<Result<Vec<_>, _>>()?;
        return output::print(&lines.iter().map(|line| format!("{line}\n")).collect::<String>());
    }
    output::print(&output::json(&all)?)
}

async fn one(client: &Client, typed: &str) -> Result<Value, CliError> {
    let id = find(client, typed).await?.id;
    let request = InspectRequest { id: id.clone() };
    let answer = client.lives().inspect(request).await.map_err(failed(format!("inspect container {id}")))?;
    let answer = answer.into_inner();
    let mut value = info(answer.container.unwrap_or_default());
    value["snapshot_key"] = json!(answer.snapshot_key);
    value["options"] = serde_json::from_str(&answer.options_json).unwrap_or(Value::Null);
    let mounts = answer.mounts.into_iter().map(|mount| {
        json!({
            "type": mount.r#type,
            "source": mount.source,
            "destination": mount.destination,
            "options": mount.options,
        })
    });
    value["mounts"] = mounts.collect();
    Ok(value)
}
