//! The service map of any time: as edges, as a graph, drawn, compared and judged.

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;

use super::segment::Segment;
use crate::{
    api::problem::{AnyProblem, ApiError},
    control::{Control, ControlError, DrawFormat, MapQuery},
    model::view::{AnalysisView, DiffView, EdgeHistoryView, GraphView, Group, MapView},
};

/// Which part of the map, and of when.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EdgesQuery {
    at: Option<String>,
    since: Option<String>,
    find: Option<String>,
    hide: Option<String>,
}

/// The same, and how it is shown.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GraphQuery {
    at: Option<String>,
    since: Option<String>,
    find: Option<String>,
    hide: Option<String>,
    group: Option<Group>,
    format: Option<DrawFormat>,
}

/// What is judged.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AnalysisQuery {
    at: Option<String>,
    since: Option<String>,
    without: Option<String>,
}

/// What is compared.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DiffQuery {
    before: String,
    after: Option<String>,
    length: Option<String>,
    group: Option<Group>,
}

/// How much of an edge's past.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HistoryQuery {
    since: Option<String>,
}

/// Who calls whom: all edges since the agent's start, or those of a stretch of time.
#[utoipa::path(
    get, path = "/v1/map", operation_id = "getMap", tag = "see",
    params(
        ("at" = Option<String>, Query, description = "When the stretch ends: `now`, `10m-ago` or RFC 3339."),
        ("since" = Option<String>, Query, description = "How long it is, such as `5m`; a minute unless said."),
        ("find" = Option<String>, Query, description = "Only edges of which this condition is true, such as \
            `p99>100ms or errors>1%`. Fields: from, to, service (either), protocol, edge; p50, p90, p99, max, mean, rtt; \
            errors; rate; calls, opened, open, failed, reset, retransmits, port; bytes_out, bytes_in."),
        ("hide" = Option<String>, Query, description = "No edges of which this condition is true."),
    ),
    responses((status = OK, description = "The map", body = MapView), AnyProblem),
)]
pub(super) async fn edges(
    State(control): State<Control>,
    query: Result<Query<EdgesQuery>, QueryRejection>,
) -> Result<Json<MapView>, ApiError> {
    let Query(query) = query.map_err(rejected)?;
    let query = MapQuery {
        at: query.at,
        since: query.since,
        find: query.find,
        hide: query.hide,
    };
    blocking(move || control.map(&query)).await.map(Json)
}

/// The map as a graph of processes, services or hosts; with `format` drawn for another tool.
#[utoipa::path(
    get, path = "/v1/map/graph", operation_id = "getGraph", tag = "see",
    params(
        ("at" = Option<String>, Query, description = "As of `/v1/map`."),
        ("since" = Option<String>, Query, description = "As of `/v1/map`."),
        ("find" = Option<String>, Query, description = "As of `/v1/map`."),
        ("hide" = Option<String>, Query, description = "As of `/v1/map`."),
        ("group" = Option<Group>, Query, description = "What the nodes are; services unless said."),
        ("format" = Option<DrawFormat>, Query, description = "Graphviz, Mermaid, GraphML, SVG, or the frames of \
            Grafana's node graph."),
    ),
    responses((status = OK, description = "The graph", body = GraphView), AnyProblem),
)]
pub(super) async fn graph(
    State(control): State<Control>,
    query: Result<Query<GraphQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(query) = query.map_err(rejected)?;
    let group = query.group.unwrap_or_default();
    let of = MapQuery {
        at: query.at,
        since: query.since,
        find: query.find,
        hide: query.hide,
    };
    match query.format {
        None => {
            let graph = blocking(move || control.graph(&of, group)).await?;
            Ok(Json(graph).into_response())
        }
        Some(format) => {
            let text = blocking(move || control.drawing(&of, group, format)).await?;
            Ok(([(header::CONTENT_TYPE, format.content_type())], text).into_response())
        }
    }
}

/// What is wrong with the architecture, the worst first; of the last five minutes unless said.
#[utoipa::path(
    get, path = "/v1/map/analysis", operation_id = "getAnalysis", tag = "see",
    params(
        ("at" = Option<String>, Query, description = "As of `/v1/map`."),
        ("since" = Option<String>, Query, description = "As of `/v1/map`; five minutes unless said."),
        ("without" = Option<String>, Query, description = "A service to think away: who is cut off then?"),
    ),
    responses((status = OK, description = "The findings", body = AnalysisView), AnyProblem),
)]
pub(super) async fn analysis(
    State(control): State<Control>,
    query: Result<Query<AnalysisQuery>, QueryRejection>,
) -> Result<Json<AnalysisView>, ApiError> {
    let Query(AnalysisQuery { at, since, without }) = query.map_err(rejected)?;
    let found = blocking(move || control.analysis(at.as_deref(), since.as_deref(), without.as_deref()));
    found.await.map(Json)
}

/// What is different between two stretches of time, beyond noise.
#[utoipa::path(
    get, path = "/v1/map/diff", operation_id = "getDiff", tag = "see",
    params(
        ("before" = String, Query, description = "When the first stretch ends, such as `1h-ago`."),
        ("after" = Option<String>, Query, description = "When the second one ends; now unless said."),
        ("length" = Option<String>, Query, description = "How long both are; five minutes unless said."),
        ("group" = Option<Group>, Query, description = "What the nodes are; services unless said."),
    ),
    responses((status = OK, description = "What is different", body = DiffView), AnyProblem),
)]
pub(super) async fn diff(
    State(control): State<Control>,
    query: Result<Query<DiffQuery>, QueryRejection>,
) -> Result<Json<DiffView>, ApiError> {
    let Query(query) = query.map_err(rejected)?;
    let group = query.group.unwrap_or_default();
    let found = blocking(move || {
        let after = query.after.as_deref().unwrap_or("now");
        control.map_diff(&query.before, after, query.length.as_deref(), group)
    });
    found.await.map(Json)
}

/// One edge step by step; the last ten minutes unless said.
#[utoipa::path(
    get, path = "/v1/edges/{id}/history", operation_id = "getEdgeHistory", tag = "see",
    params(
        ("id" = String, Path, description = "Its id on the map"),
        ("since" = Option<String>, Query, description = "How long back, such as `1h`."),
    ),
    responses((status = OK, description = "The steps", body = EdgeHistoryView), AnyProblem),
)]
pub(super) async fn edge_history(
    State(control): State<Control>,
    Segment(id): Segment,
    query: Result<Query<HistoryQuery>, QueryRejection>,
) -> Result<Json<EdgeHistoryView>, ApiError> {
    let Query(query) = query.map_err(rejected)?;
    let found = blocking(move || control.edge_history(&id, query.since.as_deref()));
    found.await.map(Json)
}

fn rejected(error: QueryRejection) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, error.body_text())
}

/// Large maps take a while, and must not keep other requests waiting.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ControlError> + Send + 'static,
) -> Result<T, ApiError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(ApiError::from),
        Err(error) => Err(ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            error.to_string(),
        )),
    }
}
