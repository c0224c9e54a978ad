//! Pull-through: what is asked for and not here is pulled, once for all who ask, and goes on when they leave.
//!
//! `join -> resolved: the manifest can be served -> progress*: blobs can -> ended`. Clients choose what is pulled. They
//! may not choose from where inside this network: see [`Flights::admits`].

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use storage_model::{Digest, Reference};
use tokio::sync::{Semaphore, watch};

use crate::backend::{Backend, BackendError, PullReport};
use crate::graph::document;
use crate::manifest::describe;
use crate::options::PullThrough;
use crate::reply::Refusal;
use crate::request::Name;
use crate::server::Mirror;
use crate::view::whole_name;

/// Most pulls running and waiting.
const FLIGHTS_MAX: usize = 256;
/// Most references whose last pull is remembered.
const FRESH_MAX: usize = 4096;

/// Pulls under way and those that ended lately.
pub(crate) struct Flights<B> {
    backend: Arc<B>,
    options: PullThrough,
    active: Active,
    fresh: Arc<Mutex<HashMap<String, Instant>>>,
    places: Arc<Semaphore>,
}

type Active = Arc<Mutex<HashMap<String, (Reference, watch::Receiver<State>)>>>;

/// How far a pull got.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    /// What the reference names.
    pub(crate) root: Option<Digest>,
    /// How it ended.
    pub(crate) ended: Option<Result<(), Arc<BackendError>>>,
}

/// A pull, as one of those who wait sees it.
pub(crate) struct Flight {
    pub(crate) reference: Reference,
    state: watch::Receiver<State>,
}

impl Flight {
    /// How far it is. What happens from here on wakes [`Flight::changed`].
    pub(crate) fn look(&mut self) -> State {
        self.state.borrow_and_update().clone()
    }

    /// Waits until something happened since the last look. A pull whose task died has ended.
    pub(crate) async fn changed(&mut self) {
        if self.state.changed().await.is_err() {
            // The last state stands: it has its end, unless the runtime is going down.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn lock<T>(table: &Mutex<T>) -> MutexGuard<'_, T> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<B: Backend> Flights<B> {
    pub(crate) fn new(backend: Arc<B>, options: PullThrough) -> Self {
        let places = Arc::new(Semaphore::new(options.pulls_max.max(1)));
        Self { backend, options, active: Active::default(), fresh: Arc::default(), places }
    }

    /// Whether this may be pulled on a client's word: its registry is listed, or nothing is listed and it is a name of
    /// the internet. An address, `localhost` or a bare name could be a service of this network that answers to us only.
    pub(crate) fn admits(&self, reference: &Reference) -> bool {
        let registry = reference.registry();
        if !self.options.registries.is_empty() {
            return self.options.registries.iter().any(|listed| listed == registry);
        }
        let host =
            if registry.ends_with(']') { registry } else { registry.split(':').next().unwrap_or_default() };
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let inside = ["localhost", "local", "internal", "localdomain", "home.arpa", "lan"];
        let named_inside = inside.iter().any(|name| host == *name || host.ends_with(&format!(".{name}")));
        // The last part of a name is letters; an address in any of its spellings ends with a digit.
        let last = host.rsplit('.').next().unwrap_or_default();
        let address = host.parse::<IpAddr>().is_ok()
            || registry.starts_with('[')
            || last.bytes().next().is_none_or(|c| c.is_ascii_digit());
        host.contains('.') && !named_inside && !address
    }

    /// Whether the registry was asked for this lately.
    pub(crate) fn is_fresh(&self, reference: &Reference) -> bool {
        let fresh = lock(&self.fresh);
        fresh.get(&reference.to_string()).is_some_and(|at| at.elapsed() < self.options.fresh)
    }

    /// Waits with those who want the same, or starts to pull it.
    ///
    /// # Errors
    /// [`Refusal::Busy`] if too many wait.
    pub(crate) fn join(&self, reference: &Reference, all: bool) -> Result<Flight, Refusal> {
        let key = reference.to_string();
        let mut active = lock(&self.active);
        if let Some((reference, state)) = active.get(&key) {
            return Ok(Flight { reference: reference.clone(), state: state.clone() });
        }
        if active.len() >= FLIGHTS_MAX {
            return Err(Refusal::Busy);
        }
        let (sender, state) = watch::channel(State::default());
        active.insert(key.clone(), (reference.clone(), state.clone()));
        drop(active);
        tokio::spawn(fly(
            Arc::clone(&self.backend),
            reference.clone(),
            all,
            self.options.registry.clone(),
            Arc::clone(&self.places),
            Landing { key, sender, active: Arc::clone(&self.active), fresh: Arc::clone(&self.fresh) },
        ));
        Ok(Flight { reference: reference.clone(), state })
    }

    /// Pulls under way for `repository` (`registry/repository`).
    fn over(&self, repository: &str) -> Vec<Flight> {
        let active = lock(&self.active);
        let fits = active.values().filter(|(reference, _)| whole_name(reference) == repository);
        fits.map(|(reference, state)| Flight { reference: reference.clone(), state: state.clone() }).collect()
    }
}

/// Takes a pull off the table when its task ends, in whatever way.
struct Landing {
    key: String,
    sender: watch::Sender<State>,
    active: Active,
    fresh: Arc<Mutex<HashMap<String, Instant>>>,
}

impl Drop for Landing {
    fn drop(&mut self) {
        lock(&self.active).remove(&self.key);
        let died = || Err(Arc::new(BackendError::Nonsense("the pull was abandoned")));
        self.sender.send_modify(|state| {
            state.ended.get_or_insert_with(died);
        });
    }
}

async fn fly<B: Backend>(
    backend: Arc<B>,
    reference: Reference,
    all: bool,
    registry: runtime_api::windlass::v1::RegistryOptions,
    places: Arc<Semaphore>,
    landing: Landing,
) {
    let Ok(_place) = places.acquire_owned().await else { return };
    let report = |report| {
        landing.sender.send_modify(|state| {
            if let PullReport::Resolved(root) = report {
                state.root = Some(root);
            }
        });
    };
    let outcome = backend.pull(&reference, all, &registry, report).await;
    if outcome.is_ok() {
        let mut fresh = lock(&landing.fresh);
        if fresh.len() >= FRESH_MAX {
            fresh.clear();
        }
        fresh.insert(landing.key.clone(), Instant::now());
    }
    landing.sender.send_modify(|state| state.ended = Some(outcome.map_err(Arc::new)));
}

impl<B: Backend> Mirror<B> {
    /// Size of `digest` once a pull under way for the repository has brought it; `None` if none of them will.
    pub(crate) async fn arriving(
        self: &Arc<Self>,
        name: &Name,
        here: Option<&str>,
        digest: &Digest,
    ) -> Result<Option<u64>, Refusal> {
        let Some(flights) = &self.flights else { return Ok(None) };
        let reference = name.reference().map_err(Refusal::Ask)?;
        let repository = here.map_or_else(|| whole_name(&reference), str::to_owned);
        for mut flight in flights.over(&repository) {
            loop {
                let state = flight.look();
                let reached = match state.root {
                    Some(root) => self.reaches(root, digest).await?,
                    None => None,
                };
                if reached == Some(true)
                    && let Some(size) = self.backend.size(digest).await?
                {
                    return Ok(Some(size));
                }
                if reached == Some(false) || state.ended.is_some() {
                    break;
                }
                flight.changed().await;
            }
        }
        Ok(None)
    }

    /// Whether the index or manifest `root` is or reaches `digest`; unknown while it is not here. The documents that one
    /// points to are stored before it, layers after.
    async fn reaches(&self, root: Digest, digest: &Digest) -> Result<Option<bool>, Refusal> {
        let Some(bytes) = document(&*self.backend, &root).await? else { return Ok(None) };
        let Some(root) = describe(&bytes) else { return Ok(Some(false)) };
        Ok(Some(self.graph.find(&*self.backend, &[root], digest).await?.is_some()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::Socket;

    fn admits(registries: &[&str], reference: &str) -> bool {
        let registries = registries.iter().map(|name| (*name).to_owned()).collect();
        let socket = Socket::new("/nowhere".as_ref(), &"t".parse().unwrap());
        let flights = Flights::new(Arc::new(socket), PullThrough { registries, ..PullThrough::default() });
        flights.admits(&reference.parse().unwrap())
    }

    #[tokio::test]
    async fn vuln_c17_a_client_cannot_make_the_mirror_ask_inside_its_own_network() {
        for outside in ["alpine", "ghcr.io/a/b", "r.example.com:5000/a", "1.example.com/a"] {
            assert!(admits(&[], outside), "{outside}");
        }
        for inside in [
            "localhost/a",
            "localhost:5000/a",
            "x.localhost/a",
            "127.0.0.1:5000/a",
            "127.1/a",
            "169.254.169.254/latest",
            "10.0.0.1/a",
            "0x7f.1/a",
            "[::1]:5000/a",
            "metadata:80/a",
            "metadata.google.internal/a",
            "printer.local/a",
        ] {
            assert!(!admits(&[], inside), "{inside}");
        }
        assert!(admits(&["10.0.0.1:5000"], "10.0.0.1:5000/a"));
        assert!(!admits(&["10.0.0.1:5000"], "alpine"));
    }
}
