//! Metrics, to be scraped.

use axum::{
    extract::State,
    http::{HeaderMap, header},
    response::IntoResponse,
};

use crate::{
    api::problem::{AnyProblem, ApiError},
    control::Control,
    export::Format,
};

/// All metrics in Prometheus' text format, or in OpenMetrics where the `Accept` header prefers it.
///
/// Decoded calls are counted from the first request on.
#[utoipa::path(
    get, path = "/metrics", operation_id = "getMetrics", tag = "see",
    responses((status = OK, description = "The metrics", body = String, content_type = "text/plain"), AnyProblem),
)]
pub(super) async fn scrape(
    State(control): State<Control>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, ApiError> {
    let accept = headers.get_all(header::ACCEPT).iter();
    let accept: Vec<&str> = accept.filter_map(|value| value.to_str().ok()).collect();
    let format = Format::accepted(&accept.join(","));
    let text = control.metrics(format).await?;
    Ok(([(header::CONTENT_TYPE, format.content_type())], text))
}
