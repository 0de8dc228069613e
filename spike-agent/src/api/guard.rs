//! Decides whether a request that came by TCP may pass: a web page of another site must not reach the API.
//!
//! Any program of this host, and any page in a browser on it, can connect to a loopback port. The `Host` and `Origin`
//! checks keep pages out, also those that rebind their DNS name to 127.0.0.1; the token keeps out local users who may
//! not read it.

use axum::{
    body::HttpBody,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{problem::ApiError, token::Token};

/// Lets a request through to the routes, or answers it with a problem.
pub(super) async fn tcp_guard(State(token): State<Token>, request: Request, next: Next) -> Response {
    match check(&token, &request) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

fn check(token: &Token, request: &Request) -> Result<(), ApiError> {
    let headers = request.headers();
    let host = check_host(request)?;
    check_origin(headers, &host)?;
    if !needs_token(request) {
        return Ok(());
    }
    check_token(token, headers)?;
    let has_body = !request.body().is_end_stream();
    if has_body && !is_json(headers) {
        let detail = "a body must have the content type application/json";
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    Ok(())
}

/// Every change needs the token, and so does reading packets, which hold what other users send, and the audit log.
fn needs_token(request: &Request) -> bool {
    let only_reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let path = request.uri().path();
    !only_reads || path.ends_with("/pcapng") || path == "/v1/audit"
}

/// The request must name a loopback host, wherever it names one.
fn check_host(request: &Request) -> Result<Authority, ApiError> {
    let refuse = || {
        let detail = "the Host header must be 127.0.0.1, [::1] or localhost, with or without a port";
        ApiError::new(StatusCode::MISDIRECTED_REQUEST, detail)
    };
    let host = only(request.headers(), &header::HOST)?.ok_or_else(refuse)?;
    let host: Authority = host
        .to_str()
        .ok()
        .and_then(|host| host.parse().ok())
        .ok_or_else(refuse)?;
    let in_target = request.uri().authority();
    if is_loopback(&host) && in_target.is_none_or(is_loopback) {
        Ok(host)
    } else {
        Err(refuse())
    }
}

fn is_loopback(authority: &Authority) -> bool {
    let host = authority.host();
    let address = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    let is_name = host.eq_ignore_ascii_case("localhost");
    let port = authority.as_str().strip_prefix(host);
    // What is left over must be a port: user names (`localhost@evil`) and the like are not.
    let is_bare = port.is_some_and(|port| port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
    let is_address = address
        .parse::<std::net::IpAddr>()
        .is_ok_and(|address| address.is_loopback());
    is_bare && (is_name || is_address)
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok() && text.chars().all(|c| c.is_ascii_digit())
}

/// A page may only call the API that it came from.
fn check_origin(headers: &HeaderMap, host: &Authority) -> Result<(), ApiError> {
    let Some(origin) = only(headers, &header::ORIGIN)? else {
        return Ok(());
    };
    let same = format!("http://{host}");
    if origin.as_bytes().eq_ignore_ascii_case(same.as_bytes()) {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::FORBIDDEN,
        format!("requests of other origins than {same} are refused"),
    ))
}

fn check_token(token: &Token, headers: &HeaderMap) -> Result<(), ApiError> {
    let given = only(headers, &header::AUTHORIZATION)?.map(HeaderValue::as_bytes);
    let given = given.and_then(|value| value.split_at_checked("Bearer ".len()));
    let is_right =
        given.is_some_and(|(scheme, secret)| scheme.eq_ignore_ascii_case(b"Bearer ") && token.is(secret));
    if is_right {
        return Ok(());
    }
    let detail = format!(
        "needs the header `Authorization: Bearer TOKEN` with the token in {}",
        token.path().display()
    );
    Err(ApiError::new(StatusCode::UNAUTHORIZED, detail)
        .with_header(header::WWW_AUTHENTICATE, "Bearer realm=\"spike\""))
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

/// A header that is given at most once; of two, another reader might believe the other one.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, ApiError> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        _ => Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            format!("the header {name} is given more than once"),
        )),
    }
}
