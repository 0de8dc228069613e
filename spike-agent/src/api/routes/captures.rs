//! Captures: start, read, stop.

use std::convert::Infallible;

use axum::{
    Json,
    body::Body as ResponseBody,
    extract::State,
    http::{Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::StreamExt;
use utoipa::ToSchema;

use super::segment::Segment;
use crate::{
    api::{
        body::Body,
        problem::{AnyProblem, ApiError},
    },
    control::Control,
    model::{
        RawCapture,
        view::{CaptureList, CaptureView},
    },
};

/// All captures: those that run and the last that ended.
#[utoipa::path(
    get, path = "/v1/captures", operation_id = "listCaptures", tag = "capture",
    responses((status = OK, description = "The captures", body = CaptureList), AnyProblem),
)]
pub(super) async fn list(State(control): State<Control>) -> Json<CaptureList> {
    Json(CaptureList {
        captures: control.captures(),
    })
}

/// Starts a capture; it takes packets when this is answered. Without a reader it is stopped after a minute.
#[utoipa::path(
    post, path = "/v1/captures", operation_id = "startCapture", tag = "capture",
    request_body = RawCapture, security((), ("token" = [])),
    responses(
        (status = CREATED, description = "Started", body = CaptureView, headers(("location" = String))),
        AnyProblem,
    ),
)]
pub(super) async fn start(
    State(control): State<Control>,
    Body(capture): Body<RawCapture>,
) -> Result<impl IntoResponse, ApiError> {
    let view = control.capture_start(&capture).await?;
    Ok((
        StatusCode::CREATED,
        [(header::LOCATION, format!("/v1/captures/{}", view.id))],
        Json(view),
    ))
}

/// One capture.
#[utoipa::path(
    get, path = "/v1/captures/{id}", operation_id = "getCapture", tag = "capture",
    params(("id" = String, Path)),
    responses((status = OK, description = "The capture", body = CaptureView), AnyProblem),
)]
pub(super) async fn show(
    State(control): State<Control>,
    Segment(id): Segment,
) -> Result<Json<CaptureView>, ApiError> {
    Ok(Json(control.capture(&id)?))
}

/// Stops a capture; its stream then ends properly.
#[utoipa::path(
    delete, path = "/v1/captures/{id}", operation_id = "stopCapture", tag = "capture",
    params(("id" = String, Path)), security((), ("token" = [])),
    responses((status = OK, description = "Stopped; its counts so far", body = CaptureView), AnyProblem),
)]
pub(super) async fn stop(
    State(control): State<Control>,
    Segment(id): Segment,
) -> Result<Json<CaptureView>, ApiError> {
    Ok(Json(control.capture_stop(&id)?))
}

/// A pcapng file.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[expect(dead_code, reason = "only its description in the OpenAPI document is used")]
struct PcapngFile(Vec<u8>);

/// The packets as a pcapng file that grows until the capture ends.
///
/// A capture has one reader, and ends when it goes away. On TCP this needs the token, although it is a GET.
#[utoipa::path(
    get, path = "/v1/captures/{id}/pcapng", operation_id = "readCapture", tag = "capture",
    params(("id" = String, Path)),
    security((), ("token" = [])),
    responses(
        (status = OK, description = "The packets", body = PcapngFile, content_type = "application/x-pcapng"),
        AnyProblem,
    ),
)]
pub(super) async fn pcapng(
    State(control): State<Control>,
    Segment(id): Segment,
    method: Method,
) -> Result<Response, ApiError> {
    let body = match method {
        // Must not use up the one reader.
        Method::HEAD => control.capture(&id).map(|_| ResponseBody::empty())?,
        _ => ResponseBody::from_stream(control.capture_stream(&id)?.map(Ok::<_, Infallible>)),
    };
    Ok(([(header::CONTENT_TYPE, "application/x-pcapng")], body).into_response())
}
