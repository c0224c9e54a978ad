//! Which words, environment and directory a container's process gets.

use storage_model::ImageConfig;

use super::{RunOptions, SpecError};

/// `PATH` of a process whose image sets none (containerd's default).
pub(crate) const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Entrypoint, then the user's words or else the image's command.
pub(super) fn words(image: &ImageConfig, options: &RunOptions) -> Result<Vec<String>, SpecError> {
    let entrypoint = options.entrypoint.as_ref().unwrap_or(&image.config.entrypoint);
    let arguments = if !options.args.is_empty() {
        options.args.as_slice()
    } else if options.entrypoint.is_none() {
        image.config.cmd.as_slice()
    } else {
        &[]
    };
    let words: Vec<String> = entrypoint.iter().chain(arguments).cloned().collect();
    if words.is_empty() || words[0].is_empty() {
        return Err(SpecError::NoCommand);
    }
    for word in &words {
        refuse_nul("argument", word)?;
    }
    Ok(words)
}

/// The image's variables, then the user's; `PATH` and, with a terminal, `TERM` when nobody sets them.
pub(super) fn environment(image: &ImageConfig, options: &RunOptions) -> Result<Vec<String>, SpecError> {
    let mut variables: Vec<String> = Vec::new();
    for variable in image.config.env.iter().filter(|variable| variable.contains('=')) {
        set(&mut variables, variable);
    }
    for variable in &options.env {
        refuse_nul("environment variable", variable)?;
        match variable.split_once('=') {
            Some(("", _)) => return Err(SpecError::Variable(variable.clone())),
            Some(_) => set(&mut variables, variable),
            None => variables.retain(|known| name_of(known) != variable),
        }
    }
    for variable in &variables {
        refuse_nul("environment variable", variable)?;
    }
    let removed = |name: &str| options.env.iter().any(|variable| variable == name);
    let mut default = |name: &str, value: &str| {
        if !removed(name) && !variables.iter().any(|known| name_of(known) == name) {
            variables.push(format!("{name}={value}"));
        }
    };
    default("PATH", PATH_DEFAULT);
    if options.terminal {
        default("TERM", "xterm");
    }
    if options.net_host
        && let Ok(name) = std::fs::read_to_string("/proc/sys/kernel/hostname")
    {
        default("HOSTNAME", name.trim_end());
    }
    Ok(variables)
}

/// The user's directory, else the image's, else `/`. A relative one of the image is taken from `/`, as Docker does.
pub(super) fn directory(image: &ImageConfig, options: &RunOptions) -> Result<String, SpecError> {
    let directory = match &options.cwd {
        Some(path) if path.starts_with('/') => path.clone(),
        Some(path) => return Err(SpecError::Relative { what: "working directory", path: path.clone() }),
        None if image.config.working_dir.starts_with('/') => image.config.working_dir.clone(),
        None => format!("/{}", image.config.working_dir),
    };
    refuse_nul("working directory", &directory)?;
    Ok(directory)
}

fn name_of(variable: &str) -> &str {
    variable.split_once('=').map_or(variable, |(name, _)| name)
}

fn set(variables: &mut Vec<String>, variable: &str) {
    match variables.iter_mut().find(|known| name_of(known) == name_of(variable)) {
        Some(known) => variable.clone_into(known),
        None => variables.push(variable.to_owned()),
    }
}

fn refuse_nul(what: &'static str, text: &str) -> Result<(), SpecError> {
    if text.contains('\0') { Err(SpecError::Nul { what, text: text.to_owned() }) } else { Ok(()) }
}
