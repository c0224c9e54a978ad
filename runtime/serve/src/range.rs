//! The `Range` header: one span of bytes, or nothing that is obeyed (RFC 9110, section 14).

/// What a `Range` asks of a blob of a known size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// Everything: there is no range, or one that is not obeyed (several spans, another unit, nonsense).
    Whole,
    /// These bytes: first <= last < size.
    Part {
        /// First byte.
        first: u64,
        /// Last byte.
        last: u64,
    },
    /// None of its bytes: the answer is 416.
    Nothing,
}

/// Reads the value of a `Range` header for a blob of `size` bytes.
pub fn parse(text: &str, size: u64) -> Span {
    let Some(spans) = text.trim().strip_prefix("bytes=") else { return Span::Whole };
    let Some((first, last)) = spans.trim().split_once('-') else { return Span::Whole };
    match (number(first), number(last)) {
        (Number::Value(first), Number::Value(last)) if last < first => Span::Whole,
        (Number::Value(first), _) if first >= size => match number(last) {
            Number::Nonsense => Span::Whole,
            _ => Span::Nothing,
        },
        (Number::Value(first), Number::Value(last)) => Span::Part { first, last: last.min(size - 1) },
        (Number::Value(first), Number::Absent) => Span::Part { first, last: size - 1 },
        (Number::Absent, Number::Value(0)) => Span::Nothing,
        (Number::Absent, Number::Value(_)) if size == 0 => Span::Nothing,
        (Number::Absent, Number::Value(count)) => {
            Span::Part { first: size - count.min(size), last: size - 1 }
        }
        _ => Span::Whole,
    }
}

enum Number {
    Absent,
    Value(u64),
    Nonsense,
}

/// A number past 2^64 is that: past the end of every blob.
fn number(text: &str) -> Number {
    match text {
        "" => Number::Absent,
        digits if digits.bytes().all(|c| c.is_ascii_digit()) => {
            Number::Value(digits.parse().unwrap_or(u64::MAX))
        }
        _ => Number::Nonsense,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_are_obeyed_as_the_standard_says() {
        let part = |first, last| Span::Part { first, last };
        for (text, wanted) in [
            ("bytes=0-0", part(0, 0)),
            ("bytes=0-9", part(0, 9)),
            ("bytes=3-", part(3, 9)),
            ("bytes=3-100", part(3, 9)),
            ("bytes=3-99999999999999999999999", part(3, 9)),
            ("bytes=-3", part(7, 9)),
            ("bytes=-100", part(0, 9)),
            ("bytes=10-", Span::Nothing),
            ("bytes=10-20", Span::Nothing),
            ("bytes=99999999999999999999999-", Span::Nothing),
            ("bytes=-0", Span::Nothing),
            ("bytes=5-3", Span::Whole),
            ("bytes=-", Span::Whole),
            ("bytes=", Span::Whole),
            ("bytes=a-b", Span::Whole),
            ("bytes=20-x", Span::Whole),
            ("bytes=0-1,3-4", Span::Whole),
            ("items=0-1", Span::Whole),
            ("", Span::Whole),
        ] {
            assert_eq!(parse(text, 10), wanted, "{text}");
        }
        assert_eq!(parse("bytes=0-", 0), Span::Nothing);
        assert_eq!(parse("bytes=-5", 0), Span::Nothing);
    }

    proptest! {
        #[test]
        fn a_part_is_never_outside_the_blob(text in "(bytes=)?[0-9a-]{0,24}(,[0-9-]{1,5})?", size in any::<u64>()) {
            if let Span::Part { first, last } = parse(&text, size) {
                prop_assert!(first <= last && last < size);
            }
        }
    }
}
