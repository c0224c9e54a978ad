//! `--format '{{.Name}} {{.Digest}}'`: what people know of Docker's and Go's templates, over a JSON value.
//!
//! `text {{.Field}} {{.Field.Inner}} {{json .Field}} {{index .Labels "a.b"}}`, `{{.}}` for everything, `\t` and `\n` in the
//! text, and `table ` in front for headings and columns split at tabs. A field is a key of the value, written as it is or in
//! Go's capitals: `.SizeBytes`, `.size_bytes`. Parsed once, before anything is asked of the engine.
//!
//! Not here: conditions, loops and pipelines; a program that needs them reads `--format json`.

use serde_json::Value;

use super::printable;
use super::table::Table;

/// A parsed template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    parts: Vec<Part>,
    /// With headings, in columns.
    is_table: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Value { path: Vec<String>, as_json: bool },
}

/// Why a template cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TemplateError {
    /// `{{` without `}}`.
    #[error("{{{{ without }}}} in {0:?}")]
    Open(String),
    /// Something else than a field.
    #[error(
        "{{{{{0}}}}} is not understood: write {{{{.Field}}}}, {{{{json .Field}}}} or {{{{index .Labels \"name\"}}}}; \
         --format json gives everything"
    )]
    Action(String),
    /// No action at all: a misspelt `table` or `json` rather than a template.
    #[error("{0:?} is neither table nor json nor a template such as '{{{{.Name}}}}'")]
    Plain(String),
    /// A field the value has not.
    #[error("there is no field .{field}: there are {known}")]
    Field {
        /// What was asked for.
        field: String,
        /// What there is.
        known: String,
    },
}

impl Template {
    /// Parses what follows `--format`.
    ///
    /// # Errors
    /// [`TemplateError`], but for unknown fields, which only [`Template::check`] and [`Template::render`] can know.
    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        let (is_table, mut rest) = match text.strip_prefix("table ") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let mut parts = Vec::new();
        while let Some((before, after)) = rest.split_once("{{") {
            let (action, tail) =
                after.split_once("}}").ok_or_else(|| TemplateError::Open(text.to_owned()))?;
            parts.push(Part::Text(unescape(before)));
            parts.push(action_of(action)?);
            rest = tail;
        }
        if parts.is_empty() {
            return Err(TemplateError::Plain(text.to_owned()));
        }
        parts.push(Part::Text(unescape(rest)));
        Ok(Self { parts, is_table })
    }

    /// Refuses fields that are not among `known`, so that a typing error is told even when a list is empty.
    ///
    /// # Errors
    /// [`TemplateError::Field`].
    pub(crate) fn check(&self, known: &[&str]) -> Result<(), TemplateError> {
        for part in &self.parts {
            if let Part::Value { path, .. } = part
                && let Some(field) = path.first()
                && !known.iter().any(|name| plain(name) == plain(field))
            {
                return Err(unknown(field, known.iter().map(|name| (*name).to_owned()).collect()));
            }
        }
        Ok(())
    }

    /// The template filled in from `value`, without a line end.
    ///
    /// # Errors
    /// [`TemplateError::Field`] for a first field that `value` has not; deeper ones are empty then, as labels are.
    pub(crate) fn render(&self, value: &Value) -> Result<String, TemplateError> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(words) => text.push_str(words),
                Part::Value { path, as_json: true } => text.push_str(&find(value, path)?.to_string()),
                Part::Value { path, as_json: false } => text.push_str(&printable(&words(find(value, path)?))),
            }
        }
        Ok(text)
    }

    /// All of `values`, each on a line of its own, in columns below headings if the template says `table`.
    ///
    /// # Errors
    /// As [`Template::render`].
    pub(crate) fn render_all(&self, values: &[Value]) -> Result<String, TemplateError> {
        let lines = values.iter().map(|value| self.render(value)).collect::<Result<Vec<_>, _>>()?;
        if !self.is_table {
            return Ok(lines.into_iter().map(|line| line + "\n").collect());
        }
        let headings = self.headings();
        let mut table = Table::new(&headings.iter().map(String::as_str).collect::<Vec<_>>());
        lines.iter().for_each(|line| table.row(line.split('\t').map(str::to_owned)));
        Ok(table.render())
    }

    /// The last field of each path in capitals, in the columns of the text around.
    fn headings(&self) -> Vec<String> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(words) => text.push_str(words),
                Part::Value { path, .. } => {
                    text.push_str(&path.last().map_or("VALUE".to_owned(), |field| spaced(field)));
                }
            }
        }
        text.split('\t').map(str::to_owned).collect()
    }
}

fn action_of(action: &str) -> Result<Part, TemplateError> {
    let bad = || TemplateError::Action(action.to_owned());
    let words = split(action.trim_matches(['-', ' '])).ok_or_else(bad)?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        [field] => Ok(Part::Value { path: path(field).ok_or_else(bad)?, as_json: false }),
        ["json", field] => Ok(Part::Value { path: path(field).ok_or_else(bad)?, as_json: true }),
        ["index", field, keys @ ..] if !keys.is_empty() => {
            let mut path = path(field).ok_or_else(bad)?;
            path.extend(keys.iter().map(|key| (*key).to_owned()));
            Ok(Part::Value { path, as_json: false })
        }
        _ => Err(bad()),
    }
}

/// `.A.B` as its names; `.` is none of them.
fn path(field: &str) -> Option<Vec<String>> {
    let names = field.strip_prefix('.')?;
    if names.is_empty() {
        return Some(Vec::new());
    }
    let names: Vec<String> = names.split('.').map(str::to_owned).collect();
    let good = |name: &String| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
    names.iter().all(good).then_some(names)
}

/// Words between blanks; those in double quotes may hold blanks and lose their quotes. `None` for a quote left open.
fn split(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (word, tail) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => rest.split_once(' ').unwrap_or((rest, "")),
        };
        words.push(word.to_owned());
        rest = tail.trim_start();
    }
    Some(words)
}

fn find<'value>(value: &'value Value, path: &[String]) -> Result<&'value Value, TemplateError> {
    let mut at = value;
    for (depth, name) in path.iter().enumerate() {
        at = match child(at, name) {
            Some(next) => next,
            None if depth == 0 => return Err(unknown(name, names(value))),
            None => return Ok(&Value::Null),
        };
    }
    Ok(at)
}

fn child<'value>(value: &'value Value, name: &str) -> Option<&'value Value> {
    match value {
        Value::Object(fields) => fields.get(name).or_else(|| {
            let wanted = plain(name);
            fields.iter().find(|(key, _)| plain(key) == wanted).map(|(_, value)| value)
        }),
        Value::Array(values) => values.get(name.parse::<usize>().ok()?),
        _ => None,
    }
}

fn unknown(field: &str, known: Vec<String>) -> TemplateError {
    let known: Vec<String> = known.iter().map(|name| format!(".{name}")).collect();
    TemplateError::Field { field: field.to_owned(), known: known.join(", ") }
}

/// The fields of a value, as a template may name them.
fn names(value: &Value) -> Vec<String> {
    value.as_object().map_or_else(Vec::new, |fields| fields.keys().map(|key| capitals(key)).collect())
}

/// `size_bytes` as `SizeBytes`.
pub(crate) fn capitals(name: &str) -> String {
    let word = |word: &str| {
        let mut letters = word.chars();
        letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
    };
    name.split(['_', ' ']).map(word).collect()
}

/// `SizeBytes` as `SIZE BYTES`.
fn spaced(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        match letter {
            '_' => text.push(' '),
            _ if letter.is_uppercase() && text.ends_with(char::is_lowercase) => text.extend([' ', letter]),
            _ => text.push(letter),
        }
    }
    text.to_uppercase()
}

/// What is left of a name when its spelling does not matter.
fn plain(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// A value in words: lists and maps are joined by commas.
fn words(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(words).collect::<Vec<_>>().join(","),
        Value::Object(fields) => {
            let pairs = fields.iter().map(|(name, value)| format!("{name}={}", words(value)));
            pairs.collect::<Vec<_>>().join(",")
        }
        other => other.to_string(),
    }
}

/// `\t`, `\n` and `\\`, which a shell passes on as they are.
fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            plain.push(letter);
            continue;
        }
        match letters.next() {
            Some('t') => plain.push('\t'),
            Some('n') => plain.push('\n'),
            Some('\\') => plain.push('\\'),
            Some(other) => plain.extend(['\\', other]),
            None => plain.push('\\'),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sample() -> Value {
        json!({"name": "a:1", "size_bytes": 12, "labels": {"x.y/z": "1", "b": "2"}, "platforms": ["p", "q"],
               "config": {"Cmd": ["sh"]}, "none": null})
    }

    fn rendered(template: &str) -> String {
        Template::parse(template).unwrap().render(&sample()).unwrap()
    }

    #[test]
    fn fields_are_found_in_either_spelling_and_at_any_depth() {
        for (template, text) in [
            ("{{.Name}}", "a:1"),
            ("{{ .name }}", "a:1"),
            ("<{{.SizeBytes}}>{{.size_bytes}}", "<12>12"),
            (r"{{.Name}}\t{{.Platforms}}\n", "a:1\tp,q\n"),
            ("{{.Labels}}", "b=2,x.y/z=1"),
            ("{{index .Labels \"x.y/z\"}}", "1"),
            ("{{.Labels.b}}{{.Labels.absent}}{{.None}}", "2"),
            ("{{.Config.Cmd}} {{json .Config}}", "sh {\"Cmd\":[\"sh\"]}"),
            ("{{json .Name}}", "\"a:1\""),
            ("{{index .Platforms \"1\"}}", "q"),
        ] {
            assert_eq!(rendered(template), text, "{template}");
        }
        assert!(rendered("{{json .}}").starts_with('{'));
    }

    #[test]
    fn what_is_no_template_is_refused_before_anything_is_asked() {
        assert!(matches!(Template::parse("yaml"), Err(TemplateError::Plain(_))));
        assert!(matches!(Template::parse("{{.Name"), Err(TemplateError::Open(_))));
        for action in
            ["{{range .}}{{end}}", "{{Name}}", "{{.A|upper}}", "{{index .A}}", "{{index .A \"x}}", "{{}}"]
        {
            assert!(matches!(Template::parse(action), Err(TemplateError::Action(_))), "{action}");
        }
    }

    #[test]
    fn an_unknown_field_is_told_with_those_there_are() {
        let template = Template::parse("{{.Nmae}}").unwrap();
        let error = template.check(&["Name", "SizeBytes"]).unwrap_err();
        assert_eq!(error.to_string(), "there is no field .Nmae: there are .Name, .SizeBytes");
        assert!(template.render(&sample()).unwrap_err().to_string().contains(".SizeBytes"));
        assert!(Template::parse("{{.size_bytes}}").unwrap().check(&["SizeBytes"]).is_ok());
    }

    #[test]
    fn a_table_has_headings_and_columns() {
        let template = Template::parse(r"table {{.Name}}\t{{.SizeBytes}}").unwrap();
        let values = [sample(), json!({"name": "longer:2", "size_bytes": 3})];
        assert_eq!(
            template.render_all(&values).unwrap(),
            "NAME      SIZE BYTES\na:1       12\nlonger:2  3\n"
        );
    }

    #[test]
    fn foreign_text_stays_on_its_line() {
        let template = Template::parse("{{.Name}}").unwrap();
        assert!(!template.render(&json!({"name": "a\u{1b}[2J\nb"})).unwrap().contains(['\u{1b}', '\n']));
    }
}
