//! The attributes of one call.

use opentelemetry_semantic_conventions::attribute::{
    DB_COLLECTION_NAME, DB_NAMESPACE, DB_OPERATION_NAME, DB_RESPONSE_STATUS_CODE, DB_SYSTEM_NAME,
    DNS_QUESTION_NAME, ERROR_TYPE, HTTP_REQUEST_METHOD, HTTP_RESPONSE_STATUS_CODE,
    MESSAGING_DESTINATION_NAME, MESSAGING_OPERATION_NAME, MESSAGING_OPERATION_TYPE, MESSAGING_SYSTEM,
    NETWORK_PROTOCOL_VERSION, RPC_METHOD, RPC_RESPONSE_STATUS_CODE, RPC_SYSTEM_NAME, SERVER_ADDRESS,
    SERVER_PORT, URL_SCHEME, URL_TEMPLATE,
};

use super::Convention;
use crate::{
    export::{
        family::{Attribute, Attributes},
        source::Ends,
    },
    protocol::{Call, Side},
};

/// The methods of HTTP that are told as they are; others would let a client make as many series as it likes.
const METHODS: [&str; 10] = [
    "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE", "QUERY",
];
/// What stands for values that the conventions don't let through.
const OTHER: &str = "_OTHER";

/// A call in the words of its convention.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::export) struct Description {
    /// A span's name: few distinct ones.
    pub(in crate::export) name: String,
    pub(in crate::export) attributes: Attributes,
    /// Whether this side sees it as failed.
    pub(in crate::export) failed: bool,
    /// `messaging.operation.type`.
    pub(in crate::export) operation_type: Option<&'static str>,
}

/// Describes a call as `side` of it sees it.
pub(in crate::export) fn describe(
    convention: Convention,
    call: &Call,
    ends: &Ends,
    side: Side,
) -> Description {
    let mut made = Description {
        name: named(&call.operation, &call.target),
        attributes: Attributes::new(),
        failed: call.failed,
        operation_type: None,
    };
    match convention {
        Convention::Http { version } => http(&mut made, call, version, side),
        Convention::Rpc { system } => rpc(&mut made, call, system, side),
        Convention::Database {
            system,
            has_collections,
        } => database(&mut made, call, system, has_collections),
        Convention::Messaging { system } => messaging(&mut made, call, system),
        Convention::Dns => dns(&mut made, call),
    }
    let tells_server = side == Side::Client && convention != Convention::Dns;
    if tells_server {
        made.add(SERVER_ADDRESS, ends.address.as_str());
        made.add(SERVER_PORT, ends.port);
    }
    if made.failed && !made.has(ERROR_TYPE) {
        // What a protocol calls its errors is a short list; without a word it was the connection.
        let error = call.status.as_deref().filter(|status| !status.is_empty());
        made.add(ERROR_TYPE, error.unwrap_or(OTHER));
    }
    made
}

impl Description {
    fn add(&mut self, name: &'static str, value: impl Into<Attribute>) {
        self.attributes.push((name, value.into()));
    }

    fn add_some(&mut self, name: &'static str, value: &str) {
        if !value.is_empty() {
            self.add(name, value);
        }
    }

    fn has(&self, name: &str) -> bool {
        self.attributes.iter().any(|(known, _)| *known == name)
    }
}

fn http(made: &mut Description, call: &Call, version: Option<&'static str>, side: Side) {
    let known = METHODS.contains(&call.operation.as_str());
    let method = if known { &call.operation } else { OTHER };
    made.add(HTTP_REQUEST_METHOD, method);
    // Only clear text is decoded.
    made.add(URL_SCHEME, "http");
    made.add_some(URL_TEMPLATE, &call.target);
    if let Some(version) = version {
        made.add(NETWORK_PROTOCOL_VERSION, version);
    }
    made.name = named(if known { method } else { "HTTP" }, &call.target);
    let status = call.status.as_deref().and_then(|status| status.parse().ok());
    if let Some(code) = status.filter(|code: &u16| (100..600).contains(code)) {
        made.add(HTTP_RESPONSE_STATUS_CODE, code);
        let least = if side == Side::Client { 400 } else { 500 };
        made.failed |= code >= least;
        if made.failed {
            made.add(ERROR_TYPE, code.to_string().as_str());
        }
    }
}

fn rpc(made: &mut Description, call: &Call, system: &'static str, side: Side) {
    made.add(RPC_SYSTEM_NAME, system);
    let method = match (call.target.as_str(), call.operation.as_str()) {
        ("", method) => method.to_owned(),
        (service, method) => format!("{service}/{method}"),
    };
    made.add_some(RPC_METHOD, &method);
    made.name = method;
    if let Some(status) = &call.status {
        made.add(RPC_RESPONSE_STATUS_CODE, status.as_str());
        // To a client any status but OK is an error; which are the server's is known to the decoder.
        made.failed |= side == Side::Client && status != "OK";
    }
}

fn database(made: &mut Description, call: &Call, system: &'static str, has_collections: bool) {
    made.add(DB_SYSTEM_NAME, system);
    made.add_some(DB_OPERATION_NAME, &call.operation);
    let about_namespace = ["connect", "USE"].contains(&call.operation.as_str());
    if about_namespace {
        made.add_some(DB_NAMESPACE, &call.target);
    } else {
        if let Some(database) = call.details.get("database") {
            made.add_some(DB_NAMESPACE, database);
        }
        if has_collections {
            made.add_some(DB_COLLECTION_NAME, &call.target);
        }
    }
    if call.failed
        && let Some(status) = &call.status
    {
        made.add(DB_RESPONSE_STATUS_CODE, status.as_str());
    }
}

fn messaging(made: &mut Description, call: &Call, system: &'static str) {
    made.add(MESSAGING_SYSTEM, system);
    made.add(MESSAGING_OPERATION_NAME, call.operation.as_str());
    made.add_some(MESSAGING_DESTINATION_NAME, &call.target);
    let operation = call.operation.to_ascii_lowercase();
    made.operation_type = match operation.rsplit('.').next().unwrap_or_default() {
        // A broker's are what a consumer gets.
        _ if call.from == Side::Server => Some("receive"),
        "produce" | "publish" | "pub" | "hpub" => Some("send"),
        "fetch" | "get" | "deliver" | "msg" | "hmsg" => Some("receive"),
        "ack" | "nack" | "reject" | "offsetcommit" => Some("settle"),
        _ => None,
    };
    if let Some(kind) = made.operation_type {
        made.add(MESSAGING_OPERATION_TYPE, kind);
    }
}

fn dns(made: &mut Description, call: &Call) {
    made.add(DNS_QUESTION_NAME, call.target.as_str());
    if let Some(status) = call.status.as_deref().filter(|status| *status != "NOERROR") {
        made.failed = true;
        made.add(ERROR_TYPE, status);
    }
}

fn named(operation: &str, target: &str) -> String {
    match (operation, target) {
        (operation, "") => operation.to_owned(),
        (operation, target) => format!("{operation} {target}"),
    }
}
