//! Why a command will not start, found by looking into the mounted root before anything is started.
//!
//! OCI runtimes answer a missing program late, in words of their own, and on the standard error that already belongs
//! to the container. What can be known from the files is said here: not found, not executable, made for another
//! machine, or (the kernel's unhelpful "no such file or directory") its interpreter is missing.
//!
//! A verdict is given only where it is certain; whatever else is wrong stays for the runtime to say.
use storage_sys::rootfs::{Entry, Rootfs};

/// Why a program cannot start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProgramError {
    /// No such file in the image.
    #[error("{program:?} is not in the image{searched}")]
    NotFound {
        /// The program as it was given.
        program: String,
        /// ` (searched in PATH ...)`, or empty for a path.
        searched: String,
    },
    /// It is there but cannot be executed.
    #[error("{program:?} cannot be executed: {reason}")]
    NotExecutable {
        /// The program as it was given.
        program: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It is there, but the loader or script interpreter it names is not.
    #[error("{program:?} needs {interpreter:?} to run, which is not in the image")]
    NoInterpreter {
        /// The program as it was given.
        program: String,
        /// What it names.
        interpreter: String,
    },
}

impl ProgramError {
    /// The exit code shells and Docker use for it: 127 for something not found, 126 for something not executable.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotExecutable { .. } => 126,
            Self::NotFound { .. } | Self::NoInterpreter { .. } => 127,
        }
    }
}

/// Bytes of a program that are looked at. The program headers and the interpreter's name lie at the very front of
/// every file that a linker makes.
const HEAD_BYTES: u64 = 4096;

/// Checks that `program`, started in `directory` with `path` as `PATH`, can start in `root`.
///
/// # Errors
/// [`ProgramError`] when it certainly cannot.
pub fn check(root: &Rootfs, program: &str, directory: &str, path: &str) -> Result<(), ProgramError> {
    let mut first_bad = None;
    let candidates: Vec<String> = if program.starts_with('/') {
        vec![program.to_owned()]
    } else if program.contains('/') {
        vec![format!("{directory}/{program}")]
    } else {
        path.split(':').map(|folder| format!("{folder}/{program}")).collect()
    };
    for candidate in &candidates {
        let entry = match root.find(candidate) {
            Ok(Some(entry)) => entry,
            Ok(None) => continue,
            // Too long, a circle of links, no access: the runtime will say so.
            Err(_) => return Ok(()),
        };
        match unexecutable(&entry) {
            None => return interpreter_of(root, program, &entry),
            Some(reason) => first_bad = first_bad.or(Some(reason)),
        }
    }
    let program = program.to_owned();
    match first_bad {
        Some(reason) => Err(ProgramError::NotExecutable { program, reason: reason.to_owned() }),
        None if program.contains('/') => Err(ProgramError::NotFound { program, searched: String::new() }),
        None => Err(ProgramError::NotFound { program, searched: format!(" (searched in PATH {path})") }),
    }
}

fn unexecutable(entry: &Entry) -> Option<&'static str> {
    if entry.is_directory() {
        Some("it is a directory")
    } else if !entry.is_file() {
        Some("it is not a file")
    } else if entry.mode & 0o111 == 0 {
        Some("nobody has execute permission on it")
    } else {
        None
    }
}

fn interpreter_of(root: &Rootfs, program: &str, entry: &Entry) -> Result<(), ProgramError> {
    let Ok(head) = entry.read(HEAD_BYTES) else { return Ok(()) };
    if let Some(machine) = foreign_machine(&head)
        && !emulators_registered()
    {
        let reason = format!("it is made for {machine}, this machine is {}", std::env::consts::ARCH);
        return Err(ProgramError::NotExecutable { program: program.to_owned(), reason });
    }
    let Some(interpreter) = interpreter(&head) else { return Ok(()) };
    match root.find(&interpreter) {
        Ok(None) => Err(ProgramError::NoInterpreter { program: program.to_owned(), interpreter }),
        _ => Ok(()),
    }
}

/// The absolute path of a script's interpreter or a program's loader, if the head of the file names one.
pub fn interpreter(head: &[u8]) -> Option<String> {
    let name = match head.strip_prefix(b"#!") {
        Some(line) => {
            let line = line.split(|&byte| byte == b'\n').next()?;
            line.split(|byte| byte.is_ascii_whitespace()).find(|word| !word.is_empty())?
        }
        None => elf_interpreter(head)?,
    };
    let name = std::str::from_utf8(name).ok()?;
    (name.starts_with('/') && !name.contains('\0')).then(|| name.to_owned())
}

/// Program header type of the loader's name (`PT_INTERP`).
const PT_INTERP: u64 = 3;

fn elf_interpreter(head: &[u8]) -> Option<&[u8]> {
    if head.get(..4)? != b"\x7fELF" || *head.get(5)? != 1 {
        return None;
    }
    // Offsets of: table, entry size, entry count; and in an entry: file offset, length (elf(5)).
    let (wide, table, entry_size, count, offset_at, length_at) = match head.get(4)? {
        2 => (8, 0x20, 0x36, 0x38, 0x08, 0x20),
        1 => (4, 0x1c, 0x2a, 0x2c, 0x04, 0x10),
        _ => return None,
    };
    let table = little_endian(head, table, wide)?;
    let entry_size = little_endian(head, entry_size, 2)?;
    let count = little_endian(head, count, 2)?;
    for index in 0..count.min(64) {
        let entry = table.checked_add(index.checked_mul(entry_size)?)?;
        if little_endian(head, entry, 4)? != PT_INTERP {
            continue;
        }
        let start = little_endian(head, entry.checked_add(offset_at)?, wide)?;
        let length = little_endian(head, entry.checked_add(length_at)?, wide)?;
        let end = start.checked_add(length)?;
        let name = head.get(usize::try_from(start).ok()?..usize::try_from(end).ok()?)?;
        return name.strip_suffix(b"\0");
    }
    None
}

fn little_endian(bytes: &[u8], at: u64, width: usize) -> Option<u64> {
    let at = usize::try_from(at).ok()?;
    let field = bytes.get(at..at.checked_add(width)?)?;
    Some(field.iter().rev().fold(0, |value, &byte| (value << 8) | u64::from(byte)))
}

/// The machine a program is made for, when it is certainly not this one (`e_machine`, elf(5)).
fn foreign_machine(head: &[u8]) -> Option<&'static str> {
    if head.get(..4)? != b"\x7fELF" || *head.get(5)? != 1 {
        return None;
    }
    let (name, runs_on) = match little_endian(head, 0x12, 2)? {
        3 => ("x86", "x86_64"),
        62 => ("x86_64", "x86_64"),
        40 => ("arm", "aarch64"),
        183 => ("aarch64", "aarch64"),
        243 => ("riscv64", "riscv64"),
        _ => return None,
    };
    (std::env::consts::ARCH != runs_on).then_some(name)
}

/// Whether the kernel may hand foreign programs to an emulator (binfmt_misc).
fn emulators_registered() -> bool {
    let Ok(entries) = std::fs::read_dir("/proc/sys/fs/binfmt_misc") else { return false };
    entries.flatten().any(|entry| !matches!(entry.file_name().to_str(), Some("register" | "status")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn write(root: &std::path::Path, name: &str, bytes: &[u8], mode: u32) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn each_reason_not_to_start_has_its_own_words_and_code() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        write(root, "bin/sh", b"whatever", 0o755);
        write(root, "bin/good", b"#!/bin/sh\n", 0o755);
        write(root, "bin/lost", b"#! /usr/bin/perl -w\n", 0o755);
        write(root, "etc/plain", b"text", 0o644);
        write(root, "srv/tool", b"x", 0o755);
        let rootfs = Rootfs::open(root).unwrap();
        let run = |program: &str| check(&rootfs, program, "/srv", "/usr/bin:/bin");
        for good in ["/bin/good", "good", "./tool", "../bin/sh", "sh"] {
            assert_eq!(run(good), Ok(()), "{good}");
        }
        let table = [
            ("nope", 127, "\"nope\" is not in the image (searched in PATH /usr/bin:/bin)"),
            ("/bin/nope", 127, "\"/bin/nope\" is not in the image"),
            ("/etc", 126, "\"/etc\" cannot be executed: it is a directory"),
            ("/etc/plain", 126, "\"/etc/plain\" cannot be executed: nobody has execute permission on it"),
            ("lost", 127, "\"lost\" needs \"/usr/bin/perl\" to run, which is not in the image"),
        ];
        for (program, code, words) in table {
            let error = run(program).unwrap_err();
            assert_eq!((error.exit_code(), error.to_string().as_str()), (code, words));
        }
    }

    #[test]
    fn a_dynamic_program_names_its_loader() {
        let head = fs::read("/proc/self/exe").unwrap();
        let found = interpreter(&head[..4096]);
        // Test programs are linked dynamically where there is a system libc.
        assert!(found.is_none_or(|name| name.contains("ld")));
        let entry = fs::read("/bin/ls").unwrap();
        assert!(interpreter(&entry[..4096]).unwrap().contains("ld"));
    }

    proptest! {
        #[test]
        fn any_bytes_may_stand_where_a_program_is_expected(mut head in proptest::collection::vec(any::<u8>(), 0..300), elf in any::<bool>()) {
            if elf && head.len() > 6 {
                head[..6].copy_from_slice(b"\x7fELF\x02\x01");
            }
            if let Some(name) = interpreter(&head) {
                prop_assert!(name.starts_with('/'));
            }
            foreign_machine(&head);
        }
    }
}
