//! Commands that run in a cgroup of their own.

use axum::{
    Extension, Json,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};

use super::segment::Segment;
use crate::{
    api::{
        body::Body,
        problem::{AnyProblem, ApiError},
        unix::Peer,
    },
    control::Control,
    model::{RawExec, view::ExecView},
};

/// Puts a child of the client into a cgroup of its own. Only on the Unix socket, where the client is known.
#[utoipa::path(
    post, path = "/v1/exec", operation_id = "beginExec", tag = "break",
    request_body = RawExec,
    responses(
        (status = CREATED, description = "Where it is now", body = ExecView, headers(("location" = String))),
        AnyProblem,
    ),
)]
pub(super) async fn begin(
    State(control): State<Control>,
    peer: Option<Extension<Peer>>,
    Body(exec): Body<RawExec>,
) -> Result<impl IntoResponse, ApiError> {
    let client = peer.and_then(|Extension(peer)| peer.pid()).ok_or_else(|| {
        let detail =
            "only a client on the Unix socket, in a pid namespace that the agent can see, may do this";
        ApiError::new(StatusCode::FORBIDDEN, detail)
    })?;
    let view = control.exec_begin(exec.pid, client)?;
    Ok((
        StatusCode::CREATED,
        [(header::LOCATION, format!("/v1/exec/{}", view.id))],
        Json(view),
    ))
}

/// Ends it: removes the faults and stops the captures of the command's cgroup.
#[utoipa::path(
    delete, path = "/v1/exec/{id}", operation_id = "endExec", tag = "break",
    params(("id" = String, Path)), security((), ("token" = [])),
    responses((status = NO_CONTENT, description = "Ended"), AnyProblem),
)]
pub(super) async fn end(
    State(control): State<Control>,
    Segment(id): Segment,
) -> Result<StatusCode, ApiError> {
    control.exec_end(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}
