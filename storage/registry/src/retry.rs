//! When to ask again: `Retry-After`, exponential backoff, and a little chance.

use std::hash::{BuildHasher as _, Hasher as _};
use std::time::{Duration, SystemTime};

use http::{HeaderMap, header};

use crate::error::Verdict;
use crate::{Config, Notice, RegistryError, RetryPolicy};

/// Wait before attempt `failures + 1`: doubles from `base`, half of it random so that clients do not march in step.
pub(crate) fn backoff(policy: &RetryPolicy, failures: u32) -> Duration {
    let whole = policy.base.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(policy.wait_max);
    let random = std::hash::RandomState::new().build_hasher().finish() as u32;
    whole / 2 + (whole / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
}

/// What `Retry-After` asks for (RFC 9110, section 10.2.3), cut to the policy's limit.
pub(crate) fn retry_after(policy: &RetryPolicy, headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let asked = if !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit()) {
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        let date = httpdate::parse_http_date(text).ok()?;
        date.duration_since(SystemTime::now()).unwrap_or_default()
    };
    Some(asked.min(policy.retry_after_max))
}

/// How long to wait after `error`, the `failures`th failure in a row at one place; `None` gives up.
///
/// A place that has another behind it (`last` is false) gets two attempts, and one if nobody is there at all.
pub(crate) fn next_wait(
    policy: &RetryPolicy,
    error: &RegistryError,
    failures: u32,
    last: bool,
) -> Option<Duration> {
    let (attempts, asked) = match error.verdict() {
        Verdict::Final => return None,
        Verdict::Passing(asked) if last => (policy.attempts, asked),
        Verdict::Passing(asked) => (policy.attempts.min(2), asked),
        Verdict::Absent if last => (policy.attempts.min(3), None),
        Verdict::Absent => (1, None),
    };
    (failures < attempts).then(|| asked.unwrap_or_default().max(backoff(policy, failures)))
}

/// Tells whoever listens that `error` is followed by another attempt.
pub(crate) fn tell(
    config: &Config,
    target: &str,
    host: &str,
    error: &RegistryError,
    wait: Duration,
    next: u32,
) {
    tracing::debug!(target, host, %error, ?wait, attempt = next, "trying again");
    if let Some(notify) = &config.notices {
        notify(&Notice::Retrying {
            host: host.to_owned(),
            target: target.to_owned(),
            reason: reason(error),
            wait,
            attempt: next,
        });
    }
}

/// Tells whoever listens that the next place is asked.
pub(crate) fn tell_skipped(config: &Config, target: &str, host: &str, error: &RegistryError) {
    tracing::debug!(target, host, %error, "asking the next place");
    if let Some(notify) = &config.notices {
        notify(&Notice::Skipped { host: host.to_owned(), target: target.to_owned(), reason: reason(error) });
    }
}

/// An error and its causes in one line.
fn reason(error: &RegistryError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, text.parse().unwrap());
        retry_after(&RetryPolicy::default(), &headers)
    }

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date_and_is_cut() {
        let max = RetryPolicy::default().retry_after_max;
        assert_eq!(asked("7"), Some(Duration::from_secs(7)));
        assert_eq!(asked("1000000000"), Some(max));
        assert_eq!(asked("99999999999999999999999"), Some(max));
        assert_eq!(asked("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(asked("-1"), None);
        assert_eq!(asked("soon"), None);
        let soon = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(20));
        let wait = asked(&soon).unwrap();
        assert!(wait > Duration::from_secs(15) && wait <= Duration::from_secs(20), "{wait:?}");
    }

    #[test]
    fn waits_double_within_their_limit_and_are_not_all_the_same() {
        let policy = RetryPolicy::default();
        for failures in 1..40 {
            let whole = policy.base.saturating_mul(1 << (failures - 1).min(16)).min(policy.wait_max);
            let wait = backoff(&policy, failures);
            assert!(wait >= whole / 2 && wait <= whole, "{failures}: {wait:?}");
        }
        let waits: std::collections::HashSet<_> = (0..20).map(|_| backoff(&policy, 5)).collect();
        assert!(waits.len() > 1);
    }
}
