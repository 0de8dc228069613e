//! How the agent is doing, and who calls whom.

use axum::{Json, extract::State};

use crate::{
    api::problem::{AnyProblem, ApiError},
    control::Control,
    model::view::{MapView, Status},
};

/// How the agent is doing.
#[utoipa::path(
    get, path = "/v1/status", operation_id = "getStatus", tag = "see",
    responses((status = OK, description = "How it is doing", body = Status), AnyProblem),
)]
pub(super) async fn status(State(control): State<Control>) -> Json<Status> {
    Json(control.status())
}

/// Who calls whom.
#[utoipa::path(
    get, path = "/v1/map", operation_id = "getMap", tag = "see",
    responses((status = OK, description = "The map", body = MapView), AnyProblem),
)]
pub(super) async fn map(State(control): State<Control>) -> Result<Json<MapView>, ApiError> {
    Ok(Json(control.service_map()?))
}
