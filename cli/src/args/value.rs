//! Values of arguments: mounts, labels, signals, amounts. Each parser is a pure function from text to a value or to words.

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

/// `NAME[=VALUE]`; a name alone has the empty value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pair {
    /// Before the first `=`.
    pub(crate) name: String,
    /// After it.
    pub(crate) value: String,
}

impl FromStr for Pair {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        if name.is_empty() {
            return Err("the name before = is empty".to_owned());
        }
        Ok(Self { name: name.to_owned(), value: value.to_owned() })
    }
}

/// `LABEL[=VALUE]` as `ctr` takes it: a name alone has the value `true`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Label {
    /// Before the first `=`.
    pub(crate) name: String,
    /// After it; where labels are changed, an empty one takes the label away.
    pub(crate) value: String,
}

impl FromStr for Label {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Pair { name, value } = text.parse()?;
        let value = if text.contains('=') { value } else { "true".to_owned() };
        Ok(Self { name, value })
    }
}

/// Part `index` of `count`, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subset {
    /// 1 <= index <= count.
    pub(crate) index: u32,
    /// Of so many.
    pub(crate) count: u32,
}

impl FromStr for Subset {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/').and_then(|(n, t)| Some((n.parse().ok()?, t.parse().ok()?)));
        match numbers {
            Some((index, count)) if (1..=count).contains(&index) => Ok(Self { index, count }),
            _ => Err("write N/T, such as 1/7 for the first of seven parts".to_owned()),
        }
    }
}

/// An amount of bytes: `500`, `10GB` (10^9), `10GiB` or `10G` (2^30), `1.5TB`.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim().to_ascii_lowercase();
    let power = match unit.chars().next() {
        None | Some('b') => 0,
        Some(letter) => match "kmgtp".find(letter) {
            Some(at) => at + 1,
            None => usize::MAX,
        },
    };
    let base: f64 = match unit.get(1..).unwrap_or_default() {
        "" | "ib" => 1024.0,
        "b" => 1000.0,
        _ => f64::NAN,
    };
    let bytes = number.parse::<f64>().ok().filter(|_| power <= 5);
    let bytes = bytes.map(|number| number * base.powi(i32::try_from(power).unwrap_or(0)));
    match bytes {
        // Below 2^53 a float is exact; past 2^63 nobody has a disk.
        Some(bytes) if bytes.is_finite() && bytes < 9.2e18 => Ok(bytes as u64),
        _ => Err(format!("{text:?} is not a size: write 500MB, 10GB, 10GiB or bytes")),
    }
}

/// A time that is not nothing: `90s`, `30m`, `12h`, `30d`, `1h30m`.
pub(super) fn age(text: &str) -> Result<Duration, String> {
    lifetime(text)
        .and_then(|time| if time.is_zero() { Err("it is no time at all".to_owned()) } else { Ok(time) })
}

/// A time, or `0`.
pub(super) fn lifetime(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is not a time: write 90s, 30m, 24h, 7d or 1h30m");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut seconds: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let (number, tail) = rest.split_at(digits);
        let unit = match tail.chars().next() {
            Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3600,
            Some('d') => 86_400,
            Some('w') => 7 * 86_400,
            _ => return Err(bad()),
        };
        let part = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
        seconds = part.and_then(|part| seconds.checked_add(part)).ok_or_else(bad)?;
        rest = &tail[1..];
    }
    // A hundred thousand years: any date stays one.
    if seconds == 0 && text.is_empty() || seconds > 3_000_000_000_000 {
        return Err(bad());
    }
    Ok(Duration::from_secs(seconds))
}

/// A mount the user asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bind {
    /// `bind`, `tmpfs`, or another file system type.
    pub(crate) kind: String,
    /// What is mounted; for `bind` a path of this machine, made absolute when the container is asked for.
    pub(crate) source: String,
    /// Absolute path in the container.
    pub(crate) destination: String,
    /// As an OCI runtime takes them.
    pub(crate) options: Vec<String>,
}

/// `-v SRC:DST[:OPTION,...]`.
pub(super) fn bind(text: &str) -> Result<Bind, String> {
    let mut parts = text.splitn(3, ':');
    let (source, destination) = match (parts.next(), parts.next()) {
        (Some(source), Some(destination)) if !source.is_empty() && !destination.is_empty() => {
            (source, destination)
        }
        _ => return Err("write SRC:DST or SRC:DST:ro".to_owned()),
    };
    let destination = absolute(destination)?;
    if !source.contains('/') && source != "." && source != ".." {
        return Err(format!(
            "{source:?} is not a path: for a directory here write ./{source}; there are no named volumes"
        ));
    }
    let mut options = vec!["rbind".to_owned(), "rprivate".to_owned()];
    for option in parts.next().unwrap_or_default().split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" | "rw" | "rshared" | "rslave" | "shared" | "slave" | "private" | "rprivate" | "noexec"
            | "nosuid" | "nodev" | "exec" | "suid" | "dev" => options.push(option.to_owned()),
            "z" | "Z" => {}
            other => return Err(format!("{other:?} is not an option of -v: ro, rw, or one of mount's")),
        }
    }
    Ok(Bind { kind: "bind".to_owned(), source: source.to_owned(), destination, options })
}

/// `--mount KEY=VALUE,...` as `ctr` and Docker write it.
pub(super) fn mount(text: &str) -> Result<Bind, String> {
    let (mut kind, mut source, mut destination) = ("bind".to_owned(), String::new(), None);
    let mut options: Vec<String> = Vec::new();
    for part in text.split(',') {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        match key {
            "type" => value.clone_into(&mut kind),
            "src" | "source" => value.clone_into(&mut source),
            "dst" | "destination" | "target" => destination = Some(absolute(value)?),
            "options" => {
                options.extend(value.split(':').filter(|option| !option.is_empty()).map(str::to_owned))
            }
            "ro" | "readonly" if matches!(value, "" | "true") => options.push("ro".to_owned()),
            "rw" if value.is_empty() => options.push("rw".to_owned()),
            other => return Err(format!("{other:?} is not a key of --mount: type, src, dst, options, ro")),
        }
    }
    let destination = destination.ok_or("dst=PATH is missing")?;
    if kind.is_empty() {
        return Err("type= is empty: bind, tmpfs, or another file system type".to_owned());
    }
    if kind == "bind" {
        if source.is_empty() {
            return Err("src=PATH is missing".to_owned());
        }
        if !options.iter().any(|option| option == "bind" || option == "rbind") {
            options.insert(0, "rbind".to_owned());
        }
    } else if source.is_empty() {
        source.clone_from(&kind);
    }
    Ok(Bind { kind, source, destination, options })
}

/// `--tmpfs DST[:OPTION,...]`.
pub(super) fn tmpfs(text: &str) -> Result<Bind, String> {
    let (destination, options) = text.split_once(':').unwrap_or((text, ""));
    let mut all: Vec<String> = ["noexec", "nosuid", "nodev"].map(str::to_owned).to_vec();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        // `exec` takes `noexec` away.
        all.retain(|other| *other != format!("no{option}"));
        all.push(option.to_owned());
    }
    let destination = absolute(destination)?;
    Ok(Bind { kind: "tmpfs".to_owned(), source: "tmpfs".to_owned(), destination, options: all })
}

/// An absolute path in the container.
pub(super) fn absolute(text: &str) -> Result<String, String> {
    if Path::new(text).is_absolute() {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is not an absolute path: it is one in the container, and starts with /"))
    }
}

/// Names of the first 31 signals on Linux (all its architectures but MIPS, SPARC and Alpha), by number from 1.
const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// A signal: `9`, `KILL`, `SIGKILL`, `sigkill`.
pub(super) fn signal(text: &str) -> Result<u32, String> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let by_name = SIGNALS.iter().position(|known| *known == name).and_then(|at| u32::try_from(at + 1).ok());
    by_name.or_else(|| name.parse().ok().filter(|number| (1..=64).contains(number))).ok_or_else(|| {
        format!("{text:?} is not a signal: write a name such as SIGTERM, or a number from 1 to 64")
    })
}
