//! Recordings: start, look, stop.

use axum::{
    Json,
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
    },
    control::Control,
    model::{
        RawRecording,
        view::{RecordingList, RecordingView},
    },
};

/// All recordings: those that run and the last that ended.
#[utoipa::path(
    get, path = "/v1/recordings", operation_id = "listRecordings", tag = "record",
    responses((status = OK, description = "The recordings", body = RecordingList), AnyProblem),
)]
pub(super) async fn list(State(control): State<Control>) -> Json<RecordingList> {
    Json(RecordingList {
        recordings: control.recordings(),
    })
}

/// Starts a recording; connections that are opened when this is answered are recorded.
#[utoipa::path(
    post, path = "/v1/recordings", operation_id = "startRecording", tag = "record",
    request_body = RawRecording, security((), ("token" = [])),
    responses(
        (status = CREATED, description = "Started", body = RecordingView, headers(("location" = String))),
        AnyProblem,
    ),
)]
pub(super) async fn start(
    Operator(control): Operator,
    Body(recording): Body<RawRecording>,
) -> Result<impl IntoResponse, ApiError> {
    let view = control.recording_start(&recording).await?;
    Ok((
        StatusCode::CREATED,
        [(header::LOCATION, format!("/v1/recordings/{}", view.id))],
        Json(view),
    ))
}

/// One recording.
#[utoipa::path(
    get, path = "/v1/recordings/{id}", operation_id = "getRecording", tag = "record",
    params(("id" = String, Path)),
    responses((status = OK, description = "The recording", body = RecordingView), AnyProblem),
)]
pub(super) async fn show(
    State(control): State<Control>,
    Segment(id): Segment,
) -> Result<Json<RecordingView>, ApiError> {
    Ok(Json(control.recording(&id)?))
}

/// Stops a recording; its file is whole when this is answered.
#[utoipa::path(
    post, path = "/v1/recordings/{id}/stop", operation_id = "stopRecording", tag = "record",
    params(("id" = String, Path)), security((), ("token" = [])),
    responses((status = OK, description = "Stopped; its last counts", body = RecordingView), AnyProblem),
)]
pub(super) async fn stop(
    State(control): State<Control>,
    Segment(id): Segment,
) -> Result<Json<RecordingView>, ApiError> {
    Ok(Json(control.recording_stop(&id).await?))
}
