//! Blobs: whole, in part, or only whether they are there.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::Either;
use storage_model::Digest;

use crate::backend::Backend;
use crate::digester::Digester;
use crate::range::{self, Span};
use crate::reply::{Refusal, Reply, empty, is_known, name_content};
use crate::request::Name;
use crate::server::Mirror;

impl<B: Backend> Mirror<B> {
    /// Answers for a blob.
    pub(crate) async fn blob(
        self: &Arc<Self>,
        name: &Name,
        digest: &Digest,
        headers: &HeaderMap,
        head: bool,
    ) -> Result<Reply, Refusal> {
        let size = self.blob_size(name, digest).await?;
        if is_known(headers, digest) {
            let mut reply = empty(StatusCode::NOT_MODIFIED);
            name_content(reply.headers_mut(), digest, true);
            return Ok(reply);
        }
        let span = if head { Span::Whole } else { span(headers, digest, size) };
        let (status, first, length) = match span {
            Span::Whole => (StatusCode::OK, 0, size),
            Span::Part { first, last } => (StatusCode::PARTIAL_CONTENT, first, last - first + 1),
            Span::Nothing => {
                let mut reply = empty(StatusCode::RANGE_NOT_SATISFIABLE);
                reply.headers_mut().insert(header::CONTENT_RANGE, text(format!("bytes */{size}")));
                return Ok(reply);
            }
        };
        let mut reply = if head {
            empty(status)
        } else {
            let content = self.backend.read(digest, first, length).await?.ok_or(Refusal::NoBlob(*digest))?;
            let whole = (span == Span::Whole).then_some(*digest);
            Response::new(Either::Right(Digester::new(content, length, whole)))
        };
        *reply.status_mut() = status;
        let answer = reply.headers_mut();
        name_content(answer, digest, true);
        answer.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        answer.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        answer.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        if let Span::Part { first, last } = span {
            answer.insert(header::CONTENT_RANGE, text(format!("bytes {first}-{last}/{size}")));
        }
        Ok(reply)
    }

    /// Size of a blob that the repository has, once it is here whole.
    async fn blob_size(self: &Arc<Self>, name: &Name, digest: &Digest) -> Result<u64, Refusal> {
        let view = self.view().await?;
        let found = view.find(name)?;
        if let Some((_, repository)) = found
            && self.graph.find(&*self.backend, &repository.roots, digest).await?.is_some()
            && let Some(size) = self.backend.size(digest).await?
        {
            return Ok(size);
        }
        match self.arriving(name, found.map(|(name, _)| name), digest).await? {
            Some(size) => Ok(size),
            None if found.is_some() => Err(Refusal::NoBlob(*digest)),
            None => Err(Refusal::NoRepository(name.path.clone())),
        }
    }
}

/// The span that `Range` asks for, unless `If-Range` names other content.
fn span(headers: &HeaderMap, digest: &Digest, size: u64) -> Span {
    let get = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let same = get(header::IF_RANGE).is_none_or(|tag| tag == format!("\"{digest}\""));
    match get(header::RANGE) {
        Some(asked) if same => range::parse(asked, size),
        _ => Span::Whole,
    }
}

fn text(text: String) -> HeaderValue {
    HeaderValue::from_str(&text).expect("numbers are visible ASCII")
}
