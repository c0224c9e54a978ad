//! Further processes in a container.

use std::collections::HashMap;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use storage_sys::process::become_subreaper;

use crate::args::{Args, ExecArgs};
use crate::error::EmbeddedError;
use crate::life::{absolute, load, wait, wrong_state};

/// Starts a process, and waits for its end unless detached. Returns the exit code.
pub(crate) fn exec(args: &Args, exec: &ExecArgs) -> Result<u8, EmbeddedError> {
    let what = "exec";
    let container = load(args, &exec.id)?;
    if !container.can_exec() && !exec.ignore_paused {
        return Err(wrong_state(what, &container));
    }
    if !exec.detach {
        become_subreaper().map_err(EmbeddedError::Wait)?;
    }
    let (user, group) = user(exec.user.as_deref())?;
    let pid = ContainerBuilder::new(exec.id.clone(), SyscallType::default())
        .with_root_path(args.root.clone())
        .and_then(|builder| builder.with_pid_file(exec.pid_file.as_deref().map(absolute)))
        .map_err(EmbeddedError::container(what))?
        .with_console_socket(exec.console_socket.as_deref().map(absolute))
        .with_preserved_fds(exec.preserve_fds)
        .validate_id()
        .map_err(EmbeddedError::container(what))?
        .as_tenant()
        .with_detach(exec.detach)
        .with_cwd(exec.cwd.clone())
        .with_env(variables(&exec.env)?)
        .with_process(exec.process.as_deref().map(absolute))
        .with_no_new_privs(exec.no_new_privs)
        .with_capabilities(exec.cap.clone())
        .with_additional_gids(exec.additional_gids.clone())
        .with_user(user)
        .with_group(group)
        .with_ignore_paused(exec.ignore_paused)
        .with_container_args(exec.command.clone())
        .build()
        .map_err(EmbeddedError::container(what))?;
    if exec.detach { Ok(0) } else { wait(Some(pid.as_raw())) }
}

fn variables(words: &[String]) -> Result<HashMap<String, String>, EmbeddedError> {
    words
        .iter()
        .map(|word| {
            let (key, value) = word
                .split_once('=')
                .ok_or_else(|| EmbeddedError::Word { kind: "variable (KEY=VALUE)", word: word.clone() })?;
            Ok((key.to_owned(), value.to_owned()))
        })
        .collect()
}

fn user(word: Option<&str>) -> Result<(Option<u32>, Option<u32>), EmbeddedError> {
    let Some(word) = word else { return Ok((None, None)) };
    let number = |text: &str| {
        text.parse::<u32>()
            .ok()
            .filter(|&number| i32::try_from(number).is_ok())
            .ok_or_else(|| EmbeddedError::Word { kind: "user (UID or UID:GID)", word: word.to_owned() })
    };
    match word.split_once(':') {
        Some((user, group)) => Ok((Some(number(user)?), Some(number(group)?))),
        None => Ok((Some(number(word)?), None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vuln_r11_a_user_that_is_no_small_number_is_refused() {
        assert_eq!(user(Some("1000:5")).unwrap(), (Some(1000), Some(5)));
        for word in ["2147483648", "4294967296", "-1", "root", "1:", ""] {
            assert!(user(Some(word)).is_err(), "{word}");
        }
    }
}
