//! Second shims: what speaks containerd's shim protocol for a running container of `windlass run`.
//!
//! Such a container's own shim is the shortest way to a process and no more. When somebody asks for more (an exec, a
//! pause, limits), a second shim is started in its bundle and takes the container over as far as that goes
//! (`runtime_shim::v2`, `adopt`). It is found again by its address in the bundle, and ends when the container does.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use runtime_api::containerd::task::v2 as wire;
use storage_model::Namespace;

use super::TaskError;
use super::link::{Address, Link};
use super::program::{Call, Host, OWN_RUNTIME, Program};

type Key = (Namespace, String);

/// Connections to second shims, by container.
#[derive(Default)]
pub(super) struct Seconds {
    links: Mutex<HashMap<Key, Arc<Link>>>,
    /// Held while one is started: two callers get one shim.
    starting: Mutex<()>,
}

impl Seconds {
    fn links(&self) -> MutexGuard<'_, HashMap<Key, Arc<Link>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self, key: &Key) -> Option<Arc<Link>> {
        self.links().get(key).filter(|link| !link.is_closed()).cloned()
    }

    /// The second shim of the running container in `bundle`; one is started if there is none.
    ///
    /// # Errors
    /// [`TaskError::Shim`] of the kind `FailedPrecondition` if the container does not run.
    pub(super) fn of(
        &self,
        namespace: &Namespace,
        id: &str,
        bundle: &Path,
        host: &Host,
    ) -> Result<Arc<Link>, TaskError> {
        let key = (namespace.clone(), id.to_owned());
        if let Some(link) = self.known(&key) {
            return Ok(link);
        }
        let _starting = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(link) = self.known(&key) {
            return Ok(link);
        }
        let link = match earlier(namespace, id, bundle) {
            Some(link) => link,
            None => start(namespace, id, bundle, host)?,
        };
        let link = Arc::new(link);
        self.links().insert(key, link.clone());
        Ok(link)
    }

    /// Ends the second shim of a container that has ended, if there is one.
    pub(super) fn end(&self, namespace: &Namespace, id: &str, bundle: &Path) {
        let known = self.links().remove(&(namespace.clone(), id.to_owned()));
        if let Some(link) = known.or_else(|| earlier(namespace, id, bundle).map(Arc::new)) {
            link.shutdown(true);
        }
        let _ = fs::remove_file(bundle.join("address"));
    }
}

/// The one that an earlier daemon started, if it lives.
fn earlier(namespace: &Namespace, id: &str, bundle: &Path) -> Option<Link> {
    let address = fs::read_to_string(bundle.join("address")).ok()?;
    let link = Link::connect(namespace.as_str(), id, address.trim(), 2).ok()?;
    // Without the container it is one whose `Create` failed, or was never called.
    (link.greet().ok()?.task_pid != 0).then_some(link)
}

fn start(namespace: &Namespace, id: &str, bundle: &Path, host: &Host) -> Result<Link, TaskError> {
    let program = Program::find(OWN_RUNTIME, host)?;
    let said = program.start(Call { namespace: namespace.as_str(), id, bundle, host }, None)?;
    let address = Address::parse(&said).ok_or_else(|| TaskError::Program {
        id: id.to_owned(),
        program: program.path.clone(),
        what: "start",
        words: "it printed no address".to_owned(),
    })?;
    let link = Link::connect(namespace.as_str(), id, &address.address, address.version)?;
    let bundle = bundle.display().to_string();
    let request = wire::CreateTaskRequest { id: id.to_owned(), bundle, ..wire::CreateTaskRequest::default() };
    if let Err(error) = link.work::<wire::CreateTaskResponse>("Create", &request) {
        link.shutdown(false);
        return Err(error);
    }
    Ok(link)
}
