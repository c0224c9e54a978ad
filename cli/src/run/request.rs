//! The engine's request for a container, from what was typed.

use std::collections::HashMap;
use std::path::Path;

use runtime_api::windlass::v1::{Mount, RunRequest};

use super::{environment, security};
use crate::args::{Bind, Pair, RunArgs};
use crate::error::CliError;

/// The request, but for the image's full name.
///
/// # Errors
/// [`CliError`] for an environment, an entrypoint or a path to mount that cannot be used.
pub(super) fn build(args: &RunArgs) -> Result<RunRequest, CliError> {
    let mut labels = HashMap::new();
    for path in &args.label_file {
        labels.extend(environment::labels(path)?);
    }
    labels.extend(pairs(&args.label));
    let mounts = args.mount.iter().chain(&args.volume).chain(&args.tmpfs);
    let mounts = mounts.map(mount).collect::<Result<_, _>>()?;
    let entrypoint = args.entrypoint.as_deref().map(entrypoint).transpose()?;
    Ok(RunRequest {
        image: args.image().to_owned(),
        id: args.name.as_ref().map(ToString::to_string).unwrap_or_default(),
        args: args.command().to_vec(),
        env: environment::collect(&args.env_file, &args.env, terminal_type(args.tty))?,
        cwd: args.cwd.clone().unwrap_or_default(),
        user: args.user.clone().unwrap_or_default(),
        terminal: args.tty,
        mounts,
        runtime: runtime(args.runtime.as_deref()),
        snapshotter: args.snapshotter.name(),
        remove: args.rm,
        hostname: args.hostname.clone().unwrap_or_default(),
        read_only: args.read_only,
        labels,
        privileged: args.security.privileged,
        entrypoint_set: entrypoint.is_some(),
        entrypoint: entrypoint.unwrap_or_default(),
        detach: args.detach,
        restart: args.restart.clone().unwrap_or_default(),
        rootfs: args.root().map(root).transpose()?.unwrap_or_default(),
        init: args.init,
        annotations: pairs(&args.annotation),
        stop_signal: args.stop_signal.clone().unwrap_or_default(),
        stop_timeout_seconds: args.stop_timeout.unwrap_or(0),
        log_driver: args.log_driver.clone().unwrap_or_default(),
        log_options: pairs(&args.log_opt),
        domainname: args.domainname.clone().unwrap_or_default(),
        ..bounds(args)?
    })
}

/// The part of the request that says what the container may use, do and reach.
fn bounds(args: &RunArgs) -> Result<RunRequest, CliError> {
    let RunArgs { limits, security, network, .. } = args;
    Ok(RunRequest {
        network: Some(network.options()),
        resources: limits.cgroup.resources(),
        ulimits: limits.ulimit.clone(),
        oom_score_adj: limits.oom_score_adj.unwrap_or(0),
        oom_score_adj_set: limits.oom_score_adj.is_some(),
        shm_bytes: limits.shm_size.unwrap_or(0),
        cgroup_parent: limits.cgroup_parent.clone().unwrap_or_default(),
        cap_add: security.cap_add.clone(),
        cap_drop: security.cap_drop.clone(),
        devices: security.device.clone(),
        security_opts: security::options(security)?,
        sysctls: pairs(&security.sysctl),
        groups: security.group_add.clone(),
        pid_mode: security.pid.clone().unwrap_or_default(),
        ipc_mode: security.ipc.clone().unwrap_or_default(),
        uts_mode: security.uts.clone().unwrap_or_default(),
        cgroupns_mode: security.cgroupns.clone().unwrap_or_default(),
        ..RunRequest::default()
    })
}

fn pairs(pairs: &[Pair]) -> HashMap<String, String> {
    pairs.iter().map(|pair| (pair.name.clone(), pair.value.clone())).collect()
}

/// A directory that is the root of a container, as an absolute path that exists.
fn root(path: &Path) -> Result<String, CliError> {
    let failed = |source| CliError::File { what: "use as root", path: path.to_owned(), source };
    let whole = path.canonicalize().map_err(failed)?;
    if !whole.is_dir() {
        return Err(failed(std::io::ErrorKind::NotADirectory.into()));
    }
    Ok(whole.to_string_lossy().into_owned())
}

/// `TERM` for a process with a terminal: what the user's own terminal is.
fn terminal_type(tty: bool) -> Option<String> {
    let here = || std::env::var("TERM").ok().filter(|term| !term.is_empty());
    tty.then(|| here().unwrap_or_else(|| "xterm".to_owned()))
}

/// A runtime given as a path becomes an absolute one: the engine has another working directory.
fn runtime(given: Option<&str>) -> String {
    match given {
        Some(path) if path.contains('/') => std::path::absolute(path)
            .map_or_else(|_| path.to_owned(), |path| path.to_string_lossy().into_owned()),
        Some(name) => name.to_owned(),
        None => String::new(),
    }
}

/// A bind's source as an absolute path that exists: the engine would say the same, but only after half the work.
fn mount(bind: &Bind) -> Result<Mount, CliError> {
    let source = if bind.kind == "bind" {
        let path = Path::new(&bind.source);
        let whole = path.canonicalize().map_err(|source| CliError::File {
            what: "mount",
            path: path.to_owned(),
            source,
        })?;
        whole.to_string_lossy().into_owned()
    } else {
        bind.source.clone()
    };
    Ok(Mount {
        r#type: bind.kind.clone(),
        source,
        destination: bind.destination.clone(),
        options: bind.options.clone(),
    })
}

/// A word, a JSON array of words, or nothing.
fn entrypoint(given: &str) -> Result<Vec<String>, CliError> {
    if given.is_empty() {
        Ok(Vec::new())
    } else if given.starts_with('[') {
        serde_json::from_str(given).map_err(|source| CliError::Entrypoint { given: given.to_owned(), source })
    } else {
        Ok(vec![given.to_owned()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Verb};
    use clap::Parser;

    fn args(words: &[&str]) -> RunArgs {
        match Cli::try_parse_from(["windlass", "run"].iter().chain(words)).unwrap().verb {
            Verb::Run(args) => *args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn everything_that_was_typed_arrives() {
        let request = build(&args(&[
            "--rm",
            "--name",
            "c1",
            "-e",
            "A=1",
            "-w",
            "/w",
            "-u",
            "1:2",
            "--net-host",
            "--read-only",
            "-l",
            "k=v",
            "-v",
            "/:/host:ro",
            "--entrypoint",
            "sh",
            "img",
            "-c",
            "true",
        ]))
        .unwrap();
        assert_eq!((request.image.as_str(), request.id.as_str()), ("img", "c1"));
        assert_eq!(request.args, ["-c", "true"]);
        assert_eq!(request.env, ["A=1"]);
        assert_eq!((request.cwd.as_str(), request.user.as_str()), ("/w", "1:2"));
        assert!(
            request.remove
                && request.network.as_ref().unwrap().mode == "host"
                && request.read_only
                && !request.terminal
                && !request.detach
        );
        assert_eq!(request.labels["k"], "v");
        assert_eq!(request.entrypoint, ["sh"]);
        assert!(request.entrypoint_set);
        assert_eq!(request.mounts[0].source, "/");
    }

    #[test]
    fn an_empty_entrypoint_is_set_and_an_absent_one_is_not() {
        let none = build(&args(&["--entrypoint", "", "img"])).unwrap();
        assert!(none.entrypoint_set && none.entrypoint.is_empty());
        assert!(!build(&args(&["img"])).unwrap().entrypoint_set);
        let list = build(&args(&["--entrypoint", r#"["sh","-c"]"#, "img"])).unwrap();
        assert_eq!(list.entrypoint, ["sh", "-c"]);
        assert!(matches!(build(&args(&["--entrypoint", "[sh", "img"])), Err(CliError::Entrypoint { .. })));
    }

    #[test]
    fn what_is_to_be_mounted_must_be_there() {
        let error = build(&args(&["-v", "/no/such/directory:/x", "img"])).unwrap_err();
        assert!(matches!(error, CliError::File { what: "mount", .. }), "{error:?}");
    }

    #[test]
    fn a_runtime_by_path_is_made_absolute_and_one_by_name_is_not() {
        assert!(Path::new(&runtime(Some("./crun"))).is_absolute());
        assert_eq!(runtime(Some("crun")), "crun");
        assert_eq!(runtime(None), "");
    }
}
