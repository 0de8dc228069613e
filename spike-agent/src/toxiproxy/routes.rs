//! The paths of Toxiproxy's API, with its statuses and texts.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json, Router,
    body::{Bytes, to_bytes},
    extract::{Path, Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    error::{self, ApiError},
    proxies::{Proxies, ProxyView},
    toxic::Toxic,
};

/// What clients are told, who use all of the API from 2.6 on.
const VERSION: &str = "2.12.0";
/// Largest body in bytes: a list of some thousand proxies.
const MAX_BODY: usize = 1 << 20;

type Shared = State<Arc<Proxies>>;

pub(super) fn router(proxies: Arc<Proxies>) -> Router {
    let proxy = get(show).post(change).patch(change).delete(delete);
    let toxic = get(toxic)
        .post(change_toxic)
        .patch(change_toxic)
        .delete(delete_toxic);
    Router::new()
        .route("/version", get(version))
        .route("/reset", post(reset))
        .route("/populate", post(populate))
        .route("/proxies", get(list).post(create))
        .route("/proxies/{proxy}", proxy)
        .route("/proxies/{proxy}/toxics", get(toxics).post(add_toxic))
        .route("/proxies/{proxy}/toxics/{toxic}", toxic)
        .layer(middleware::from_fn(no_browsers))
        .with_state(proxies)
}

/// A web page must not change proxies: browsers are kept out, as Toxiproxy does.
async fn no_browsers(request: Request, next: Next) -> Response {
    let agent = request.headers().get(header::USER_AGENT);
    if agent.is_some_and(|agent| agent.as_bytes().starts_with(b"Mozilla/")) {
        let text = "User agent not allowed";
        return (StatusCode::FORBIDDEN, text).into_response();
    }
    next.run(request).await
}

/// A body, whatever its content type is said to be.
async fn body<T: DeserializeOwned>(request: Request) -> Result<T, ApiError> {
    let bytes: Bytes = to_bytes(request.into_body(), MAX_BODY)
        .await
        .map_err(ApiError::bad_body)?;
    serde_json::from_slice(&bytes).map_err(ApiError::bad_body)
}

async fn version() -> Response {
    let text = format!("{{\"version\": \"{VERSION}\"}}\n");
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

async fn reset(State(proxies): Shared) -> Result<StatusCode, ApiError> {
    proxies.reset().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What was made; as Toxiproxy has it, `null` for nothing.
#[derive(Serialize)]
struct Populated {
    proxies: Option<Vec<ProxyView>>,
    #[serde(flatten)]
    error: Option<error::Body>,
}

async fn populate(State(proxies): Shared, request: Request) -> Result<Response, ApiError> {
    let (views, error) = proxies.populate(body(request).await?).await;
    let status = error.as_ref().map_or(StatusCode::CREATED, ApiError::status);
    let populated = Populated {
        proxies: (!views.is_empty()).then_some(views),
        error: error.as_ref().map(ApiError::body),
    };
    Ok((status, Json(populated)).into_response())
}

async fn list(State(proxies): Shared) -> Json<BTreeMap<String, ProxyView>> {
    Json(proxies.list().await)
}

async fn create(State(proxies): Shared, request: Request) -> Result<(StatusCode, Json<ProxyView>), ApiError> {
    let view = proxies.create(body(request).await?).await?;
    Ok((StatusCode::CREATED, Json(view)))
}

async fn show(State(proxies): Shared, Path(proxy): Path<String>) -> Result<Json<ProxyView>, ApiError> {
    Ok(Json(proxies.show(&proxy).await?))
}

async fn change(
    State(proxies): Shared,
    Path(proxy): Path<String>,
    request: Request,
) -> Result<Json<ProxyView>, ApiError> {
    // What is not there is told before what is wrong with the body.
    proxies.show(&proxy).await?;
    Ok(Json(proxies.change(&proxy, body(request).await?).await?))
}

async fn delete(State(proxies): Shared, Path(proxy): Path<String>) -> Result<StatusCode, ApiError> {
    proxies.delete(&proxy).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn toxics(State(proxies): Shared, Path(proxy): Path<String>) -> Result<Json<Vec<Toxic>>, ApiError> {
    Ok(Json(proxies.toxics(&proxy).await?))
}

async fn add_toxic(
    State(proxies): Shared,
    Path(proxy): Path<String>,
    request: Request,
) -> Result<Json<Toxic>, ApiError> {
    proxies.show(&proxy).await?;
    Ok(Json(proxies.add_toxic(&proxy, body(request).await?).await?))
}

type ToxicPath = Path<(String, String)>;

async fn toxic(State(proxies): Shared, Path((proxy, toxic)): ToxicPath) -> Result<Json<Toxic>, ApiError> {
    Ok(Json(proxies.toxic(&proxy, &toxic).await?))
}

async fn change_toxic(
    State(proxies): Shared,
    Path((proxy, toxic)): ToxicPath,
    request: Request,
) -> Result<Json<Toxic>, ApiError> {
    proxies.toxic(&proxy, &toxic).await?;
    let wanted = body(request).await?;
    Ok(Json(proxies.change_toxic(&proxy, &toxic, wanted).await?))
}

async fn delete_toxic(
    State(proxies): Shared,
    Path((proxy, toxic)): ToxicPath,
) -> Result<StatusCode, ApiError> {
    proxies.delete_toxic(&proxy, &toxic).await?;
    Ok(StatusCode::NO_CONTENT)
}
