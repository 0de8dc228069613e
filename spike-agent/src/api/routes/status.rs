//! How the agent is doing, and who calls whom.

use axum::{Json, extract::State};

use super::segment::Segment;
use crate::{
    api::problem::{AnyProblem, ApiError},
    control::Control,
    model::view::{EdgeDetailView, ServiceList, Status},
};

/// How the agent is doing.
#[utoipa::path(
    get, path = "/v1/status", operation_id = "getStatus", tag = "see",
    responses((status = OK, description = "How it is doing", body = Status), AnyProblem),
)]
pub(super) async fn status(State(control): State<Control>) -> Json<Status> {
    Json(control.status())
}

/// The services of the map.
#[utoipa::path(
    get, path = "/v1/services", operation_id = "listServices", tag = "see",
    responses((status = OK, description = "The services", body = ServiceList), AnyProblem),
)]
pub(super) async fn services(State(control): State<Control>) -> Result<Json<ServiceList>, ApiError> {
    Ok(Json(control.services()?))
}

/// One edge of the map, with its latencies.
#[utoipa::path(
    get, path = "/v1/edges/{id}", operation_id = "getEdge", tag = "see",
    params(("id" = String, Path, description = "Its id on the map")),
    responses((status = OK, description = "The edge", body = EdgeDetailView), AnyProblem),
)]
pub(super) async fn edge(
    State(control): State<Control>,
    Segment(id): Segment,
) -> Result<Json<EdgeDetailView>, ApiError> {
    Ok(Json(control.edge(&id)?))
}
