//! Turns every error into a problem document (RFC 9457).

use axum::{
    Json,
    extract::rejection::PathRejection,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use utoipa::IntoResponses;

use crate::{
    control::ControlError,
    model::{FieldError, json::JsonError, view::Problem},
};

/// Media type of problem documents.
pub(super) const PROBLEM_JSON: &str = "application/problem+json";

/// An error on its way to the client.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    detail: String,
    field: Option<String>,
    header: Option<(HeaderName, &'static str)>,
}

/// What any route may answer instead.
#[derive(IntoResponses)]
#[response(
    status = "default",
    description = "A problem document",
    content_type = "application/problem+json"
)]
#[expect(dead_code, reason = "only its description in the OpenAPI document is used")]
pub(super) struct AnyProblem(Problem);

impl ApiError {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            detail: detail.into(),
            field: None,
            header: None,
        }
    }

    /// Adds a header that the status calls for.
    pub(super) fn with_header(mut self, name: HeaderName, value: &'static str) -> Self {
        self.header = Some((name, value));
        self
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let problem = Problem {
            kind: "about:blank".to_owned(),
            title: self.status.canonical_reason().unwrap_or("Error").to_owned(),
            status: self.status.as_u16(),
            detail: self.detail,
            field: self.field,
        };
        let mut response = (self.status, Json(problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        headers.extend(
            self.header
                .map(|(name, value)| (name, HeaderValue::from_static(value))),
        );
        response
    }
}

impl From<ControlError> for ApiError {
    fn from(error: ControlError) -> Self {
        let status = match error {
            ControlError::Field(error) => return error.into(),
            ControlError::NotFound { .. } => StatusCode::NOT_FOUND,
            ControlError::Conflict(_) => StatusCode::CONFLICT,
            ControlError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            ControlError::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        if status.is_server_error() {
            tracing::error!(%error, "request failed");
        }
        Self::new(status, error.to_string())
    }
}

impl From<FieldError> for ApiError {
    fn from(error: FieldError) -> Self {
        let field = Some(error.field).filter(|field| !field.is_empty());
        Self {
            field,
            ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, error.message)
        }
    }
}

impl From<JsonError> for ApiError {
    fn from(error: JsonError) -> Self {
        match error {
            JsonError::Field(error) => error.into(),
            JsonError::Syntax(_) => Self::new(StatusCode::BAD_REQUEST, error.to_string()),
        }
    }
}

impl From<PathRejection> for ApiError {
    fn from(rejection: PathRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}
