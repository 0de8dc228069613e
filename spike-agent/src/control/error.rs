//! Why a verb was not carried out, and whose fault it is.

use crate::{fault::book::BookError, model::FieldError};

/// Why a verb was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// A value of the request is wrong.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// What was named does not exist.
    #[error("there is no {kind} `{name}`")]
    NotFound {
        /// Such as `fault`.
        kind: &'static str,
        /// As the operator wrote it.
        name: String,
    },
    /// It contradicts what is already there.
    #[error("{0}")]
    Conflict(String),
    /// The agent cannot do it now.
    #[error("{0}")]
    Unavailable(String),
    /// The agent failed.
    #[error("{0}")]
    Internal(String),
}

impl ControlError {
    pub(super) fn no_such(kind: &'static str, name: &str) -> Self {
        Self::NotFound {
            kind,
            name: name.to_owned(),
        }
    }

    pub(super) fn internal(operation: &str, error: &anyhow::Error) -> Self {
        Self::Internal(format!("{operation}: {error:#}"))
    }

    pub(super) fn unavailable(operation: &str, error: &anyhow::Error) -> Self {
        Self::Unavailable(format!("{operation}: {error:#}"))
    }

    /// Tells the operator's mistakes from the agent's failures.
    pub(super) fn from_planes(operation: &'static str) -> impl FnOnce(anyhow::Error) -> Self {
        move |error| match error.downcast::<FieldError>() {
            Ok(field) => Self::Field(field),
            Err(error) => Self::internal(operation, &error),
        }
    }
}

impl From<BookError> for ControlError {
    fn from(error: BookError) -> Self {
        match error {
            BookError::NameTaken(_) => Self::Conflict(error.to_string()),
            BookError::Full => Self::Unavailable(error.to_string()),
        }
    }
}
