//! Platforms: which of an index's images this machine runs.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Operating system, architecture and variant, in Go's spelling.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// Operating system: `linux`.
    #[serde(default)]
    pub os: String,
    /// Architecture: `amd64`, `arm64`.
    #[serde(default)]
    pub architecture: String,
    /// Variant: `v7`, `v8`; empty when there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// Version of the operating system (Windows only).
    #[serde(default, rename = "os.version", skip_serializing_if = "String::is_empty")]
    pub os_version: String,
}

/// Why text is not a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a platform: write os/arch or os/arch/variant, as in linux/arm64")]
pub struct PlatformError(pub String);

impl Platform {
    /// The platform this program was built for.
    pub fn host() -> Self {
        Self::normalized(std::env::consts::OS, std::env::consts::ARCH, "")
    }

    /// A platform with the aliases that tools write replaced by Go's names (containerd `platforms/database.go`).
    pub fn normalized(os: &str, architecture: &str, variant: &str) -> Self {
        let os = match os.to_ascii_lowercase().as_str() {
            "macos" => "darwin".to_owned(),
            other => other.to_owned(),
        };
        let variant = variant.to_ascii_lowercase();
        let (architecture, variant) = match (architecture.to_ascii_lowercase().as_str(), variant.as_str()) {
            ("i386" | "x86" | "386", _) => ("386", ""),
            ("x86_64" | "x86-64" | "amd64", "" | "v1") => ("amd64", ""),
            ("x86_64" | "x86-64" | "amd64", variant) => ("amd64", variant),
            ("aarch64" | "arm64", "" | "8" | "v8") => ("arm64", ""),
            ("aarch64" | "arm64", variant) => ("arm64", variant),
            ("armhf", _) => ("arm", "v7"),
            ("armel", _) => ("arm", "v6"),
            ("arm", "" | "7") => ("arm", "v7"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "6") => ("arm", "v6"),
            ("arm", "8") => ("arm", "v8"),
            ("powerpc64", variant) => ("ppc64", variant),
            ("powerpc64le", variant) => ("ppc64le", variant),
            (other, variant) => {
                return Self {
                    os,
                    architecture: other.to_owned(),
                    variant: variant.to_owned(),
                    os_version: String::new(),
                };
            }
        };
        Self {
            os,
            architecture: architecture.to_owned(),
            variant: variant.to_owned(),
            os_version: String::new(),
        }
    }

    /// How well an image for `offered` runs here: lower is better, `None` is not at all.
    ///
    /// An exact match is best; a lower variant of the same architecture runs too (arm v6 on v7, amd64 v1 on v3).
    pub fn rank(&self, offered: &Self) -> Option<u8> {
        let offered = Self::normalized(&offered.os, &offered.architecture, &offered.variant);
        if offered.os != self.os || offered.architecture != self.architecture {
            return None;
        }
        let level = |variant: &str| variant.strip_prefix('v').and_then(|n| n.parse::<u8>().ok());
        let base = match self.architecture.as_str() {
            "arm64" => 8,
            _ => 1,
        };
        match (self.variant.as_str(), offered.variant.as_str()) {
            (ours, theirs) if ours == theirs => Some(0),
            (ours, theirs) => {
                let ours = if ours.is_empty() { base } else { level(ours)? };
                let theirs = if theirs.is_empty() { base } else { level(theirs)? };
                ours.checked_sub(theirs)
            }
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let bad = || PlatformError(text.chars().take(80).collect());
        let word = |part: &str| {
            let fine = part.bytes().next().is_some_and(|c| c.is_ascii_alphanumeric())
                && part.len() <= 32
                && part.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-'));
            if fine { Ok(()) } else { Err(bad()) }
        };
        let parts: Vec<&str> = text.split('/').collect();
        for part in &parts {
            word(part)?;
        }
        match parts[..] {
            [os, architecture] => Ok(Self::normalized(os, architecture, "")),
            [os, architecture, variant] => Ok(Self::normalized(os, architecture, variant)),
            _ => Err(bad()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_have_one_spelling() {
        for (text, canonical) in [
            ("linux/x86_64", "linux/amd64"),
            ("Linux/AMD64", "linux/amd64"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/riscv64", "linux/riscv64"),
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), canonical);
        }
    }

    #[test]
    fn what_is_no_platform_is_refused() {
        for text in ["", "linux", "/", "linux/", "a/b/c/d", "linux/amd 64", "../..", "linux/\u{e9}"] {
            assert!(text.parse::<Platform>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn the_nearest_lower_variant_is_preferred_and_a_higher_one_refused() {
        let p = |text: &str| text.parse::<Platform>().unwrap();
        assert_eq!(p("linux/amd64").rank(&p("linux/amd64")), Some(0));
        assert_eq!(p("linux/amd64").rank(&p("linux/amd64/v3")), None);
        assert_eq!(p("linux/amd64/v3").rank(&p("linux/amd64")), Some(2));
        assert_eq!(p("linux/arm/v7").rank(&p("linux/arm/v6")), Some(1));
        assert_eq!(p("linux/arm/v6").rank(&p("linux/arm/v7")), None);
        assert_eq!(p("linux/amd64").rank(&p("linux/arm64")), None);
        assert_eq!(p("linux/amd64").rank(&p("windows/amd64")), None);
    }
}
