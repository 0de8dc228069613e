//! Faults: arm, look at, remove.

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
        problem::{AnyProblem, ApiError},
    },
    control::Control,
    model::{
        RawFault,
        view::{FaultList, FaultView, FaultsRemoved, PanicView},
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
    State(control): State<Control>,
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
pub(super) async fn clear(State(control): State<Control>) -> Result<Json<FaultsRemoved>, ApiError> {
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

/// Removes a fault; it is out of force when this is answered, with its last counts.
#[utoipa::path(
    delete, path = "/v1/faults/{name}", operation_id = "removeFault", tag = "break",
    params(("name" = String, Path)), security((), ("token" = [])),
    responses((status = OK, description = "Removed; its last counts", body = FaultView), AnyProblem),
)]
pub(super) async fn remove(
    State(control): State<Control>,
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
pub(super) async fn panic(State(control): State<Control>) -> Result<Json<PanicView>, ApiError> {
    Ok(Json(control.panic().await?))
}
