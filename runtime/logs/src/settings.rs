//! How long logs are kept: `max-size` and `max-file`, as Docker names them.

use serde::{Deserialize, Serialize};

/// Bytes of a file before it is turned over, when nobody says otherwise: enough for days of a quiet service, and with
/// [`FILES_DEFAULT`] no disk is filled by a loud one.
const FILE_BYTES_DEFAULT: u64 = 16 * 1024 * 1024;

/// Files kept, when nobody says otherwise.
const FILES_DEFAULT: u32 = 3;

/// Most files that are kept: each turn renames them all.
const FILES_MAX: u32 = 1000;

/// Least bytes of a file: below, a long line would be alone in it.
const FILE_BYTES_MIN: u64 = 4096;

/// When a file is turned over, and how many are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// A file is turned over before it grows past this, in bytes; `None`: never.
    pub file_bytes_max: Option<u64>,
    /// Files kept, the one that is written included; at least 1.
    pub files_max: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { file_bytes_max: Some(FILE_BYTES_DEFAULT), files_max: FILES_DEFAULT }
    }
}

/// Why options of a log make no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// Not an option of ours.
    #[error("{name:?} is not an option of a log: max-size and max-file are")]
    Unknown {
        /// Its name.
        name: String,
    },
    /// Not a value of it.
    #[error("{given:?} is no value of {name}: {wanted}")]
    Value {
        /// The option.
        name: &'static str,
        /// What was given.
        given: String,
        /// What would be one.
        wanted: &'static str,
    },
}

impl Settings {
    /// The settings that `options` (name and value) describe.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn parse<'a>(options: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, SettingsError> {
        let mut settings = Self::default();
        for (name, value) in options {
            match name {
                "max-size" => settings.file_bytes_max = size(value)?,
                "max-file" => settings.files_max = files(value)?,
                _ => return Err(SettingsError::Unknown { name: name.to_owned() }),
            }
        }
        Ok(settings)
    }

    /// The settings as options.
    pub fn options(&self) -> [(&'static str, String); 2] {
        let size = self.file_bytes_max.map_or_else(|| "-1".to_owned(), |bytes| bytes.to_string());
        [("max-size", size), ("max-file", self.files_max.to_string())]
    }
}

fn size(text: &str) -> Result<Option<u64>, SettingsError> {
    let wanted = "write 4k or more, such as 10m, or -1 to let it grow";
    let bad = || SettingsError::Value { name: "max-size", given: text.to_owned(), wanted };
    if text == "-1" {
        return Ok(None);
    }
    let lower = text.to_ascii_lowercase();
    let digits = lower.find(|c: char| !c.is_ascii_digit()).unwrap_or(lower.len());
    let unit = match &lower[digits..] {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => return Err(bad()),
    };
    let bytes = lower[..digits].parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    bytes.filter(|bytes| *bytes >= FILE_BYTES_MIN).map(Some).ok_or_else(bad)
}

fn files(text: &str) -> Result<u32, SettingsError> {
    let number = text.parse::<u32>().ok().filter(|number| (1..=FILES_MAX).contains(number));
    let wanted = "write a number from 1 to 1000";
    number.ok_or_else(|| SettingsError::Value { name: "max-file", given: text.to_owned(), wanted })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_as_docker_writes_them_and_written_as_they_are_read() {
        let settings = Settings::parse([("max-size", "10m"), ("max-file", "5")]).unwrap();
        assert_eq!(settings, Settings { file_bytes_max: Some(10 << 20), files_max: 5 });
        let texts = settings.options();
        let again = Settings::parse(texts.iter().map(|(name, value)| (*name, value.as_str()))).unwrap();
        assert_eq!(again, settings);
        assert_eq!(Settings::parse([("max-size", "-1")]).unwrap().file_bytes_max, None);
    }

    #[test]
    fn what_is_no_option_is_refused_by_name() {
        for (name, value) in
            [("max-size", "10x"), ("max-size", "1"), ("max-size", ""), ("max-file", "0"), ("labels", "a")]
        {
            let error = Settings::parse([(name, value)]).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
