//! The ttrpc socket beside the daemon's own: where shims tell what happens to their tasks.
//!
//! One service, `containerd.services.events.ttrpc.v1.Events`, with one method. What a shim tells is checked as what a
//! client forwards, and passed on. Whoever may connect to the one socket may connect to the other: same directory, same
//! mode.
//!
//! The threads of this server end with the process; a shim that loses its connection makes another.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use runtime_api::containerd::services::events::ttrpc::v1::ForwardRequest;
use runtime_ttrpc::{Call, Code, Reply, Server, Service, Status};

use crate::exchange::Exchange;
use crate::services::events;

const SERVICE: &str = "containerd.services.events.ttrpc.v1.Events";

/// The bound socket; its name goes when this is dropped.
#[derive(Debug)]
pub(crate) struct ShimEvents {
    path: PathBuf,
}

struct Forward(Exchange);

impl Service for Forward {
    fn call(&self, call: Call, reply: Reply) {
        if call.service != SERVICE || call.method != "Forward" {
            return reply.send::<()>(Err(call.unimplemented()));
        }
        let told = call.request::<ForwardRequest>().and_then(|request| {
            let envelope = events::checked(request.envelope);
            let envelope =
                envelope.map_err(|status| Status::new(Code::InvalidArgument, status.message().to_owned()))?;
            self.0.forward(envelope);
            Ok(())
        });
        reply.send(told);
    }
}

impl ShimEvents {
    /// Binds `path`, which a daemon that died may have left, and serves it.
    ///
    /// # Errors
    /// Those of binding and of starting a thread.
    pub(crate) fn serve(path: &Path, exchange: Exchange) -> io::Result<Self> {
        if path.symlink_metadata().is_ok_and(|metadata| metadata.file_type().is_socket()) {
            std::fs::remove_file(path)?;
        }
        let server = Server::bind(path, Arc::new(Forward(exchange)))?;
        let bound = Self { path: path.to_owned() };
        std::thread::Builder::new().name("shim-events".to_owned()).spawn(move || {
            if let Err(error) = server.run() {
                tracing::error!(%error, "shims cannot tell their events any more");
            }
        })?;
        Ok(bound)
    }
}

impl Drop for ShimEvents {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
