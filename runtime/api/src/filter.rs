//! Filters: what a `List` call asks for, in containerd's syntax.
//!
//! ```text
//! filter   := selector ("," selector)*           all of them must match
//! selector := path | path operator value         a path alone asks whether the field is there
//! path     := field ("." field)*                 field: letters, digits, _ ; or "quoted"
//! operator := "==" | "!=" | "~="                 ~= is a regular expression, unanchored
//! value    := "quoted" | anything up to a comma or a space; after ~= also /quoted/ and |quoted|
//! ```
//!
//! A call carries several filters and any of them may match. Parsing is pure and bounded: text, selectors and the
//! compiled size of expressions have limits, and matching is linear in the text (no backtracking).
//!
//! Where we differ from containerd: a regular expression that does not compile is refused, not logged and ignored.
//!
//! Not here: which fields an object has; each service answers for its own through [`Filters::matches`].

mod parse;

use std::borrow::Cow;

use regex::Regex;

/// Most filters in one call. `ctr images check` sends one for each image it was given.
pub const FILTERS_MAX: usize = 1024;

/// Longest text of one filter, in bytes: two labels of containerd's largest size (4096) fit, with their paths.
pub const FILTER_BYTES_MAX: usize = 16 * 1024;

/// Most selectors in one filter.
pub const SELECTORS_MAX: usize = 64;

/// Most regular expressions in one call.
pub const EXPRESSIONS_MAX: usize = 64;

/// Most memory one compiled expression may take, in bytes.
const EXPRESSION_BYTES_MAX: usize = 256 * 1024;

/// Why text is not a filter.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum FilterError {
    /// More text, filters, selectors or expressions than are read.
    #[error("too many or too long filters: at most {max} {what}")]
    TooLarge {
        /// What there was too much of.
        what: &'static str,
        /// How much is read.
        max: usize,
    },
    /// The text does not follow the grammar.
    #[error("filter {text:?} at byte {position}: {problem}")]
    Syntax {
        /// The filter.
        text: String,
        /// Where reading stopped, in bytes.
        position: usize,
        /// What was found or expected there.
        problem: &'static str,
    },
    /// The value after `~=` is no regular expression.
    #[error("filter {text:?}: {expression:?} is not a regular expression")]
    Expression {
        /// The filter.
        text: String,
        /// The value.
        expression: String,
        /// Why.
        source: regex::Error,
    },
}

/// The filters of one call.
#[derive(Debug, Clone, Default)]
pub struct Filters {
    /// One of them has to match; none at all matches everything.
    any: Vec<Vec<Selector>>,
}

#[derive(Debug, Clone)]
struct Selector {
    path: Vec<String>,
    test: Test,
}

#[derive(Debug, Clone)]
enum Test {
    Present,
    Equal(String),
    NotEqual(String),
    Matches(Regex),
}

impl Filters {
    /// Reads the filters of a call.
    ///
    /// # Errors
    /// [`FilterError`] names the filter and the place; nothing is ignored.
    pub fn parse<S: AsRef<str>>(texts: &[S]) -> Result<Self, FilterError> {
        if texts.len() > FILTERS_MAX {
            return Err(FilterError::TooLarge { what: "filters", max: FILTERS_MAX });
        }
        let mut expressions = 0;
        let mut any = Vec::with_capacity(texts.len());
        for text in texts {
            any.push(parse::filter(text.as_ref(), &mut expressions)?);
        }
        Ok(Self { any })
    }

    /// Whether everything matches, so that nothing need be looked at.
    pub fn is_empty(&self) -> bool {
        self.any.is_empty() || self.any.iter().any(Vec::is_empty)
    }

    /// Whether an object matches. `field` tells the value at a path, `None` when there is none.
    pub fn matches<'a>(&self, field: impl Fn(&[String]) -> Option<Cow<'a, str>>) -> bool {
        self.any.is_empty() || self.any.iter().any(|all| all.iter().all(|selector| selector.matches(&field)))
    }
}

impl Selector {
    fn matches<'a>(&self, field: &impl Fn(&[String]) -> Option<Cow<'a, str>>) -> bool {
        let value = field(&self.path);
        // An absent field differs from every value, and is matched as if it were empty: containerd's rule.
        match &self.test {
            Test::Present => value.is_some(),
            Test::Equal(wanted) => value.is_some_and(|value| value == wanted.as_str()),
            Test::NotEqual(unwanted) => value.unwrap_or_default() != unwanted.as_str(),
            Test::Matches(expression) => expression.is_match(&value.unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    struct Thing {
        name: &'static str,
        labels: BTreeMap<&'static str, &'static str>,
    }

    fn thing(name: &'static str, labels: &[(&'static str, &'static str)]) -> Thing {
        Thing { name, labels: labels.iter().copied().collect() }
    }

    fn field<'a>(thing: &'a Thing, path: &[String]) -> Option<Cow<'a, str>> {
        match path[0].as_str() {
            "name" => Some(thing.name).filter(|name| !name.is_empty()).map(Cow::from),
            "labels" => thing.labels.get(path[1..].join(".").as_str()).map(|value| Cow::from(*value)),
            _ => None,
        }
    }

    fn matching(text: &str) -> Vec<&'static str> {
        let things = [
            thing("plain", &[]),
            thing("true", &[("foo", "true")]),
            thing("present", &[("foo", "present"), ("more complex", "x, y")]),
            thing("dotted", &[("containerd.io/gc.root", "2026-01-01T00:00:00Z"), ("a\\\"b.post", "1")]),
            thing("", &[("foo", "")]),
        ];
        let filters = Filters::parse(&[text]).unwrap();
        things
            .iter()
            .filter(|thing| filters.matches(|path| field(thing, path)))
            .map(|thing| thing.name)
            .collect()
    }

    #[test]
    fn each_form_of_selector_selects_what_containerd_selects() {
        for (text, wanted) in [
            ("", vec!["plain", "true", "present", "dotted", ""]),
            ("name", vec!["plain", "true", "present", "dotted"]),
            ("labels.foo", vec!["true", "present", ""]),
            ("labels.foo==true", vec!["true"]),
            ("labels.foo!=true", vec!["plain", "present", "dotted", ""]),
            ("labels.foo,name", vec!["true", "present"]),
            ("name~=^p", vec!["plain", "present"]),
            ("name~=/^p[lr]/,labels.foo", vec!["present"]),
            ("name~=|e$|", vec!["true"]),
            (r#"labels."more complex"=="x, y""#, vec!["present"]),
            (r#"labels."containerd.io/gc.root""#, vec!["dotted"]),
            (r#"labels."a\\\"b".post==1"#, vec!["dotted"]),
            (r#"name=="\160lain""#, vec!["plain"]),
            (r#"name=="\x70lain""#, vec!["plain"]),
            (r#"name=="\u0070lain""#, vec!["plain"]),
            ("nothing", vec![]),
            ("nothing!=x", vec!["plain", "true", "present", "dotted", ""]),
            ("name==plain==x", vec![]),
            (" name == plain", vec!["plain"]),
        ] {
            assert_eq!(matching(text), wanted, "{text}");
        }
    }

    #[test]
    fn what_is_no_filter_is_refused_with_its_place() {
        for (text, position) in [
            ("name==foo,", 10),
            ("labels.", 7),
            (",", 0),
            ("labels.?\"x\"==y", 7),
            ("labels.|foo|==x", 7),
            ("labels.ns/key==value", 9),
            ("labels.key==/value", 12),
            ("name=x", 4),
            ("name===x", 4),
            ("name==", 6),
            ("name~=,id", 6),
            ("name==a b", 7),
            ("name==\"a\"b", 9),
            ("name==/a/", 6),
            ("name==\"\\q\"", 7),
            ("name==\"\\xff\"", 6),
            ("name==\"a\nb\"", 6),
            ("name\0", 4),
        ] {
            match Filters::parse(&[text]) {
                Err(FilterError::Syntax { position: found, .. }) => assert_eq!(found, position, "{text:?}"),
                other => panic!("{text:?}: {other:?}"),
            }
        }
        assert!(matches!(Filters::parse(&["name~=["]), Err(FilterError::Expression { .. })));
    }

    #[test]
    fn any_filter_of_several_may_match_and_no_filter_matches_all() {
        let filters = Filters::parse(&["name==plain", "labels.foo==true"]).unwrap();
        let one = thing("true", &[("foo", "true")]);
        assert!(filters.matches(|path| field(&one, path)));
        assert!(!filters.is_empty());
        assert!(Filters::parse::<&str>(&[]).unwrap().matches(|path| field(&one, path)));
        assert!(Filters::parse(&["name==no", ""]).unwrap().is_empty());
    }

    #[test]
    fn hostile_filters_meet_a_limit_instead_of_memory() {
        let long = "a".repeat(FILTER_BYTES_MAX + 1);
        let many = vec!["a"; FILTERS_MAX + 1];
        let selectors = vec!["a"; SELECTORS_MAX + 1].join(",");
        let expressions = vec!["a~=b"; EXPRESSIONS_MAX + 1];
        for result in [
            Filters::parse(&[long.as_str()]),
            Filters::parse(&many),
            Filters::parse(&[selectors.as_str()]),
            Filters::parse(&expressions),
        ] {
            assert!(matches!(result, Err(FilterError::TooLarge { .. })), "{result:?}");
        }
        assert!(matches!(
            Filters::parse(&["a~=((((x{99}){99}){99}){99})"]),
            Err(FilterError::Expression { .. })
        ));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,60}") {
            if let Ok(filters) = Filters::parse(&[text]) {
                filters.matches(|path| { assert!(!path.is_empty()); None });
            }
        }

        #[test]
        fn a_quoted_value_is_read_back_whole(value in "[^\\x00-\\x1f]{0,40}") {
            let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
            let filters = Filters::parse(&[format!("a==\"{quoted}\"")]).unwrap();
            prop_assert!(filters.matches(|_| Some(Cow::from(value.as_str()))));
            let other = format!("{value}x");
            prop_assert!(!filters.matches(|_| Some(Cow::from(other.as_str()))));
        }
    }
}
