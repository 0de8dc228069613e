//! Faults: arm, look at, remove.

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    http::{StatusCode, header},
    response::IntoResponse,
};

use serde::Deserialize;

use super::segment::Segment;
use crate::{
    api::{
        body::Body,
        operator::Operator,
        problem::{AnyProblem, ApiError},
    },
    control::Control,
    model::{
        RawFault,
        view::{AuditList, FaultList, FaultView, FaultsRemoved, PanicView},
    },
};

/// All armed faults.
#[utoipa::path(
    get, path = "/v1/faults", operation_id = "listFaults", tag = "break",
    responses((status = OK, description = "The faults", body = FaultList), AnyProblem),
)]
pub(super) async fn list(State(control): State<Control>) -> Json<FaultList> {
    Json(control.faults())
}

/// Arms a fault; it is in force when this is answered.
#[utoipa::path(
    post, path = "/v1/faults", operation_id = "addFault", tag = "break",
    request_body = RawFault, security((), ("token" = [])),
    responses(
        (status = CREATED, description = "Armed", body = FaultView, headers(("location" = String))),
        AnyProblem,
    ),
)]
pub(super) async fn add(
    Operator(control): Operator,
    Body(fault): Body<RawFault>,
) -> Result<impl IntoResponse, ApiError> {
    let view = control.fault_add(&fault).await?;
    Ok((
        StatusCode::CREATED,
        [(header::LOCATION, format!("/v1/faults/{}", view.name))],
        Json(view),
    ))
}

/// Removes all faults; they are out of force when this is answered.
#[utoipa::path(
    delete, path = "/v1/faults", operation_id = "clearFaults", tag = "break",
    security((), ("token" = [])),
    responses((status = OK, description = "What was removed", body = FaultsRemoved), AnyProblem),
)]
pub(super) async fn clear(Operator(control): Operator) -> Result<Json<FaultsRemoved>, ApiError> {
    let removed = control.fault_clear().await?;
    Ok(Json(FaultsRemoved { removed }))
}

/// One armed fault.
#[utoipa::path(
    get, path = "/v1/faults/{name}", operation_id = "getFault", tag = "break",
    params(("name" = String, Path)),
    responses((status = OK, description = "The fault", body = FaultView), AnyProblem),
)]
pub(super) async fn show(
    State(control): State<Control>,
    Segment(name): Segment,
) -> Result<Json<FaultView>, ApiError> {
    Ok(Json(control.fault(&name)?))
}

/// Puts another fault in the place of an armed one, under its name; the connections that it has take the change on at
/// once. It is in force when this is answered.
#[utoipa::path(
    put, path = "/v1/faults/{name}", operation_id = "changeFault", tag = "break",
    params(("name" = String, Path)), request_body = RawFault, security((), ("token" = [])),
    responses((status = OK, description = "Changed", body = FaultView), AnyProblem),
)]
pub(super) async fn change(
    Operator(control): Operator,
    Segment(name): Segment,
    Body(fault): Body<RawFault>,
) -> Result<Json<FaultView>, ApiError> {
    Ok(Json(control.fault_change(&name, &fault).await?))
}

/// Changes some fields of an armed fault by a merge patch (RFC 7396); an effect with a `type` replaces the old one.
#[utoipa::path(
    patch, path = "/v1/faults/{name}", operation_id = "patchFault", tag = "break",
    params(("name" = String, Path)), request_body = serde_json::Value, security((), ("token" = [])),
    responses((status = OK, description = "Changed", body = FaultView), AnyProblem),
)]
pub(super) async fn patch(
    Operator(control): Operator,
    Segment(name): Segment,
    Body(patch): Body<serde_json::Value>,
) -> Result<Json<FaultView>, ApiError> {
    Ok(Json(control.fault_patch(&name, &patch).await?))
}

/// How much of the audit log is wanted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditQuery {
    /// Entries, counted from the last.
    last: Option<usize>,
}

/// Who armed which fault and when, what it hit, and when and why it ended: the last entries, oldest first.
#[utoipa::path(
    get, path = "/v1/audit", operation_id = "readAudit", tag = "break",
    params(("last" = Option<usize>, Query, description = "How many entries. Default: 100; at most 10000")),
    responses((status = OK, description = "The entries", body = AuditList), AnyProblem),
)]
pub(super) async fn audit(
    State(control): State<Control>,
    query: Result<Query<AuditQuery>, QueryRejection>,
) -> Result<Json<AuditList>, ApiError> {
    let Query(AuditQuery { last }) =
        query.map_err(|error| ApiError::new(StatusCode::BAD_REQUEST, error.body_text()))?;
    let read = tokio::task::spawn_blocking(move || control.audit(last.unwrap_or(100))).await;
    let list = read.map_err(|error| {
        ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("read the audit log: {error}"),
        )
    })?;
    Ok(Json(list?))
}

/// Removes a fault; it is out of force when this is answered, with its last counts.
#[utoipa::path(
    delete, path = "/v1/faults/{name}", operation_id = "removeFault", tag = "break",
    params(("name" = String, Path)), security((), ("token" = [])),
    responses((status = OK, description = "Removed; its last counts", body = FaultView), AnyProblem),
)]
pub(super) async fn remove(
    Operator(control): Operator,
    Segment(name): Segment,
) -> Result<Json<FaultView>, ApiError> {
    Ok(Json(control.fault_remove(&name).await?))
}

/// Everything off: removes all faults and stops all captures.
#[utoipa::path(
    post, path = "/v1/panic", operation_id = "panic", tag = "break",
    security((), ("token" = [])),
    responses((status = OK, description = "What was undone", body = PanicView), AnyProblem),
)]
pub(super) async fn panic(Operator(control): Operator) -> Result<Json<PanicView>, ApiError> {
    Ok(Json(control.panic().await?))
}
