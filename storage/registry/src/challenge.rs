//! `WWW-Authenticate`: what a registry wants to see (RFC 9110, section 11.6.1).
//!
//! The header is foreign: it is cut at [`HEADER_BYTES_MAX`], and a part that does not follow the grammar ends the
//! reading without spoiling what was read before it.

/// Longest header value that is read, in bytes: real ones have under 400.
pub const HEADER_BYTES_MAX: usize = 8 * 1024;
/// Most challenges read of one header.
pub const CHALLENGES_MAX: usize = 16;
/// Most parameters read of one challenge.
pub const PARAMETERS_MAX: usize = 32;

/// One way to log in that a registry offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// Lower-case scheme: `basic`, `bearer`.
    pub scheme: String,
    /// Parameters in their order, names in lower case. The first of a name counts.
    pub parameters: Vec<(String, String)>,
}

impl Challenge {
    /// Value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// Reads the challenges of one header value. Empty if there is none that can be read, or if it is too long.
pub fn parse(value: &str) -> Vec<Challenge> {
    let mut found: Vec<Challenge> = Vec::new();
    if value.len() > HEADER_BYTES_MAX {
        return found;
    }
    let mut rest = Cursor(value);
    loop {
        rest.skip_separators();
        let Some(word) = rest.token() else { return found };
        rest.skip_blanks();
        if rest.take('=') {
            // `name=value` continues the challenge before it.
            let Some(text) = rest.value() else { return found };
            let Some(last) = found.last_mut() else { return found };
            if last.parameters.len() < PARAMETERS_MAX {
                last.parameters.push((word.to_ascii_lowercase(), text));
            }
        } else {
            if found.len() == CHALLENGES_MAX {
                return found;
            }
            found.push(Challenge { scheme: word.to_ascii_lowercase(), parameters: Vec::new() });
        }
    }
}

struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    fn skip_separators(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t', ',']);
    }

    fn skip_blanks(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t']);
    }

    fn take(&mut self, wanted: char) -> bool {
        match self.0.strip_prefix(wanted) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    /// One or more token characters (RFC 9110, section 5.6.2).
    fn token(&mut self) -> Option<&'a str> {
        let is_token = |c: u8| c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&c);
        let length = self.0.bytes().take_while(|c| is_token(*c)).count();
        let (word, rest) = self.0.split_at(length);
        self.0 = rest;
        (length > 0).then_some(word)
    }

    /// A token or a quoted string.
    fn value(&mut self) -> Option<String> {
        self.skip_blanks();
        if !self.take('"') {
            return self.token().map(str::to_owned);
        }
        let mut text = String::new();
        let mut chars = self.0.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.0 = &self.0[at + 1..];
                    return Some(text);
                }
                '\\' => text.push(chars.next()?.1),
                c => text.push(c),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_challenges_of_real_registries_are_read() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/alpine:pull""#;
        let read = parse(hub);
        assert_eq!(read.len(), 1);
        assert_eq!(read[0].scheme, "bearer");
        assert_eq!(read[0].get("realm"), Some("https://auth.docker.io/token"));
        assert_eq!(read[0].get("scope"), Some("repository:library/alpine:pull"));
        let basic = parse("Basic realm=\"Registry Realm\"");
        assert_eq!((basic[0].scheme.as_str(), basic[0].get("realm")), ("basic", Some("Registry Realm")));
        let two = parse(r#"Negotiate, BEARER Realm = "https://a/t" , service=x, Basic realm="b \"q\"""#);
        assert_eq!(
            two.iter().map(|c| c.scheme.as_str()).collect::<Vec<_>>(),
            ["negotiate", "bearer", "basic"]
        );
        assert_eq!(two[1].get("service"), Some("x"));
        assert_eq!(two[2].get("realm"), Some("b \"q\""));
    }

    #[test]
    fn what_is_broken_ends_the_reading_and_what_is_endless_is_cut() {
        assert!(parse("").is_empty());
        assert!(parse("realm=\"x\"").is_empty());
        assert_eq!(parse("Bearer realm=\"open").len(), 1);
        assert_eq!(parse(&"Basic ".repeat(100)).len(), CHALLENGES_MAX);
        assert!(parse(&format!("Bearer realm=\"{}\"", "x".repeat(HEADER_BYTES_MAX))).is_empty());
        let many = format!("Bearer {}", "a=b,".repeat(1000));
        assert_eq!(parse(&many)[0].parameters.len(), PARAMETERS_MAX);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,200}") {
            let _ = parse(&text);
        }

        #[test]
        fn what_is_quoted_comes_back(value in "[ -~]{0,60}") {
            let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
            let read = parse(&format!("Bearer realm=\"{quoted}\""));
            prop_assert_eq!(read[0].get("realm"), Some(value.as_str()));
        }
    }
}
