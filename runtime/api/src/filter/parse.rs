//! The parser: one pass over the text, no recursion.
//!
//! Not here: the grammar, and what a filter means (the module above).

use regex::RegexBuilder;

use super::{
    EXPRESSION_BYTES_MAX, EXPRESSIONS_MAX, FILTER_BYTES_MAX, FilterError, SELECTORS_MAX, Selector, Test,
};

/// Reads one filter; `expressions` counts those of the whole call.
pub(super) fn filter(text: &str, expressions: &mut usize) -> Result<Vec<Selector>, FilterError> {
    if text.len() > FILTER_BYTES_MAX {
        return Err(FilterError::TooLarge { what: "bytes in one filter", max: FILTER_BYTES_MAX });
    }
    let mut selectors = Vec::new();
    if text.is_empty() {
        return Ok(selectors);
    }
    let mut reader = Reader { text, position: 0 };
    loop {
        if selectors.len() == SELECTORS_MAX {
            return Err(FilterError::TooLarge { what: "selectors in one filter", max: SELECTORS_MAX });
        }
        selectors.push(reader.selector(expressions)?);
        match reader.peek() {
            None => return Ok(selectors),
            Some(',') => reader.position += 1,
            Some(_) => return Err(reader.wrong("a comma or the end was expected")),
        }
    }
}

struct Reader<'a> {
    text: &'a str,
    /// `position <= text.len()`, always between two characters.
    position: usize,
}

impl<'a> Reader<'a> {
    fn selector(&mut self, expressions: &mut usize) -> Result<Selector, FilterError> {
        let path = self.path()?;
        if matches!(self.peek(), None | Some(',')) {
            return Ok(Selector { path, test: Test::Present });
        }
        let test = match self.operator()? {
            "==" => Test::Equal(self.value(false)?),
            "!=" => Test::NotEqual(self.value(false)?),
            _ => Test::Matches(self.expression(expressions)?),
        };
        Ok(Selector { path, test })
    }

    fn path(&mut self) -> Result<Vec<String>, FilterError> {
        let mut path = vec![self.field()?];
        while self.peek() == Some('.') {
            self.position += 1;
            path.push(self.field()?);
        }
        Ok(path)
    }

    fn field(&mut self) -> Result<String, FilterError> {
        self.skip_spaces();
        match self.peek() {
            Some('"') => self.quoted('"'),
            Some(c) if is_word(c) => Ok(self.take_while(is_word).to_owned()),
            _ => Err(self.wrong("a field or a \"quoted\" field was expected")),
        }
    }

    fn operator(&mut self) -> Result<&'a str, FilterError> {
        self.skip_spaces();
        let begun = self.position;
        match self.take_while(|c| matches!(c, '=' | '!' | '~')) {
            operator @ ("==" | "!=" | "~=") => Ok(operator),
            _ => Err(self.wrong_at(begun, "an operator was expected: ==, != or ~=")),
        }
    }

    /// The value after an operator; `slashes` allows the quotes of expressions.
    fn value(&mut self, slashes: bool) -> Result<String, FilterError> {
        self.skip_spaces();
        match self.peek() {
            Some('"') => self.quoted('"'),
            Some(quote @ ('/' | '|')) if slashes => self.quoted(quote),
            Some('/' | '|') => Err(self.wrong("only ~= takes values in / or |: use \" here")),
            Some(c) if !matches!(c, '.' | '=' | '!' | '~') && is_plain(c) => {
                Ok(self.take_while(is_plain).to_owned())
            }
            _ => Err(self.wrong("a value or a \"quoted\" value was expected")),
        }
    }

    fn expression(&mut self, expressions: &mut usize) -> Result<regex::Regex, FilterError> {
        let expression = self.value(true)?;
        *expressions += 1;
        if *expressions > EXPRESSIONS_MAX {
            return Err(FilterError::TooLarge {
                what: "regular expressions in one call",
                max: EXPRESSIONS_MAX,
            });
        }
        RegexBuilder::new(&expression)
            .size_limit(EXPRESSION_BYTES_MAX)
            .dfa_size_limit(EXPRESSION_BYTES_MAX)
            .build()
            .map_err(|source| FilterError::Expression { text: self.text.to_owned(), expression, source })
    }

    /// Text between two `quote`s, with Go's escapes.
    fn quoted(&mut self, quote: char) -> Result<String, FilterError> {
        let begun = self.position;
        self.position += 1;
        let mut bytes = Vec::new();
        loop {
            match self.peek() {
                None | Some('\n') => return Err(self.wrong_at(begun, "the quote is not closed")),
                Some(c) if c == quote => {
                    self.position += 1;
                    break;
                }
                Some('\\') => self.escape(quote, &mut bytes)?,
                Some(c) => {
                    self.position += c.len_utf8();
                    bytes.extend(c.encode_utf8(&mut [0; 4]).bytes());
                }
            }
        }
        String::from_utf8(bytes).map_err(|_| self.wrong_at(begun, "the quoted text is not UTF-8"))
    }

    fn escape(&mut self, quote: char, bytes: &mut Vec<u8>) -> Result<(), FilterError> {
        let begun = self.position;
        self.position += 1;
        let letter = self.peek();
        self.position += letter.map_or(0, char::len_utf8);
        let byte = match letter {
            Some('a') => 0x07,
            Some('b') => 0x08,
            Some('f') => 0x0c,
            Some('n') => b'\n',
            Some('r') => b'\r',
            Some('t') => b'\t',
            Some('v') => 0x0b,
            Some('\\') => b'\\',
            Some(c) if c == quote => c as u8,
            Some('0'..='7') => {
                self.position -= 1;
                let code = self.digits(begun, 3, 8)?;
                u8::try_from(code).map_err(|_| self.wrong_at(begun, "the escape is past \\377"))?
            }
            Some('x') => self.digits(begun, 2, 16)? as u8,
            Some(c @ ('u' | 'U')) => {
                let code = self.digits(begun, if c == 'u' { 4 } else { 8 }, 16)?;
                let c = char::from_u32(code).ok_or_else(|| self.wrong_at(begun, "no such character"))?;
                bytes.extend(c.encode_utf8(&mut [0; 4]).bytes());
                return Ok(());
            }
            _ => return Err(self.wrong_at(begun, "unknown escape")),
        };
        bytes.push(byte);
        Ok(())
    }

    /// Exactly `count` digits, at most eight.
    fn digits(&mut self, begun: usize, count: usize, radix: u32) -> Result<u32, FilterError> {
        let mut code = 0_u32;
        for _ in 0..count {
            let digit = self.peek().and_then(|c| c.to_digit(radix));
            let digit = digit.ok_or_else(|| self.wrong_at(begun, "the escape has too few digits"))?;
            self.position += 1;
            code = code.checked_mul(radix).and_then(|code| code.checked_add(digit)).unwrap_or(u32::MAX);
        }
        Ok(code)
    }

    fn peek(&self) -> Option<char> {
        self.text[self.position..].chars().next()
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let rest = &self.text[self.position..];
        let length = rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        self.position += length;
        &rest[..length]
    }

    fn skip_spaces(&mut self) {
        self.take_while(char::is_whitespace);
    }

    fn wrong(&self, problem: &'static str) -> FilterError {
        self.wrong_at(self.position, problem)
    }

    fn wrong_at(&self, position: usize, problem: &'static str) -> FilterError {
        FilterError::Syntax { text: self.text.chars().take(256).collect(), position, problem }
    }
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_ascii_alphanumeric()
}

/// A character of a value without quotes.
fn is_plain(c: char) -> bool {
    c != ',' && !c.is_whitespace() && !c.is_control()
}
