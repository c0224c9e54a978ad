//! `events`: what happens in the engine, a line an event, until Ctrl-C.

use runtime_api::containerd::services::events::v1::SubscribeRequest;
use runtime_api::containerd::types::Envelope;
use runtime_api::event::{Fields, Value as Field};
use serde_json::{Map, Value, json};

use super::time;
use crate::args::{EventsArgs, Format, Global, fields};
use crate::client::{Client, failed};
use crate::error::CliError;
use crate::interrupt;
use crate::output::{self, amount, printable};

/// `events`.
///
/// # Errors
/// [`CliError`]; [`CliError::Interrupted`] is how it usually ends.
pub(crate) async fn run(global: &Global, args: &EventsArgs) -> Result<(), CliError> {
    if let Format::Template(template) = &global.format {
        template.check(fields::EVENTS)?;
    }
    let client = Client::connect(global).await?;
    interrupt::or_interrupted(follow(&client, args, &global.format)).await
}

async fn follow(client: &Client, args: &EventsArgs, format: &Format) -> Result<(), CliError> {
    let what = "listen to events";
    let request = SubscribeRequest { filters: args.filters.clone() };
    let mut events = client.events().subscribe(request).await.map_err(failed(what))?.into_inner();
    while let Some(event) = events.message().await.map_err(failed(what))? {
        let event = document(event);
        match format {
            Format::Table => output::print(&format!("{}\n", line(&event)))?,
            Format::Json => output::print(&format!("{event}\n"))?,
            Format::Template(template) => output::print(&format!("{}\n", template.render(&event)?))?,
        }
    }
    Ok(())
}

/// An event as JSON; one whose payload is not known here has its type and no fields.
fn document(envelope: Envelope) -> Value {
    let payload = envelope.event.unwrap_or_default();
    let mut event = Map::new();
    for (name, value) in Fields::of(&payload).unwrap_or_default().iter() {
        let value = match value {
            Field::Text(text) => json!(text),
            Field::Number(number) => json!(number),
            Field::Map(entries) => entries.iter().map(|(name, value)| (name.clone(), json!(value))).collect(),
        };
        event.insert(name.to_owned(), value);
    }
    json!({
        "timestamp": amount::rfc3339_nanos(time(envelope.timestamp)),
        "namespace": envelope.namespace,
        "topic": envelope.topic,
        "type": runtime_api::any::name(&payload),
        "event": event,
    })
}

/// `TIME NAMESPACE TOPIC {...}`, as `ctr` prints it but for the time.
fn line(event: &Value) -> String {
    let text = |name: &str| event[name].as_str().unwrap_or_default();
    let start = format!("{} {} {}", text("timestamp"), text("namespace"), text("topic"));
    printable(&format!("{start} {}", event["event"]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime_api::containerd::events::ContentCreate;

    #[test]
    fn an_event_is_a_line_with_its_time_place_topic_and_fields() {
        let payload = ContentCreate { digest: "sha256:ab".to_owned(), size: 7 };
        let envelope = Envelope {
            timestamp: Some(prost_types::Timestamp { seconds: 1, nanos: 5_000_000 }),
            namespace: "default".to_owned(),
            topic: "/content/create".to_owned(),
            event: Some(runtime_api::any::pack(&payload)),
        };
        let event = document(envelope);
        assert_eq!(
            line(&event),
            r#"1970-01-01T00:00:01.005000000Z default /content/create {"digest":"sha256:ab","size":7}"#
        );
        let told: Vec<&str> = fields::EVENTS.to_vec();
        for key in event.as_object().unwrap().keys() {
            assert!(told.contains(&crate::output::template::capitals(key).as_str()), "{key}");
        }
        assert_eq!(event["type"], "containerd.events.ContentCreate");
    }
}
