//! Bearer tokens: which service may be asked for one, how it is asked, and how long the answer is good.
//!
//! The protocol is Docker's (distribution's `spec/auth/token.md` and `oauth.md`). A token is kept under the host,
//! service, scope and login it was given for, so that none is ever shown to another host or repository.

use std::time::Duration;

use http::Uri;
use serde::Deserialize;
use tokio::time::Instant;

use crate::challenge::Challenge;
use crate::credentials::sensitive;
use crate::endpoint::{Endpoint, escape};
use crate::fault::ChallengeFault;
use crate::location::{Reach, reach, same_origin};
use crate::transport::Guard;

/// Largest answer of a token service that is read, in bytes.
pub(crate) const ANSWER_BYTES_MAX: u64 = 1024 * 1024;
/// Longest token that is sent, in bytes: servers refuse larger headers.
const TOKEN_BYTES_MAX: usize = 64 * 1024;
/// Life of a token that does not say (distribution's token.md).
const LIFE_DEFAULT: u64 = 60;
/// Longest life that is believed: a service that says more is asked again.
const LIFE_MAX: u64 = 12 * 3600;

/// What a request needs the right to do: a token is asked for exactly that, and kept for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Access {
    /// Read a repository.
    Pull,
    /// Write to a repository; with `mount`, also read that other one of the same registry.
    Push { mount: Option<String> },
}

/// Who gives tokens for a repository, and the repository's name there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct BearerAsk {
    pub(crate) realm: Uri,
    pub(crate) service: String,
    pub(crate) repository: String,
}

/// A token and the end of its life.
#[derive(Clone)]
pub(crate) struct Token {
    pub(crate) header: http::HeaderValue,
    pub(crate) good_until: Instant,
}

impl BearerAsk {
    /// Reads a bearer challenge for a request to `repository`.
    ///
    /// The registry's word is taken for the repository's name (a proxy may know it by another than we asked for),
    /// never for the rights: a challenge cannot make us ask for the right to push.
    pub(crate) fn of(challenge: &Challenge, repository: &str) -> Result<Self, ChallengeFault> {
        let realm: Uri =
            challenge.get("realm").and_then(|realm| realm.parse().ok()).ok_or(ChallengeFault::Realm)?;
        let named = realm.authority().is_some_and(|a| !a.as_str().contains('@') && !a.host().is_empty());
        if !named || !matches!(realm.scheme_str(), Some("http" | "https")) {
            return Err(ChallengeFault::Realm);
        }
        let offered = challenge.get("scope").filter(|scope| scope.len() < 600 && !scope.contains(' '));
        let offered = offered.and_then(|scope| scope.strip_prefix("repository:")?.rsplit_once(':'));
        let known =
            offered.filter(|(_, rights)| matches!(*rights, "pull" | "push" | "pull,push" | "push,pull"));
        let repository = known.map_or(repository, |(name, _)| name).to_owned();
        Ok(Self { realm, service: challenge.get("service").unwrap_or_default().to_owned(), repository })
    }

    /// The scopes that `access` takes, separated by spaces.
    pub(crate) fn scope(&self, access: &Access) -> String {
        let own = &self.repository;
        match access {
            Access::Pull => format!("repository:{own}:pull"),
            Access::Push { mount: None } => format!("repository:{own}:pull,push"),
            Access::Push { mount: Some(from) } => {
                format!("repository:{own}:pull,push repository:{from}:pull")
            }
        }
    }

    /// Whether this service may be asked at all, on the word of a registry spoken to at `home` (CVE-2026-33540).
    pub(crate) fn admit(&self, endpoint: &Endpoint, home: &Uri) -> Result<Guard, ChallengeFault> {
        if same_origin(&self.realm, home) {
            return Ok(Guard::Open);
        }
        let named = || self.realm.authority().map_or_else(String::new, ToString::to_string);
        if self.realm.scheme_str() != Some("https") && home.scheme_str() != Some("http") {
            return Err(ChallengeFault::PlainRealm(named()));
        }
        let host = self.realm.host().unwrap_or_default();
        let own = home.host().is_some_and(|own| own.eq_ignore_ascii_case(host));
        let admitted = match reach(host) {
            Reach::Public => true,
            Reach::Link => own,
            Reach::Loopback => own || endpoint.is_local(),
            Reach::Private => own || endpoint.reach() != Reach::Public,
        };
        if !admitted {
            return Err(ChallengeFault::InternalRealm(named()));
        }
        Ok(match () {
            () if own => Guard::Open,
            () if endpoint.is_local() => Guard::Link,
            () => Guard::Internal,
        })
    }

    /// Address of the GET that asks for `scope`, for `account` if there is one.
    pub(crate) fn address(&self, scope: &str, account: Option<&str>) -> Option<Uri> {
        let mut query: Vec<_> = scope.split(' ').map(|one| format!("scope={}", escape(one))).collect();
        if !self.service.is_empty() {
            query.push(format!("service={}", escape(&self.service)));
        }
        if let Some(account) = account {
            query.push(format!("account={}", escape(account)));
        }
        let mark = if self.realm.query().is_some() { '&' } else { '?' };
        format!("{}{mark}{}", self.realm, query.join("&")).parse().ok()
    }

    /// Form of the POST that trades an identity token for a bearer token.
    pub(crate) fn form(&self, scope: &str, identity: &str) -> String {
        format!(
            "grant_type=refresh_token&client_id=windlass&service={}&scope={}&refresh_token={}",
            escape(&self.service),
            escape(scope),
            escape(identity)
        )
    }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<serde_json::Value>,
}

impl Token {
    /// Reads a token service's answer, received at `now`. Lives are counted on the monotonic clock from then on, so
    /// that no wrong clock (theirs or ours) matters.
    pub(crate) fn parse(answer: &[u8], now: Instant) -> Result<Self, &'static str> {
        let answer: Answer =
            serde_json::from_slice(answer).map_err(|_| "the answer is not the JSON of a token")?;
        let present = |token: Option<String>| token.filter(|text| !text.is_empty());
        let token =
            present(answer.token).or(present(answer.access_token)).ok_or("the answer has no token")?;
        if token.len() > TOKEN_BYTES_MAX {
            return Err("the token is too long for a header");
        }
        let header = sensitive(&format!("Bearer {token}")).ok_or("the token cannot stand in a header")?;
        // A float too large for u64 saturates; a negative one and nonsense count as not said.
        let said = answer.expires_in.and_then(|life| life.as_u64().or(life.as_f64().map(|f| f as u64)));
        let life = said.filter(|life| *life > 0).unwrap_or(LIFE_DEFAULT).min(LIFE_MAX);
        let margin = (life / 5).min(30);
        Ok(Self { header, good_until: now + Duration::from_secs(life - margin) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, challenge, endpoint};

    fn life(expires: &str) -> u64 {
        let now = Instant::now();
        let text = format!(r#"{{"token":"t","expires_in":{expires}}}"#);
        (Token::parse(text.as_bytes(), now).unwrap().good_until - now).as_secs()
    }

    #[test]
    fn vuln_c13_the_life_of_a_token_has_limits_whatever_the_service_says() {
        assert_eq!(life("300"), 270);
        assert_eq!(life("10"), 8);
        for nonsense in ["-1", "0", "null", "\"x\"", "-1e300"] {
            assert_eq!(life(nonsense), 48, "{nonsense}");
        }
        for huge in ["9223372036854775808", "18446744073709551616", "1e300"] {
            assert_eq!(life(huge), LIFE_MAX - 30, "{huge}");
        }
        let long = format!(r#"{{"token":"{}"}}"#, "x".repeat(TOKEN_BYTES_MAX + 1));
        assert!(Token::parse(long.as_bytes(), Instant::now()).is_err());
        assert!(Token::parse(br#"{"token":"a\nb"}"#, Instant::now()).is_err());
        assert!(Token::parse(br#"{"token":""}"#, Instant::now()).is_err());
        assert!(Token::parse(br#"{"access_token":"a"}"#, Instant::now()).is_ok());
    }

    fn admit(registry: &str, plain_http: bool, realm: &str) -> Result<Guard, ChallengeFault> {
        let config = Config { plain_http, ..Config::default() };
        let endpoint = endpoint::endpoints(&config, registry).unwrap().remove(0);
        let scheme = if plain_http { "http" } else { "https" };
        let home = endpoint.uri(scheme, "a", "manifests/b").unwrap();
        let offered = challenge::parse(&format!("Bearer realm=\"{realm}\",service=\"s\""));
        BearerAsk::of(&offered[0], "a")?.admit(&endpoint, &home)
    }

    #[test]
    fn vuln_c03_the_token_service_is_one_the_registry_may_send_us_to() {
        let plain = ChallengeFault::PlainRealm;
        let internal = |host: &str| Err(ChallengeFault::InternalRealm(host.to_owned()));
        assert_eq!(admit("docker.io", false, "https://auth.docker.io/token"), Ok(Guard::Internal));
        assert_eq!(admit("r.example", false, "https://r.example/token"), Ok(Guard::Open));
        assert_eq!(admit("r.example", false, "http://r.example/t"), Err(plain("r.example".to_owned())));
        assert_eq!(admit("r.example", false, "http://evil.example/t"), Err(plain("evil.example".to_owned())));
        assert_eq!(admit("r.example", false, "https://169.254.169.254/t"), internal("169.254.169.254"));
        assert_eq!(admit("r.example", false, "https://[fe80::1]/t"), internal("[fe80::1]"));
        assert_eq!(admit("r.example", false, "https://127.0.0.1/t"), internal("127.0.0.1"));
        assert_eq!(admit("r.example", false, "https://localhost:8080/t"), internal("localhost:8080"));
        assert_eq!(admit("r.example", false, "https://10.0.0.1/t"), internal("10.0.0.1"));
        assert_eq!(admit("10.0.0.2:5000", false, "https://10.0.0.1/t"), Ok(Guard::Internal));
        assert_eq!(admit("r.example", true, "http://auth.example/t"), Ok(Guard::Internal));
        assert_eq!(admit("r.example", true, "http://169.254.169.254/t"), internal("169.254.169.254"));
        assert_eq!(admit("127.0.0.1:5000", true, "http://127.0.0.1:5001/t"), Ok(Guard::Open));
        assert_eq!(admit("localhost:5000", true, "http://127.0.0.1:5001/t"), Ok(Guard::Link));
        for realm in ["", "ftp://a/", "https://user:pw@a/", "/token", "https:///x"] {
            assert_eq!(admit("r.example", false, realm), Err(ChallengeFault::Realm), "{realm}");
        }
    }

    #[test]
    fn a_challenge_cannot_make_us_ask_for_more_than_reading() {
        let scope = |offered: &str| {
            let text = format!("Bearer realm=\"https://a/t\",scope=\"{offered}\"");
            BearerAsk::of(&challenge::parse(&text)[0], "lib/a").unwrap().scope(&Access::Pull)
        };
        assert_eq!(scope("repository:proxy/lib/a:pull"), "repository:proxy/lib/a:pull");
        for more in
            ["repository:lib/a:pull,push", "registry:catalog:*", "repository:x:* repository:y:pull", ""]
        {
            assert_eq!(scope(more), "repository:lib/a:pull", "{more}");
        }
    }
}
