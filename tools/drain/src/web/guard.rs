//! Who is served: nobody who came by another name, no other page's script, no token tried without end.
//!
//! Invariant: a request passes only with one `Host` that is ours (a name that a stranger's DNS points at
//! loopback is not), with no `Origin` but our own, with no word of a browser that another site sent it.
//! Every answer forbids framing, sniffing and foreign scripts, and allows no other origin anything.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tandem_gateway::keys::Secret;

use super::Shared;

/// Bytes of a request's target.
const TARGET_MAX: usize = 2_048;
/// Wrong tokens within [`TRIES_OVER`]; after them none is looked at until they are old.
const TRIES_MAX: usize = 5;
const TRIES_OVER: Duration = Duration::from_secs(60);
/// A token shorter than this is no secret.
pub const TOKEN_MIN: usize = 16;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' data:; connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

/// An error for scripts and people.
pub fn refuse(status: StatusCode, error: &str, fix: &str) -> Response {
    let body = serde_json::json!({ "error": error, "fix": fix });
    (status, axum::Json(body)).into_response()
}

/// Wrong tokens lately.
#[derive(Debug, Default)]
pub struct Tries(VecDeque<Instant>);

impl Tries {
    fn is_exhausted(&mut self, now: Instant) -> bool {
        while self.0.front().is_some_and(|at| TRIES_OVER <= now.duration_since(*at)) {
            self.0.pop_front();
        }
        TRIES_MAX <= self.0.len()
    }
}

/// Lets through whom we serve, and dresses every answer.
pub async fn pass(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let mut response = match check(&shared, &request) {
        Ok(()) => next.run(request).await,
        Err(refused) => *refused,
    };
    let headers = response.headers_mut();
    let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
    set(header::CONTENT_SECURITY_POLICY, POLICY);
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::X_FRAME_OPTIONS, "DENY");
    set(header::REFERRER_POLICY, "no-referrer");
    set(header::HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    set(header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    set(
        header::HeaderName::from_static("permissions-policy"),
        "camera=(), geolocation=(), microphone=()",
    );
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

fn check(shared: &Shared, request: &Request<Body>) -> Result<(), Box<Response>> {
    let no = |status, error: &str, fix: &str| Err(Box::new(refuse(status, error, fix)));
    let headers = request.headers();
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = match (hosts.next().map(HeaderValue::to_str), hosts.next()) {
        (Some(Ok(host)), None) => host,
        _ => {
            return no(
                StatusCode::BAD_REQUEST,
                "exactly one Host is needed",
                "send one Host header",
            );
        }
    };
    let names = &shared.settings.hosts;
    let target = request.uri();
    let named_otherwise = target.authority().is_some_and(|authority| authority.as_str() != host);
    if !is_our_host(host, shared.at, names) || named_otherwise {
        return no(
            StatusCode::MISDIRECTED_REQUEST,
            "not served under this name",
            "ask for localhost or 127.0.0.1, or name the host in web.hosts",
        );
    }
    if let Some(origin) = headers.get(header::ORIGIN) {
        let ours = origin.to_str().is_ok_and(|origin| {
            origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")) == Some(host)
        });
        if !ours {
            return no(StatusCode::FORBIDDEN, "another origin", "open the dashboard itself");
        }
    }
    // A link to the page is harmless; a request made by another site's page is not.
    let site = headers.get("sec-fetch-site").and_then(|value| value.to_str().ok());
    let mode = headers.get("sec-fetch-mode").and_then(|value| value.to_str().ok());
    let foreign = matches!(site, Some("cross-site" | "same-site"));
    if foreign && (mode != Some("navigate") || request.method() != Method::GET) {
        return no(StatusCode::FORBIDDEN, "another site's request", "open the dashboard itself");
    }
    let length = target.path_and_query().map_or(0, |target| target.as_str().len());
    if TARGET_MAX < length {
        return no(StatusCode::URI_TOO_LONG, "the address is too long", "ask for less");
    }
    Ok(())
}

fn is_our_host(host: &str, at: SocketAddr, names: &[String]) -> bool {
    let port = at.port();
    let own = [
        format!("localhost:{port}"),
        format!("127.0.0.1:{port}"),
        format!("[::1]:{port}"),
        at.to_string(),
    ];
    if own.iter().any(|name| name.eq_ignore_ascii_case(host)) {
        return true;
    }
    let bare = host.rsplit_once(':').map_or(host, |(name, _)| name);
    names.iter().any(|name| name.eq_ignore_ascii_case(host) || name.eq_ignore_ascii_case(bare))
}

/// Checks the token of a request that acts.
pub fn authorise(shared: &Shared, headers: &HeaderMap) -> Result<(), Box<Response>> {
    let no = |status, error: &str, fix: &str| Err(Box::new(refuse(status, error, fix)));
    let Some(token) = &shared.settings.token else {
        return no(
            StatusCode::FORBIDDEN,
            "this dashboard only shows",
            "name a token's file in web.token_file, or use `tandem pause` and `tandem kill`",
        );
    };
    let mut tries = shared.tries.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let now = Instant::now();
    if tries.is_exhausted(now) {
        return no(
            StatusCode::TOO_MANY_REQUESTS,
            "too many wrong tokens",
            "wait a minute; `tandem pause` and `tandem kill` work without one",
        );
    }
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    if given.is_some_and(|given| is_token(token, given)) {
        return Ok(());
    }
    tries.0.push_back(now);
    no(
        StatusCode::UNAUTHORIZED,
        "the token is wrong or missing",
        "type the token of web.token_file",
    )
}

fn is_token(token: &Secret, given: &str) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(token.reveal(), given.as_bytes()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_names_are_ours() {
        let at: SocketAddr = "127.0.0.1:7411".parse().expect("an address");
        let names = vec!["desk.example:8000".to_owned(), "tunnel".to_owned()];
        for ours in [
            "localhost:7411",
            "127.0.0.1:7411",
            "[::1]:7411",
            "LOCALHOST:7411",
            "desk.example:8000",
            "tunnel",
            "tunnel:9",
        ] {
            assert!(is_our_host(ours, at, &names), "{ours}");
        }
        for other in [
            "localhost",
            "127.0.0.1",
            "localhost:80",
            "evil.example",
            "evil.example:7411",
            "localhost:7411.evil.example",
            "desk.example",
            "desk.example:80",
            "",
        ] {
            assert!(!is_our_host(other, at, &names), "{other}");
        }
    }

    #[test]
    fn wrong_tokens_run_out_and_come_back() {
        let (mut tries, now) = (Tries::default(), Instant::now());
        for _ in 0..TRIES_MAX {
            assert!(!tries.is_exhausted(now));
            tries.0.push_back(now);
        }
        assert!(tries.is_exhausted(now));
        assert!(!tries.is_exhausted(now + TRIES_OVER));
    }
}
