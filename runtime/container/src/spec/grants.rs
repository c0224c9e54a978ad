//! What a container may do beyond the defaults, or may not: capabilities, devices, security options, kernel settings.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use oci_spec::runtime::{
    Capability, LinuxCapabilitiesBuilder, LinuxDeviceCgroupBuilder, LinuxDeviceType, LinuxSeccomp, Spec,
};
use serde::{Deserialize, Serialize};

use super::{SpecError, built, defaults, privileged, seccomp, user};
use crate::files::FileLookup;

/// Further permissions and prohibitions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Grants {
    /// Capabilities beyond the default ones, with or without `CAP_`; `ALL` is all of this process.
    pub cap_add: Vec<String>,
    /// Default ones it does not get; `ALL` is all but those added.
    pub cap_drop: Vec<String>,
    /// `HOST[:CONTAINER[:rwm]]`.
    pub devices: Vec<String>,
    /// As Docker spells them: `no-new-privileges[=false]`, `seccomp=unconfined`, `seccomp=` and a profile (JSON of the
    /// runtime spec), `apparmor=NAME`, `label=disable`, `systempaths=unconfined`, `mask=PATH`, `unmask=PATH|ALL`.
    pub security: Vec<String>,
    /// Further groups of the process, by name or number.
    pub groups: Vec<String>,
    /// Kernel settings of the container's namespaces.
    pub sysctls: BTreeMap<String, String>,
}

impl Grants {
    /// The capabilities of root in this container.
    ///
    /// # Errors
    /// [`SpecError::Capability`], [`SpecError::Host`].
    fn capabilities(&self) -> Result<HashSet<Capability>, SpecError> {
        let is_all = |name: &String| name.eq_ignore_ascii_case("all");
        let named = |names: &[String]| -> Result<HashSet<Capability>, SpecError> {
            names.iter().filter(|name| !is_all(name)).map(|name| capability(name)).collect()
        };
        let (added, dropped) = (named(&self.cap_add)?, named(&self.cap_drop)?);
        let mut all =
            if self.cap_drop.iter().any(is_all) { HashSet::new() } else { defaults::capabilities() };
        if self.cap_add.iter().any(is_all) {
            all.extend(privileged::own_capabilities()?);
        }
        all.retain(|capability| !dropped.contains(capability));
        all.extend(added);
        Ok(all)
    }
}

fn capability(name: &str) -> Result<Capability, SpecError> {
    let unknown = || SpecError::Capability(name.to_owned());
    serde_json::from_value(serde_json::Value::String(name.to_ascii_uppercase())).map_err(|_| unknown())
}

/// Writes `grants` into `spec`; groups are looked up in `files`.
///
/// # Errors
/// [`SpecError`] names the grant that makes no sense.
pub(super) fn apply(spec: &mut Spec, grants: &Grants, files: &dyn FileLookup) -> Result<(), SpecError> {
    if !grants.cap_add.is_empty() || !grants.cap_drop.is_empty() {
        capabilities(spec, grants)?;
    }
    for device in &grants.devices {
        add_device(spec, device)?;
    }
    for option in &grants.security {
        security(spec, option)?;
    }
    if !grants.groups.is_empty()
        && let Some(process) = spec.process_mut()
    {
        let mut user = process.user().clone();
        let mut all = user.additional_gids().clone().unwrap_or_default();
        for name in &grants.groups {
            let group = user::resolve_group(name, files)?;
            if !all.contains(&group) {
                all.push(group);
            }
        }
        user.set_additional_gids(Some(all));
        process.set_user(user);
    }
    if !grants.sysctls.is_empty()
        && let Some(linux) = spec.linux_mut()
    {
        linux.set_sysctl(Some(grants.sysctls.clone().into_iter().collect()));
    }
    Ok(())
}

fn capabilities(spec: &mut Spec, grants: &Grants) -> Result<(), SpecError> {
    let all = grants.capabilities()?;
    if let Some(linux) = spec.linux_mut() {
        // Some system calls come with a capability.
        linux.set_seccomp(Some(seccomp::default_profile(&all)));
    }
    if let Some(process) = spec.process_mut() {
        let sets =
            LinuxCapabilitiesBuilder::default().bounding(all.clone()).effective(all.clone()).permitted(all);
        let mut sets = built(sets.build());
        // CVE-2022-29162: an inheritable set would survive into programs with file capabilities.
        sets.set_inheritable(None).set_ambient(None);
        process.set_capabilities(Some(sets));
    }
    Ok(())
}

fn add_device(spec: &mut Spec, text: &str) -> Result<(), SpecError> {
    let bad = |reason: &'static str| SpecError::Device { given: text.to_owned(), reason };
    let parts: Vec<&str> = text.split(':').collect();
    let is_access = |text: &str| !text.is_empty() && text.bytes().all(|c| matches!(c, b'r' | b'w' | b'm'));
    let (source, target, access) = match parts[..] {
        [source] => (source, source, "rwm"),
        [source, access] if is_access(access) => (source, source, access),
        [source, target] => (source, target, "rwm"),
        [source, target, access] if is_access(access) => (source, target, access),
        [_, _, _] => return Err(bad("its access is none of r, w and m")),
        _ => return Err(bad("write HOST[:CONTAINER[:rwm]]")),
    };
    if !Path::new(source).is_absolute() || !Path::new(target).is_absolute() {
        return Err(bad("its paths must be absolute"));
    }
    let metadata = fs::metadata(source).map_err(|_| bad("it is not on this machine"))?;
    let device = privileged::device(target.into(), &metadata).ok_or_else(|| bad("it is not a device"))?;
    let kind = if metadata.file_type().is_char_device() { LinuxDeviceType::C } else { LinuxDeviceType::B };
    let (major, minor) = privileged::numbers(metadata.rdev());
    let rule =
        LinuxDeviceCgroupBuilder::default().allow(true).typ(kind).major(major).minor(minor).access(access);
    if let Some(linux) = spec.linux_mut() {
        let mut devices = linux.devices().clone().unwrap_or_default();
        devices.retain(|other| other.path() != device.path());
        devices.push(device);
        linux.set_devices(Some(devices));
        if let Some(resources) = linux.resources_mut() {
            let mut rules = resources.devices().clone().unwrap_or_default();
            rules.push(built(rule.build()));
            resources.set_devices(Some(rules));
        }
    }
    Ok(())
}

fn security(spec: &mut Spec, text: &str) -> Result<(), SpecError> {
    let bad = |reason: &'static str| SpecError::Security { given: text.chars().take(60).collect(), reason };
    // Docker takes both signs.
    let at = text.find(['=', ':']);
    let (name, value) = at.map_or((text, ""), |at| (&text[..at], &text[at + 1..]));
    let Some(process) = spec.process_mut() else { return Ok(()) };
    match (name, value) {
        ("no-new-privileges", "" | "true") => drop(process.set_no_new_privileges(Some(true))),
        ("no-new-privileges", "false") => drop(process.set_no_new_privileges(Some(false))),
        ("apparmor", "unconfined") => drop(process.set_apparmor_profile(None)),
        ("apparmor", profile) if !profile.is_empty() => {
            process.set_apparmor_profile(Some(profile.to_owned()));
        }
        ("label", "disable") => drop(process.set_selinux_label(None)),
        ("seccomp" | "systempaths" | "mask" | "unmask", _) => return paths_or_filter(spec, name, value, bad),
        _ => return Err(bad("it is not an option known here")),
    }
    Ok(())
}

fn paths_or_filter(
    spec: &mut Spec,
    name: &str,
    value: &str,
    bad: impl Fn(&'static str) -> SpecError,
) -> Result<(), SpecError> {
    let Some(linux) = spec.linux_mut() else { return Ok(()) };
    let mut masked = linux.masked_paths().clone().unwrap_or_default();
    let listed = || value.split(':').map(str::to_owned);
    match (name, value) {
        ("seccomp", "unconfined") => drop(linux.set_seccomp(None)),
        ("seccomp", "builtin" | "") => {}
        ("seccomp", profile) => drop(linux.set_seccomp(Some(filter(profile, bad)?))),
        ("systempaths", "unconfined") | ("unmask", "ALL" | "all") => {
            linux.set_masked_paths(None).set_readonly_paths(None);
        }
        ("mask", _) if listed().all(|path| path.starts_with('/')) => {
            masked.extend(listed());
            linux.set_masked_paths(Some(masked));
        }
        ("unmask", _) if listed().all(|path| path.starts_with('/')) => {
            masked.retain(|path| !listed().any(|other| other == *path));
            let mut read_only = linux.readonly_paths().clone().unwrap_or_default();
            read_only.retain(|path| !listed().any(|other| other == *path));
            linux.set_masked_paths(Some(masked)).set_readonly_paths(Some(read_only));
        }
        _ => return Err(bad("its value is none that is known here")),
    }
    Ok(())
}

/// A profile of the runtime spec. One of Docker's own form would be read as something else, so it is refused.
fn filter(profile: &str, bad: impl Fn(&'static str) -> SpecError) -> Result<LinuxSeccomp, SpecError> {
    let value: serde_json::Value =
        serde_json::from_str(profile).map_err(|_| bad("it is not JSON: give the path of a profile"))?;
    let conditional =
        |rule: &serde_json::Value| rule.get("includes").is_some() || rule.get("excludes").is_some();
    if value.get("archMap").is_some() || value["syscalls"].as_array().into_iter().flatten().any(conditional) {
        return Err(bad("it has conditions (archMap, includes): give a profile as the runtime spec has it"));
    }
    serde_json::from_value(value).map_err(|_| bad("it is not a profile of the runtime spec"))
}
