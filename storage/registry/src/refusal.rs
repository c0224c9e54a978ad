//! Answers that are not the content, as errors in the registry's own words.

use std::sync::Arc;
use std::time::Duration;

use http::{Response, StatusCode};
use hyper::body::Incoming;
use serde::Deserialize;

use crate::body::{Body, BodyFault};
use crate::client::Core;
use crate::{RegistryError, Target, retry};

/// Most of an error's body that is read, in bytes.
const ERROR_BYTES_MAX: u64 = 16 * 1024;

impl Core {
    /// The error for an answer that is not the content.
    pub(crate) async fn status_error(
        &self,
        response: Response<Incoming>,
        target: &Arc<Target>,
        host: String,
        asked: Option<u64>,
    ) -> RegistryError {
        let target = Arc::clone(target);
        let status = response.status();
        let retry_after = retry::retry_after(&self.config.retry, response.headers());
        if let (StatusCode::RANGE_NOT_SATISFIABLE, Some(asked)) = (status, asked) {
            return RegistryError::WrongRange { target, host, asked, got: "none (416)".to_owned() };
        }
        let body = Body::new(response.into_body(), &self.config.retry).collect(ERROR_BYTES_MAX);
        let body = tokio::time::timeout(Duration::from_secs(5), body).await;
        let body = body.ok().and_then(Result::ok).unwrap_or_default();
        match status {
            StatusCode::NOT_FOUND => RegistryError::NotFound { target, host },
            StatusCode::UNAUTHORIZED => {
                RegistryError::Unauthorized { target, host, login: crate::Login::Anonymous }
            }
            StatusCode::FORBIDDEN => RegistryError::Denied { target, host, message: words(&body).1 },
            StatusCode::TOO_MANY_REQUESTS => RegistryError::TooManyRequests { target, host, retry_after },
            // What Go's and nginx's https servers say to plain http.
            StatusCode::BAD_REQUEST if contains(&body, b"HTTPS server") || contains(&body, b"HTTPS port") => {
                RegistryError::SpeaksHttps { target, host }
            }
            _ => {
                let (code, message) = words(&body);
                RegistryError::Status { target, host, status, message, code, retry_after }
            }
        }
    }

    /// The error for a body that failed `at` bytes into the content.
    pub(crate) fn body_error(
        &self,
        fault: BodyFault,
        target: &Arc<Target>,
        host: &str,
        at: u64,
        max: u64,
    ) -> RegistryError {
        let (target, host) = (Arc::clone(target), host.to_owned());
        match fault {
            BodyFault::Broken(error) => {
                RegistryError::Interrupted { target, host, at, source: Some(Box::new(error)) }
            }
            BodyFault::Stalled(after) => {
                RegistryError::Timeout { target, host, what: "too few bytes", after }
            }
            BodyFault::TooLarge => RegistryError::TooLarge { target, max },
        }
    }
}

fn contains(body: &[u8], words: &[u8]) -> bool {
    body.windows(words.len()).any(|window| window == words)
}

/// The registry's own code and words (distribution-spec, "Error Codes"), each made one short printable line.
fn words(body: &[u8]) -> (String, String) {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let first =
        serde_json::from_slice::<Errors>(body).ok().and_then(|errors| errors.errors.into_iter().next());
    let Some(One { code, message }) = first else { return Default::default() };
    let line = |text: &str| {
        let printable = text.chars().map(|c| if c.is_control() { ' ' } else { c });
        printable.take(200).collect::<String>().trim().to_owned()
    };
    (line(&code), line(if message.is_empty() { &code } else { &message }))
}
