//! What every call has: a namespace, perhaps a lease, and work that must not block the network's threads.

use runtime_api::{LEASE_HEADER, NAMESPACE_HEADER};
use storage_content::{LeaseId, Space, Store};
use storage_model::Namespace;
use tonic::metadata::MetadataMap;
use tonic::{Request, Status};

use crate::status::{Failure, invalid, status};

/// The namespace that a call names.
///
/// # Errors
/// `FailedPrecondition` without one (containerd's words, which its clients show), `InvalidArgument` for a bad name.
pub(crate) fn namespace(metadata: &MetadataMap) -> Result<Namespace, Status> {
    match text(metadata, NAMESPACE_HEADER)? {
        None | Some("") => Err(Status::failed_precondition("namespace is required")),
        Some(name) => name.parse().map_err(status),
    }
}

/// The namespace of a call in `store`; what is created through it joins the lease that the call names, if any.
///
/// # Errors
/// Those of [`namespace`]; `InvalidArgument` for a bad lease name.
pub(crate) fn space<T>(store: &Store, request: &Request<T>) -> Result<Space, Status> {
    let space = store.space(&namespace(request.metadata())?);
    match text(request.metadata(), LEASE_HEADER)? {
        None | Some("") => Ok(space),
        Some(lease) => Ok(space.leased(&lease_id(lease)?)),
    }
}

/// A lease's name, checked.
pub(crate) fn lease_id(text: &str) -> Result<LeaseId, Status> {
    text.parse().map_err(status)
}

fn text<'a>(metadata: &'a MetadataMap, header: &'static str) -> Result<Option<&'a str>, Status> {
    let Some(value) = metadata.get(header) else { return Ok(None) };
    value.to_str().map(Some).map_err(|_| invalid(format!("the header {header} is not ASCII")))
}

/// Does `work` on a thread that may block.
///
/// Cancel safety: dropping the future does not stop the work, which then ends unheard. Each unit of work is one call
/// of the store, which leaves nothing half-done.
pub(crate) async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, Status>
where
    T: Send + 'static,
    E: Into<CallError> + Send + 'static,
{
    match tokio::task::spawn_blocking(move || work().map_err(Into::into)).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(CallError(status))) => Err(*status),
        Err(error) if error.is_cancelled() => Err(crate::status::stopping()),
        Err(_) => Err(Status::internal("a worker died: this is a defect, its story is in the daemon's log")),
    }
}

/// What a unit of work ends in: a status already, or an error that becomes one.
pub(crate) struct CallError(Box<Status>);

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        Self(Box::new(status))
    }
}

impl<E: Failure> From<E> for CallError {
    fn from(error: E) -> Self {
        Self(Box::new(status(error)))
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn a_call_without_a_namespace_gets_containerds_words() {
        let error = namespace(&MetadataMap::new()).unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::FailedPrecondition, "namespace is required"));
    }

    #[test]
    fn a_namespace_that_could_be_a_path_is_refused() {
        let mut metadata = MetadataMap::new();
        metadata.insert(NAMESPACE_HEADER, "../etc".parse().unwrap());
        assert_eq!(namespace(&metadata).unwrap_err().code(), Code::InvalidArgument);
    }

    #[tokio::test]
    async fn work_that_panics_is_an_internal_error_and_not_the_end_of_the_daemon() {
        let error = blocking::<(), Status>(|| panic!("on purpose")).await.unwrap_err();
        assert_eq!(error.code(), Code::Internal);
    }
}
