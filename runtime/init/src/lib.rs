//! The first process of a container that asks for one, as a program to be written to a file.
//!
//! Not here: its source (`storage/sys/init/main.rs`, for it needs `unsafe`), who asks for it (`run --init`).
#![forbid(unsafe_code)]

/// `windlass-init`: a statically linked executable of this machine's architecture.
pub const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/windlass-init"));

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::process::{Command, Stdio};

    /// The program in a file, written before any test forks: a child that has it open for writing could not run it.
    fn init() -> (&'static tempfile::TempDir, Command) {
        static DIRECTORY: std::sync::OnceLock<tempfile::TempDir> = std::sync::OnceLock::new();
        let directory = DIRECTORY.get_or_init(|| {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("init");
            fs::write(&path, PROGRAM).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            directory
        });
        let mut command = Command::new(directory.path().join("init"));
        command.arg("--").stdin(Stdio::null());
        (directory, command)
    }

    fn code(words: &[&str]) -> Option<i32> {
        let (_directory, mut command) = init();
        command.args(words).stderr(Stdio::null()).status().unwrap().code()
    }

    #[test]
    fn it_ends_as_its_program_ends() {
        assert_eq!(code(&["sh", "-c", "exit 42"]), Some(42));
        assert_eq!(code(&["sh", "-c", "kill -9 $$"]), Some(137));
        assert_eq!(code(&["/no/such/program"]), Some(127));
        assert_eq!(code(&["/"]), Some(126));
        assert_eq!(code(&[]), Some(127));
    }

    #[test]
    fn it_needs_no_library_of_the_image() {
        assert!(PROGRAM.starts_with(b"\x7fELF") && PROGRAM.len() < 2 * 1024 * 1024);
        // elf(5), 64 bits: where the program headers are, how large one is, how many there are.
        let number = |at: usize, bytes: usize| {
            PROGRAM[at..at + bytes].iter().rev().fold(0usize, |sum, byte| sum << 8 | usize::from(*byte))
        };
        let (table, size, count) = (number(32, 8), number(54, 2), number(56, 2));
        // PT_INTERP is 3: an executable with an interpreter is linked dynamically.
        assert!((0..count).all(|header| number(table + header * size, 4) != 3));
    }

    #[test]
    fn signals_reach_the_program_and_its_handler_decides() {
        let (_directory, mut command) = init();
        let script = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done";
        let mut child = command.args(["sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line)
            .unwrap();
        assert_eq!(line, "ready\n");
        Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(7));
    }
}
