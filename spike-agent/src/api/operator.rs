//! The verbs as done by whoever sent the request, so that the audit log can say who that was.

use std::convert::Infallible;

use axum::{extract::FromRequestParts, http::request::Parts};

use super::unix::Peer;
use crate::{control::Control, model::view::Actor};

/// The verbs, done by the sender of the request.
pub(super) struct Operator(pub(super) Control);

impl FromRequestParts<Control> for Operator {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, control: &Control) -> Result<Self, Infallible> {
        // Only the guard of the Unix socket puts it there.
        let actor = match parts.extensions.get::<Peer>() {
            Some(peer) => Actor {
                door: "unix".to_owned(),
                uid: peer.uid(),
                pid: peer.pid(),
            },
            None => Actor::by("tcp"),
        };
        Ok(Self(control.by(actor)))
    }
}
