//! Captures: start, read, stop.

use std::io;

use axum::{
    Json,
    body::Body as ResponseBody,
    extract::{Query, State, rejection::QueryRejection},
    http::{Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};
use serde::Deserialize;
use utoipa::ToSchema;

use super::segment::Segment;
use crate::{
    api::{
        body::Body,
        problem::{AnyProblem, ApiError},
    },
    capture::pcap::Pcap,
    control::{CaptureStream, Control},
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

/// Starts a capture; it takes packets when this is answered. One that is not kept is stopped after a minute without a
/// reader.
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

/// Stops a capture; its stream, or its file, then ends properly. Of one that is kept the file is whole when this is answered.
#[utoipa::path(
    post, path = "/v1/captures/{id}/stop", operation_id = "stopCapture", tag = "capture",
    params(("id" = String, Path)), security((), ("token" = [])),
    responses((status = OK, description = "Stopped; its counts so far", body = CaptureView), AnyProblem),
)]
pub(super) async fn stop(
    State(control): State<Control>,
    Segment(id): Segment,
) -> Result<Json<CaptureView>, ApiError> {
    control.capture_stop(&id)?;
    Ok(Json(control.capture_settled(&id).await?))
}

/// Tells a capture with `before` that what it waits for has happened: it writes what it has in memory, and goes on.
#[utoipa::path(
    post, path = "/v1/captures/{id}/trigger", operation_id = "triggerCapture", tag = "capture",
    params(("id" = String, Path)), security((), ("token" = [])),
    responses((status = OK, description = "Told", body = CaptureView), AnyProblem),
)]
pub(super) async fn trigger(
    State(control): State<Control>,
    Segment(id): Segment,
) -> Result<Json<CaptureView>, ApiError> {
    Ok(Json(control.capture_trigger(&id)?))
}

/// Stops a capture; one that is kept is taken off the disk.
#[utoipa::path(
    delete, path = "/v1/captures/{id}", operation_id = "removeCapture", tag = "capture",
    params(("id" = String, Path)), security((), ("token" = [])),
    responses((status = OK, description = "Stopped; its counts so far", body = CaptureView), AnyProblem),
)]
pub(super) async fn remove(
    State(control): State<Control>,
    Segment(id): Segment,
) -> Result<Json<CaptureView>, ApiError> {
    Ok(Json(control.capture_remove(&id)?))
}

/// How a capture is to be read.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reading {
    /// Of a kept capture: goes on while it grows. Else what is there now.
    #[serde(default = "yes")]
    follow: bool,
    /// The format of the file.
    #[serde(default)]
    format: FileFormat,
}

fn yes() -> bool {
    true
}

/// A format of capture files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum FileFormat {
    /// With all that is known of each packet.
    #[default]
    Pcapng,
    /// Packets alone, with nanoseconds; of one kind of link.
    Pcap,
}

/// A pcapng file.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[expect(dead_code, reason = "only its description in the OpenAPI document is used")]
struct PcapngFile(Vec<u8>);

/// The packets as a file that grows until the capture ends.
///
/// A capture that is kept has any number of readers. Any other has one, and ends when it goes away. On TCP this needs the
/// token, although it is a GET.
#[utoipa::path(
    get, path = "/v1/captures/{id}/pcapng", operation_id = "readCapture", tag = "capture",
    params(
        ("id" = String, Path),
        ("follow" = Option<bool>, Query, description = "Of a kept capture: true, as without it, goes on while it grows; false ends with what is there now"),
        ("format" = Option<FileFormat>, Query, description = "pcapng, as without it, or pcap"),
    ),
    security((), ("token" = [])),
    responses(
        (status = OK, description = "The packets", body = PcapngFile, content_type = "application/x-pcapng"),
        AnyProblem,
    ),
)]
pub(super) async fn pcapng(
    State(control): State<Control>,
    Segment(id): Segment,
    reading: Result<Query<Reading>, QueryRejection>,
    method: Method,
) -> Result<Response, ApiError> {
    let Query(reading) =
        reading.map_err(|error| ApiError::new(StatusCode::BAD_REQUEST, error.body_text()))?;
    let kind = match reading.format {
        FileFormat::Pcapng => "application/x-pcapng",
        FileFormat::Pcap => "application/vnd.tcpdump.pcap",
    };
    let body = match (method, reading.format) {
        // Must not use up the one reader.
        (Method::HEAD, _) => control.capture(&id).map(|_| ResponseBody::empty())?,
        (_, FileFormat::Pcapng) => ResponseBody::from_stream(control.capture_stream(&id, reading.follow)?),
        (_, FileFormat::Pcap) => {
            ResponseBody::from_stream(converted(control.capture_stream(&id, reading.follow)?).await?)
        }
    };
    Ok(([(header::CONTENT_TYPE, kind)], body).into_response())
}

/// The stream as classic pcap.
async fn converted(
    mut stream: CaptureStream,
) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + 'static, ApiError> {
    let mut pcap = Pcap::default();
    // All interfaces are in the first piece: what cannot be converted is told before anything is sent.
    let first = match stream.next().await {
        Some(Ok(piece)) => pcap
            .convert(&piece)
            .map_err(|error| ApiError::new(StatusCode::CONFLICT, error.to_string()))?,
        Some(Err(error)) => {
            return Err(ApiError::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("read the capture: {error}"),
            ));
        }
        None => BytesMut::new(),
    };
    let rest = stream.map(move |piece| Ok(pcap.convert(&piece?).map_err(io::Error::other)?.freeze()));
    Ok(stream::iter([Ok(first.freeze())]).chain(rest))
}
