//! Signals by name, as people and image configs write them: `TERM`, `SIGTERM`, `15`, `RTMIN+3`.

use crate::EngineError;

/// Names of Linux's signals; the first is number 1.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// First and last number of the real-time signals, as the C library counts them.
const REAL_TIME: (u32, u32) = (34, 64);

/// The number of a signal.
///
/// # Errors
/// [`EngineError::SignalName`].
pub(super) fn number(text: &str) -> Result<u32, EngineError> {
    let unknown = || EngineError::SignalName(text.chars().take(32).collect());
    if let Ok(number) = text.parse::<u32>() {
        return Some(number).filter(|number| (1..=64).contains(number)).ok_or_else(unknown);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(at) = NAMES.iter().position(|known| *known == name) {
        return u32::try_from(at + 1).map_err(|_| unknown());
    }
    let (first, last) = REAL_TIME;
    let away = |rest: &str, sign: char| match rest {
        "" => Some(0),
        rest => rest.strip_prefix(sign)?.parse::<u32>().ok().filter(|away| *away <= last - first),
    };
    let number = match name.strip_prefix("RTMIN") {
        Some(rest) => away(rest, '+').map(|away| first + away),
        None => name.strip_prefix("RTMAX").and_then(|rest| away(rest, '-')).map(|away| last - away),
    };
    number.ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_known_by_name_and_number() {
        for (text, expected) in [
            ("TERM", 15),
            ("sigterm", 15),
            ("SIGKILL", 9),
            ("9", 9),
            ("SYS", 31),
            ("RTMIN+3", 37),
            ("SIGRTMAX", 64),
        ] {
            assert_eq!(number(text).unwrap(), expected, "{text}");
        }
        for bad in ["", "0", "65", "-1", "SIG", "NONSENSE", "RTMIN+31", "RTMAX+1", "RTMIN+x"] {
            assert!(matches!(number(bad), Err(EngineError::SignalName(_))), "{bad}");
        }
    }
}
