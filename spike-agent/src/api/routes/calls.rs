//! Decoded calls, as they end.

use std::convert::Infallible;

use axum::{
    extract::State,
    response::sse::{Event, KeepAlive, Sse},
};
use futures_util::{Stream, StreamExt};

use crate::{api::problem::AnyProblem, control::Control, model::view::CallEvent};

/// Calls as they end, one server-sent event each: `call` with the call, or `missed` with a number when the reader is
/// too slow.
///
/// What is told is what is decoded: of sampled connections, within the agent's budget.
#[utoipa::path(
    get, path = "/v1/calls", operation_id = "followCalls", tag = "see",
    responses((status = OK, description = "The calls", body = CallEvent, content_type = "text/event-stream"), AnyProblem),
)]
pub(super) async fn follow(
    State(control): State<Control>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let events = control.calls().map(|event| {
        let made = match &event {
            CallEvent::Call(call) => Event::default().event("call").json_data(call),
            CallEvent::Missed(count) => Event::default().event("missed").json_data(count),
        };
        // Neither has anything that JSON has not.
        Ok(made.unwrap_or_default())
    });
    Sse::new(events).keep_alive(KeepAlive::default())
}
