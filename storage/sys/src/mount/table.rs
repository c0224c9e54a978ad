//! The kernel's table of mounts, as `/proc/thread-self/mountinfo` tells it (`proc_pid_mountinfo(5)`).
//!
//! A line that cannot be read is an error, not a gap: a mount that is not seen is one that gets deleted through.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::error::MountError;

/// This thread's view of the mounts: a thread may be in a mount namespace of its own.
const TABLE: &str = "/proc/thread-self/mountinfo";

/// One mount that is attached somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountPoint {
    /// Number of the mount; reused by the kernel after unmounting.
    pub id: u64,
    /// Number of the mount below it.
    pub parent: u64,
    /// Major and minor number of the file system's device.
    pub device: (u32, u32),
    /// Which part of the file system is shown, as a path from its root.
    pub root: PathBuf,
    /// Where it is attached, seen from this process's root.
    pub target: PathBuf,
    /// Attributes of the mount (`ro`, `nosuid`, ...).
    pub options: Vec<String>,
    /// Optional fields as the kernel writes them: `shared:7`, `master:3`.
    pub propagation: Vec<String>,
    /// File system.
    pub kind: String,
    /// What was mounted: a device or a word.
    pub source: OsString,
    /// Options of the file system, unescaped, not split: paths in them may hold commas.
    pub file_system_options: OsString,
}

/// The mounts at or below `prefix` (absolute, without symbolic links), each after the one it lies on.
///
/// # Errors
/// [`MountError::Table`] if the table cannot be read, [`MountError::TableLine`] if a line is not as documented.
pub fn mounts_under(prefix: &Path) -> Result<Vec<MountPoint>, MountError> {
    let table =
        std::fs::read(TABLE).map_err(|source| MountError::Table { path: PathBuf::from(TABLE), source })?;
    let mut mounts = parse_mountinfo(&table)?;
    mounts.retain(|mount| mount.target.starts_with(prefix));
    Ok(mounts)
}

/// Reads a table of mounts. Fields that later kernels may append are ignored.
///
/// # Errors
/// [`MountError::TableLine`] names the line and the field that is missing or malformed.
pub fn parse_mountinfo(table: &[u8]) -> Result<Vec<MountPoint>, MountError> {
    let lines = table.split(|&byte| byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty());
    lines
        .map(|(i, line)| parse_line(line).map_err(|field| MountError::TableLine { line: i + 1, field }))
        .collect()
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn parse_line(line: &[u8]) -> Result<MountPoint, &'static str> {
    let mut fields = line.split(|&byte| byte == b' ');
    let mut next = |name: &'static str| fields.next().ok_or(name);
    let id = number(next("id")?).ok_or("id")?;
    let parent = number(next("parent")?).ok_or("parent")?;
    let device = next("device")?;
    let colon = device.iter().position(|&byte| byte == b':').ok_or("device")?;
    let device = (
        number(&device[..colon]).and_then(|n| u32::try_from(n).ok()).ok_or("device")?,
        number(&device[colon + 1..]).and_then(|n| u32::try_from(n).ok()).ok_or("device")?,
    );
    let root = PathBuf::from(unescape(next("root")?));
    let target = unescape(next("mount point")?);
    if target.as_bytes().first() != Some(&b'/') {
        return Err("mount point");
    }
    let options = String::from_utf8_lossy(next("mount options")?).split(',').map(str::to_owned).collect();
    let mut propagation = Vec::new();
    loop {
        match next("separator")? {
            b"-" => break,
            field => propagation.push(String::from_utf8_lossy(field).into_owned()),
        }
    }
    let kind = String::from_utf8_lossy(unescape(next("file system")?).as_bytes()).into_owned();
    let source = unescape(next("source")?);
    let file_system_options = unescape(next("file system options")?);
    Ok(MountPoint {
        id,
        parent,
        device,
        root,
        target: PathBuf::from(target),
        options,
        propagation,
        kind,
        source,
        file_system_options,
    })
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Replaces `\ooo` (three octal digits, as the kernel writes space, tab, newline, backslash, comma and `#`) by its byte.
fn unescape(field: &[u8]) -> OsString {
    if !field.contains(&b'\\') {
        return OsStr::from_bytes(field).to_owned();
    }
    let mut text = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        match tail {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..] if first == b'\\' => {
                text.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = tail;
            }
            _ => {
                text.push(first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(text)
}
