//! A name within a path, with errors as problem documents.

use axum::{
    extract::{FromRequestParts, Path},
    http::request::Parts,
};

use crate::api::problem::ApiError;

/// The one variable part of a route's path.
pub(super) struct Segment(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Segment {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(name) = Path::from_request_parts(parts, state).await?;
        Ok(Self(name))
    }
}
