//! The protocols that there are.

use std::fmt;

use super::{
    Protocol, Side, Verdict, amqp, dns, http1, http2, kafka, memcached, mongodb, mqtt, mysql, nats, postgres,
    redis, tls,
};

/// Every protocol; where several fit equally well, the first one is taken.
pub(super) const ALL: &[Kind] = &[
    http1::KIND,
    http2::KIND,
    redis::KIND,
    mysql::KIND,
    postgres::KIND,
    tls::KIND,
    dns::KIND,
    memcached::KIND,
    nats::KIND,
    mqtt::KIND,
    amqp::KIND,
    mongodb::KIND,
    kafka::KIND,
];

/// A protocol, before a conversation speaks it.
pub struct Kind {
    /// Its name.
    pub name: ProtocolName,
    /// Where its servers usually listen; decides only when the bytes alone don't.
    pub ports: &'static [u16],
    /// Whether the first bytes of a side, never empty, are of this protocol. Asked again as more bytes come.
    pub detect: fn(Side, &[u8]) -> Verdict,
    /// A decoder for one connection.
    pub start: fn() -> Box<dyn Protocol>,
}

/// A protocol's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProtocolName {
    /// HTTP/1.0 and 1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// gRPC, in a conversation of HTTP/2.
    Grpc,
    /// Redis' RESP2 and RESP3.
    Redis,
    /// MySQL's and MariaDB's.
    MySql,
    /// PostgreSQL's.
    Postgres,
    /// TLS.
    Tls,
    /// DNS, over TCP.
    Dns,
    /// AMQP 0-9-1.
    Amqp,
    /// Kafka's.
    Kafka,
    /// Memcached's text and binary protocols.
    Memcached,
    /// MongoDB's wire protocol.
    MongoDb,
    /// MQTT 3.1, 3.1.1 and 5.
    Mqtt,
    /// NATS' client protocol.
    Nats,
    /// For tests of the framework.
    #[cfg(test)]
    Toy,
}

impl ProtocolName {
    /// As shown to people and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "http",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
            Self::Redis => "redis",
            Self::MySql => "mysql",
            Self::Postgres => "postgresql",
            Self::Tls => "tls",
            Self::Dns => "dns",
            Self::Amqp => "amqp",
            Self::Kafka => "kafka",
            Self::Memcached => "memcached",
            Self::MongoDb => "mongodb",
            Self::Mqtt => "mqtt",
            Self::Nats => "nats",
            #[cfg(test)]
            Self::Toy => "toy",
        }
    }
}

impl fmt::Display for ProtocolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
