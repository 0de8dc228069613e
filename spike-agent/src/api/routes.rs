//! The routes, and the OpenAPI document that is made from them.

mod calls;
mod captures;
mod execs;
mod faults;
mod map;
mod metrics;
mod recordings;
mod replays;
mod segment;
mod status;

use axum::{
    Json, Router,
    http::{StatusCode, Uri},
    routing::get,
};
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::problem::ApiError;
use crate::{control::Control, model::view::Problem};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Spike",
        description = "Sees, breaks and captures the calls between services on this host.\n\n\
            On the Unix socket the peer's credentials decide. On TCP, every request but GET, and reading packets, \
            needs the bearer token that the agent writes to `token` in its state directory.\n\n\
            Times are text with a unit (`200ms`, `1m30s`); unknown fields are errors; errors are problem documents \
            (RFC 9457) whose `field` names what is wrong.",
    ),
    components(schemas(Problem)),
    modifiers(&BearerToken),
    tags(
        (name = "see", description = "How the agent is doing, and who calls whom."),
        (name = "break", description = "Faults."),
        (name = "capture", description = "Packets."),
        (name = "record", description = "Calls, with all their bytes."),
        (name = "replay", description = "Recordings that answer in the place of servers."),
    ),
)]
struct Document;

struct BearerToken;

impl utoipa::Modify for BearerToken {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        openapi
            .components
            .get_or_insert_default()
            .add_security_scheme("token", scheme);
    }
}

fn documented() -> OpenApiRouter<Control> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(status::status))
        .routes(routes!(map::edges))
        .routes(routes!(map::graph))
        .routes(routes!(map::analysis))
        .routes(routes!(map::diff))
        .routes(routes!(map::edge_history))
        .routes(routes!(status::services))
        .routes(routes!(status::edge))
        .routes(routes!(calls::follow))
        .routes(routes!(metrics::scrape))
        .routes(routes!(faults::list, faults::add, faults::clear))
        .routes(routes!(
            faults::show,
            faults::change,
            faults::patch,
            faults::remove
        ))
        .routes(routes!(faults::audit))
        .routes(routes!(faults::panic))
        .routes(routes!(captures::list, captures::start))
        .routes(routes!(captures::show, captures::remove))
        .routes(routes!(captures::stop))
        .routes(routes!(captures::trigger))
        .routes(routes!(captures::pcapng))
        .routes(routes!(recordings::list, recordings::start))
        .routes(routes!(recordings::show))
        .routes(routes!(recordings::stop))
        .routes(routes!(execs::begin))
        .routes(routes!(replays::list, replays::start))
        .routes(routes!(replays::show, replays::stop))
        .routes(routes!(replays::misses))
        .routes(routes!(replays::restart))
        .routes(routes!(execs::end))
}

/// The description of the API.
pub fn openapi() -> utoipa::openapi::OpenApi {
    documented().into_openapi()
}

/// All routes, without any guard.
pub(super) fn router(control: Control) -> Router {
    let (router, document) = documented().split_for_parts();
    router
        .route("/openapi.json", get(move || async move { Json(document) }))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .with_state(control)
}

async fn no_such_path(uri: Uri) -> ApiError {
    ApiError::new(
        StatusCode::NOT_FOUND,
        format!("there is nothing at {}; see /openapi.json", uri.path()),
    )
}

async fn no_such_method(uri: Uri) -> ApiError {
    let detail = format!("{} does not take this method; see /openapi.json", uri.path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, detail)
}
