//! Reading what `--format json` prints: one value, or one a line.

use serde_json::Value;

/// Every value of the text, in order.
pub(crate) fn values(text: &str) -> Vec<Value> {
    serde_json::Deserializer::from_str(text).into_iter::<Value>().map_while(Result::ok).collect()
}

/// Every number under a key of this name, at any depth.
pub(crate) fn numbers(text: &str, key: &str) -> Vec<u64> {
    let mut found = Vec::new();
    values(text).iter().for_each(|value| collect(value, key, &mut found));
    found
}

fn collect(value: &Value, key: &str, found: &mut Vec<u64>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                if name == key {
                    found.extend(value.as_u64());
                }
                collect(value, key, found);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, key, found)),
        _ => {}
    }
}
