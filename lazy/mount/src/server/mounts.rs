//! Connections: taking on a new one, and one that a dead server has left.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

use lazy_fetch::{FetchError, Image, ImageSpec, Trace, Wanted, decode_path};
use lazy_index::{ImageIndex, NodeId};
use storage_model::Reference;
use storage_registry::Credentials;
use storage_sys::fuse::{Abort, BackingId, Device, abort_connection};

use super::checkpoints::TocFiles;
use super::table::Serving;
use super::{Server, bad_request};
use crate::bytes::FileBytes;
use crate::error::{Failure, FailureKind};
use crate::keeper::protocol::Held;
use crate::request::MountRequest;
use crate::session::{self, Negotiated, Observer, Session, Shown};
use crate::status::MountStatus;

impl Server {
    /// Takes on the connection `device`, which is mounted and attached nowhere. When it returns, it is served, and would be
    /// after the death of this process.
    ///
    /// # Errors
    /// [`FailureKind::BadRequest`], [`FailureKind::BadIndex`], [`FailureKind::Unsupported`] when the kernel says something
    /// unheard of, [`FailureKind::Internal`] without a cache. The connection is dropped, and with it the mount.
    pub(super) fn mount(
        self: &Arc<Self>,
        instance: u64,
        minor: u32,
        request: MountRequest,
        device: Device,
    ) -> Result<(), Failure> {
        if !MountRequest::is_name(&request.name) {
            return Err(bad_request(&format!("{:?} is no name of a mount", request.name)));
        }
        let index = open_index(&request.index)?;
        let image = self.image(&request, &index)?;
        let negotiated = session::shake_hands(&device, &index).map_err(|error| Failure {
            kind: FailureKind::Unsupported,
            message: format!("the kernel does not begin as FUSE 7 does: {error}"),
        })?;
        if !negotiated.has_resend() {
            tracing::warn!("this kernel is older than 6.9: the mount breaks if its server is killed");
        }
        let device = Arc::new(device);
        let held =
            Held { instance, request, named: true, negotiated, backings: Vec::new(), servers: 1, minor };
        self.table.insert(held.clone(), device.clone());
        self.link.hold(&held, Some(&device));
        let shown = Shown { index, bytes: image.clone() };
        let serving =
            self.start(&held, &device, shown, None).map(|session| Serving { session, image: Some(image) });
        match serving {
            Ok(serving) => {
                self.bring_in(&held.request, &serving);
                self.table.serve(instance, serving);
                Ok(())
            }
            Err(error) => {
                self.table.remove(instance);
                self.link.forget(instance);
                let message = format!("no thread for the mount {}: {error}", held.request.name);
                Err(Failure { kind: FailureKind::Internal, message })
            }
        }
    }

    /// Goes on with a connection of a dead server. What cannot be shown any more is answered with errors.
    pub(super) fn adopt(self: &Arc<Self>, mut held: Held, device: Device) {
        held.servers += 1;
        let name = held.request.name.clone();
        if !held.negotiated.has_resend() {
            return self.break_off(&held);
        }
        let device = Arc::new(device);
        self.table.insert(held.clone(), device.clone());
        self.link.hold(&held, None);
        let outcome = open_index(&held.request.index).and_then(|index| {
            let image = self.image(&held.request, &index);
            let bytes: Arc<dyn FileBytes> = match &image {
                Ok(image) => image.clone(),
                Err(_) => Arc::new(Unreadable),
            };
            let session = self.start(&held, &device, Shown { index, bytes }, Some(&held.backings));
            let session = session.map_err(|error| Failure {
                kind: FailureKind::Internal,
                message: format!("its requests cannot be had again: {error}"),
            })?;
            Ok((Serving { session, image: image.as_ref().ok().cloned() }, image.err()))
        });
        match outcome {
            Ok((serving, trouble)) => {
                if let Some(failure) = trouble {
                    tracing::error!(name, "a lazy image is shown without its bytes: {failure}");
                }
                self.bring_in(&held.request, &serving);
                self.table.serve(held.instance, serving);
            }
            Err(failure) => {
                tracing::error!(name, "a lazy image cannot be shown any more: {failure}");
                let observer = self.observer(held.instance);
                if let Err(error) = session::refuse_all(device, observer) {
                    tracing::error!(name, %error, "its users wait in vain");
                }
            }
        }
    }

    /// Without the kernel's help whoever waited for the dead server would wait for ever: they get an error instead.
    fn break_off(&self, held: &Held) {
        let broken =
            std::fs::create_dir_all(&self.scratch).and_then(|()| abort_connection(held.minor, &self.scratch));
        let name = &held.request.name;
        match broken {
            Ok(Abort::Done | Abort::Gone) => {
                tracing::error!(name, "a mount broke with its server (kernel before 6.9)")
            }
            Err(error) => {
                tracing::error!(name, %error, "a mount broke with its server, and some may wait for ever")
            }
        }
        self.link.forget(held.instance);
    }

    fn start(
        self: &Arc<Self>,
        held: &Held,
        device: &Device,
        shown: Shown,
        inherited: Option<&[(u32, BackingId)]>,
    ) -> std::io::Result<Arc<Session>> {
        let negotiated: Negotiated = held.negotiated.clone();
        Session::start(device.try_clone()?, shown, negotiated, inherited, self.observer(held.instance))
    }

    fn observer(self: &Arc<Self>, instance: u64) -> Box<dyn Observer> {
        Box::new(Watcher { server: Arc::clone(self), instance })
    }

    fn image(&self, request: &MountRequest, index: &Arc<ImageIndex>) -> Result<Arc<Image>, Failure> {
        let fetcher = self.fetcher.as_ref().map_err(internal)?;
        let blobs = index.blobs();
        let fits = |given: usize| given == 0 || given == blobs.len();
        if !fits(request.tocs.len()) || !fits(request.origins.len()) {
            return Err(bad_request(&format!(
                "the index has {} layers and there are {} tables of contents and {} lists of origins",
                blobs.len(),
                request.tocs.len(),
                request.origins.len()
            )));
        }
        self.log_in(request);
        let files = blobs.iter().map(|(blob, _)| *blob).zip(request.tocs.iter().cloned()).collect();
        let mut origins = request.origins.clone();
        origins.resize_with(blobs.len(), Vec::new);
        let spec = ImageSpec {
            name: request.name.clone(),
            index: index.clone(),
            checkpoints: Arc::new(TocFiles::new(files)),
            origins,
        };
        fetcher.image(spec).map_err(|error| internal(&error))
    }

    /// Tells the sources the login that was given by hand, for the registries of the origins.
    fn log_in(&self, request: &MountRequest) {
        let Some(login) = &request.login else { return };
        let references = request.origins.iter().flatten().filter_map(|origin| origin.reference.parse().ok());
        let registries: BTreeSet<_> =
            references.map(|reference: Reference| reference.registry().to_owned()).collect();
        for registry in registries {
            let credentials = Credentials::password(login.username.clone(), login.password.clone());
            self.sources.set_login(&registry, Some(credentials));
        }
    }

    /// Starts what the request wants to be fetched before anybody reads it.
    fn bring_in(&self, request: &MountRequest, serving: &Serving) {
        let Some(image) = &serving.image else { return };
        if let Some(path) = &request.trace {
            match read_trace(path) {
                Ok(trace) => image.prefetch(&wanted(image.index(), &trace)),
                Err(error) => tracing::warn!(error, path = %path.display(), "a trace cannot be used"),
            }
        }
        if request.fill {
            image.fill();
        }
    }

    /// The state of the mount called `name`, or of all that have a name.
    pub(super) fn status(&self, name: Option<&str>) -> Vec<MountStatus> {
        let all = self.table.all().into_iter();
        let wanted =
            all.filter(|(held, _, _)| held.named && name.is_none_or(|name| name == held.request.name));
        wanted
            .map(|(held, _, serving)| {
                let counts = serving.as_ref().map(|serving| serving.session.counts()).unwrap_or_default();
                MountStatus {
                    image: serving.and_then(|serving| Some(serving.image?.status())).unwrap_or_default(),
                    name: held.request.name,
                    mountpoint: held.request.mountpoint,
                    index: held.request.index,
                    opening: held.negotiated.opening,
                    servers: held.servers,
                    requests: counts.requests,
                    in_flight: counts.in_flight,
                    server: std::process::id(),
                }
            })
            .collect()
    }
}

/// What a trace says, in an image that need not be the one it was recorded of.
pub(super) fn wanted(index: &ImageIndex, trace: &Trace) -> Vec<Wanted> {
    let found = |path: &str| index.find(&decode_path(path)?);
    let event = |event: &lazy_fetch::TraceEvent| {
        let end = event.offset.saturating_add(event.length);
        found(&event.path).map(|node| Wanted { node, range: event.offset..end })
    };
    trace.events.iter().filter_map(event).collect()
}

fn read_trace(path: &Path) -> Result<Trace, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    serde_json::from_reader(BufReader::new(file)).map_err(|error| error.to_string())
}

fn open_index(path: &Path) -> Result<Arc<ImageIndex>, Failure> {
    ImageIndex::open(path).map(Arc::new).map_err(|error| Failure {
        kind: FailureKind::BadIndex,
        message: format!("the index {} cannot be used: {error}", path.display()),
    })
}

fn internal(error: &FetchError) -> Failure {
    Failure { kind: FailureKind::Internal, message: error.to_string() }
}

/// What a session tells this server.
struct Watcher {
    server: Arc<Server>,
    instance: u64,
}

impl Observer for Watcher {
    fn backings(&self, backings: Vec<(u32, BackingId)>) {
        if let Some(held) = self.server.table.change(self.instance, |held| held.backings = backings) {
            self.server.link.hold(&held, None);
        }
    }

    fn ended(&self) {
        self.server.table.remove(self.instance);
        self.server.link.forget(self.instance);
        self.server.ring();
    }
}

/// The bytes of an image whose cache or origins cannot be used.
struct Unreadable;

impl FileBytes for Unreadable {
    fn read(&self, _: NodeId, _: u64, _: &mut [u8]) -> Result<usize, FetchError> {
        Err(FetchError::Closed)
    }

    fn is_local(&self, _: NodeId) -> bool {
        true
    }

    fn whole_file(&self, _: NodeId) -> Option<Arc<File>> {
        None
    }
}
