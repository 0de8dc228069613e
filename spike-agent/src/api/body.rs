//! Reads request bodies, bounded, with errors that name the field.

use axum::{
    body::to_bytes,
    extract::{FromRequest, Request},
    http::StatusCode,
};
use http_body_util::LengthLimitError;
use serde::de::DeserializeOwned;

use super::problem::ApiError;
use crate::model::json;

/// Largest request body in bytes; the longest sensible one is a hundredth of it.
pub(super) const MAX_BODY: usize = 64 * 1024;

/// A JSON request body.
pub(super) struct Body<T>(pub(super) T);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let bytes = to_bytes(request.into_body(), MAX_BODY).await.map_err(|error| {
            let is_too_long =
                std::error::Error::source(&error).is_some_and(|source| source.is::<LengthLimitError>());
            match is_too_long {
                true => ApiError::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    format!("the body is longer than {MAX_BODY} bytes"),
                ),
                false => ApiError::new(StatusCode::BAD_REQUEST, format!("read the body: {error}")),
            }
        })?;
        Ok(Self(json::parse(&bytes)?))
    }
}
