//! gRPC over HTTP/2 (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).

use super::hpack::Fields;
use crate::protocol::Request;

/// Names of the status codes, by their numbers
/// (<https://github.com/grpc/grpc/blob/master/doc/statuscodes.md>).
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];
/// Those by which OpenTelemetry's conventions tell that the server failed; by the others the caller did
/// (<https://opentelemetry.io/docs/specs/semconv/rpc/grpc/>).
const FAILURES: [&str; 6] = [
    "UNKNOWN",
    "DEADLINE_EXCEEDED",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
];

pub(super) fn is_grpc(fields: &Fields) -> bool {
    let kind = fields.content_type.as_deref();
    let rest = kind.and_then(|kind| kind.strip_prefix(b"application/grpc"));
    // Not `grpc-web`, which has another framing.
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

/// Of a path `/package.Service/Method`.
pub(super) fn request(path: &str) -> Request {
    match path.strip_prefix('/').and_then(|path| path.rsplit_once('/')) {
        Some((service, method)) => Request::new(method, service),
        None => Request::new(path, ""),
    }
}

/// The name of a `grpc-status`, and whether it is a failure of the server.
pub(super) fn status(code: &[u8]) -> (String, bool) {
    let code = String::from_utf8_lossy(code);
    let name = code.parse().ok().and_then(|code: usize| CODES.get(code));
    // What isn't a code of gRPC counts as UNKNOWN there.
    name.map_or_else(
        || (code.clone().into_owned(), true),
        |name| ((*name).to_owned(), FAILURES.contains(name)),
    )
}
