//! Stubs: recordings that answer calls in the place of servers.

use std::{fs::OpenOptions, os::unix::fs::MetadataExt as _, os::unix::fs::OpenOptionsExt as _};

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
        operator::Operator,
        problem::{AnyProblem, ApiError},
        unix::Peer,
    },
    control::Control,
    model::{
        RawStub,
        view::{MissList, StubList, StubView},
    },
};

/// All stubs.
#[utoipa::path(
    get, path = "/v1/replays", operation_id = "listReplays", tag = "replay",
    responses((status = OK, description = "The stubs", body = StubList), AnyProblem),
)]
pub(super) async fn list(State(control): State<Control>) -> Json<StubList> {
    Json(control.stubs())
}

/// Has a recording answer calls; it does when this is answered.
#[utoipa::path(
    post, path = "/v1/replays", operation_id = "startReplay", tag = "replay",
    request_body = RawStub, security((), ("token" = [])),
    responses(
        (status = CREATED, description = "Answers", body = StubView, headers(("location" = String))),
        AnyProblem,
    ),
)]
pub(super) async fn start(
    peer: Option<Extension<Peer>>,
    Operator(control): Operator,
    Body(stub): Body<RawStub>,
) -> Result<impl IntoResponse, ApiError> {
    let peer = peer.map(|Extension(peer)| peer);
    if let Some(peer) = peer {
        may_read(peer, &stub.file)?;
    }
    let view = control.stub_start(&stub, peer.and_then(Peer::pid)).await?;
    Ok((
        StatusCode::CREATED,
        [(header::LOCATION, format!("/v1/replays/{}", view.name))],
        Json(view),
    ))
}

/// The agent reads what its client may not: the file must be the client's own. Who has the token is the agent's equal.
fn may_read(peer: Peer, file: &str) -> Result<(), ApiError> {
    if peer.uid() == Some(0) {
        return Ok(());
    }
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(file);
    let owner = opened
        .and_then(|file| file.metadata())
        .ok()
        .map(|data| data.uid());
    if owner.is_some() && owner == peer.uid() {
        return Ok(());
    }
    let detail =
        format!("file: `{file}` is not a file that belongs to you; only root may replay those of others");
    Err(ApiError::new(StatusCode::FORBIDDEN, detail))
}

/// One stub.
#[utoipa::path(
    get, path = "/v1/replays/{name}", operation_id = "getReplay", tag = "replay",
    params(("name" = String, Path)),
    responses((status = OK, description = "The stub", body = StubView), AnyProblem),
)]
pub(super) async fn show(
    State(control): State<Control>,
    Segment(name): Segment,
) -> Result<Json<StubView>, ApiError> {
    Ok(Json(control.stub(&name)?))
}

/// Requests that came and were not recorded, each with the recorded one that is most like it.
#[utoipa::path(
    get, path = "/v1/replays/{name}/misses", operation_id = "listMisses", tag = "replay",
    params(("name" = String, Path)),
    responses((status = OK, description = "The misses", body = MissList), AnyProblem),
)]
pub(super) async fn misses(
    State(control): State<Control>,
    Segment(name): Segment,
) -> Result<Json<MissList>, ApiError> {
    Ok(Json(control.stub_misses(&name)?))
}

/// Has a stub begin again with the first answers.
#[utoipa::path(
    post, path = "/v1/replays/{name}/restart", operation_id = "restartReplay", tag = "replay",
    params(("name" = String, Path)), security((), ("token" = [])),
    responses((status = OK, description = "The stub", body = StubView), AnyProblem),
)]
pub(super) async fn restart(
    Operator(control): Operator,
    Segment(name): Segment,
) -> Result<Json<StubView>, ApiError> {
    Ok(Json(control.stub_restart(&name)?))
}

/// Ends a stub; calls go to the real server when this is answered.
#[utoipa::path(
    delete, path = "/v1/replays/{name}", operation_id = "stopReplay", tag = "replay",
    params(("name" = String, Path)), security((), ("token" = [])),
    responses((status = OK, description = "Ended; its last counts", body = StubView), AnyProblem),
)]
pub(super) async fn stop(
    Operator(control): Operator,
    Segment(name): Segment,
) -> Result<Json<StubView>, ApiError> {
    Ok(Json(control.stub_stop(&name).await?))
}
