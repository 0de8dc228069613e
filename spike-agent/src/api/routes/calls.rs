//! Decoded calls, as they end.

use std::convert::Infallible;

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    http::StatusCode,
    response::sse::{Event, KeepAlive, Sse},
};
use futures_util::{Stream, StreamExt};
use serde::Deserialize;

use crate::{
    api::problem::{AnyProblem, ApiError},
    control::Control,
    model::view::CallEvent,
};

/// What of the calls is wanted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CallsQuery {
    find: Option<String>,
}

/// Calls as they end, one server-sent event each: `call` with the call, or `missed` with a number when the reader is
/// too slow.
///
/// What is told is what is decoded: of sampled connections, within the agent's budget. With `find`, only the calls of
/// which that condition is true.
#[utoipa::path(
    get, path = "/v1/calls", operation_id = "followCalls", tag = "see",
    params(
        (
            "find" = Option<String>, Query,
            description = "A condition, such as `protocol=redis and (failed or total>100ms)`. Fields: caller, callee, \
                service (either), protocol, operation, target, status, edge, trace; total, first_byte; request, \
                response; failed, complete.",
        ),
    ),
    responses((status = OK, description = "The calls", body = CallEvent, content_type = "text/event-stream"), AnyProblem),
)]
pub(super) async fn follow(
    State(control): State<Control>,
    query: Result<Query<CallsQuery>, QueryRejection>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::new(StatusCode::BAD_REQUEST, error.body_text()))?;
    let events = control.calls(query.find.as_deref())?.map(|event| {
        let made = match &event {
            CallEvent::Call(call) => Event::default().event("call").json_data(call),
            CallEvent::Missed(count) => Event::default().event("missed").json_data(count),
        };
        // Neither has anything that JSON has not.
        Ok(made.unwrap_or_default())
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}
