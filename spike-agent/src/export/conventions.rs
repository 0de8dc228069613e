//! What OpenTelemetry's semantic conventions, and the service graph's, make of each protocol.
//!
//! One table: to have another protocol exported, give it a row. Sources:
//! <https://opentelemetry.io/docs/specs/semconv/> 1.42 and
//! <https://grafana.com/docs/tempo/latest/metrics-from-traces/service_graphs/>.

mod attributes;
#[cfg(test)]
mod tests;

pub(super) use attributes::{Description, describe};

/// Which conventions a protocol follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Convention {
    /// Its version, where the protocol's name says it.
    Http {
        version: Option<&'static str>,
    },
    /// `rpc.system.name`.
    Rpc {
        system: &'static str,
    },
    /// `db.system.name`, and whether what a call is about is a table or collection, and no key.
    Database {
        system: &'static str,
        has_collections: bool,
    },
    /// `messaging.system`.
    Messaging {
        system: &'static str,
    },
    Dns,
}

const fn database(system: &'static str, has_collections: bool) -> Convention {
    Convention::Database {
        system,
        has_collections,
    }
}

const fn messaging(system: &'static str) -> Convention {
    Convention::Messaging { system }
}

/// By the protocol's name, as in `ProtocolName::as_str`.
const TABLE: &[(&str, Convention)] = &[
    ("http", Convention::Http { version: None }),
    ("http2", Convention::Http { version: Some("2") }),
    ("grpc", Convention::Rpc { system: "grpc" }),
    ("redis", database("redis", false)),
    ("memcached", database("memcached", false)),
    ("postgresql", database("postgresql", true)),
    ("mysql", database("mysql", true)),
    ("mongodb", database("mongodb", true)),
    ("kafka", messaging("kafka")),
    ("amqp", messaging("rabbitmq")),
    ("nats", messaging("nats")),
    ("mqtt", messaging("mqtt")),
    ("dns", Convention::Dns),
];

/// What a protocol's calls are told as; none for those that have no convention, such as TLS.
pub(super) fn of(protocol: &str) -> Option<Convention> {
    let row = TABLE.iter().find(|(name, _)| *name == protocol);
    row.map(|(_, convention)| *convention)
}

/// The service graph's `connection_type`: empty for calls of one service to another.
pub(super) fn connection_type(protocol: &str, both_known: bool) -> &'static str {
    match of(protocol) {
        Some(Convention::Database { .. }) => "database",
        Some(Convention::Messaging { .. }) => "messaging_system",
        _ if both_known => "",
        _ => "virtual_node",
    }
}
