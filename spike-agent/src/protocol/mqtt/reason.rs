//! Reasons, by number.

pub(super) fn is_failure(code: u8) -> bool {
    code >= 0x80
}

/// The specification's name of a reason; `version` where it matters, which is in the answer to a connection.
pub(super) fn name(code: u8, version: Option<u8>) -> String {
    let known = match (code, version) {
        (0x00, _) => "Success",
        (0x01, Some(..=4)) => "unacceptable protocol version",
        (0x02, Some(..=4)) => "identifier rejected",
        (0x03, Some(..=4)) => "server unavailable",
        (0x04, Some(..=4)) => "bad user name or password",
        (0x05, Some(..=4)) => "not authorized",
        (0x10, _) => "No matching subscribers",
        (0x11, _) => "No subscription existed",
        (0x80, _) => "Unspecified error",
        (0x81, _) => "Malformed Packet",
        (0x82, _) => "Protocol Error",
        (0x83, _) => "Implementation specific error",
        (0x84, _) => "Unsupported Protocol Version",
        (0x85, _) => "Client Identifier not valid",
        (0x86, _) => "Bad User Name or Password",
        (0x87, _) => "Not authorized",
        (0x88, _) => "Server unavailable",
        (0x89, _) => "Server busy",
        (0x8a, _) => "Banned",
        (0x8b, _) => "Server shutting down",
        (0x8c, _) => "Bad authentication method",
        (0x8d, _) => "Keep Alive timeout",
        (0x8e, _) => "Session taken over",
        (0x8f, _) => "Topic Filter invalid",
        (0x90, _) => "Topic Name invalid",
        (0x91, _) => "Packet Identifier in use",
        (0x92, _) => "Packet Identifier not found",
        (0x93, _) => "Receive Maximum exceeded",
        (0x94, _) => "Topic Alias invalid",
        (0x95, _) => "Packet too large",
        (0x96, _) => "Message rate too high",
        (0x97, _) => "Quota exceeded",
        (0x98, _) => "Administrative action",
        (0x99, _) => "Payload format invalid",
        (0x9a, _) => "Retain not supported",
        (0x9b, _) => "QoS not supported",
        (0x9c, _) => "Use another server",
        (0x9d, _) => "Server moved",
        (0x9e, _) => "Shared Subscriptions not supported",
        (0x9f, _) => "Connection rate exceeded",
        (0xa0, _) => "Maximum connect time",
        (0xa1, _) => "Subscription Identifiers not supported",
        (0xa2, _) => "Wildcard Subscriptions not supported",
        _ => return format!("{code:#04x}"),
    };
    known.to_owned()
}
