//! Of the datagrams of a capture, those that ask name servers and answer, as the recorder keeps them.

use std::{collections::HashMap, net::SocketAddr};

use super::{ImportError, Importer, packets::connection};
use crate::{
    capture::show::Segment,
    model::selector::DNS_PORT,
    protocol::{Side, dns},
};

/// The connections that were made for them, by their ends, the client first.
#[derive(Default)]
pub(super) struct Datagrams(HashMap<(SocketAddr, SocketAddr), u64>);

/// Who asks in a datagram of DNS, and who is asked; none when it is something else, or not whole.
pub(super) fn ends(segment: &Segment<'_>) -> Option<(SocketAddr, SocketAddr, Side)> {
    let (source, destination) = (segment.source, segment.destination);
    let (client, server, from) = if destination.port() == DNS_PORT {
        (source, destination, Side::Client)
    } else if source.port() == DNS_PORT {
        (destination, source, Side::Server)
    } else {
        return None;
    };
    let is_whole = segment.payload.len() == segment.length as usize;
    let is_dns = is_whole && dns::message(from, segment.payload).is_some();
    is_dns.then_some((client, server, from))
}

impl Datagrams {
    /// Takes one; `names` are those of the caller and of the server.
    pub(super) fn take(
        &mut self,
        importer: &mut Importer,
        (client, server, from): (SocketAddr, SocketAddr, Side),
        at_ns: u64,
        names: [String; 2],
        bytes: &[u8],
    ) -> Result<(), ImportError> {
        let id = match self.0.get(&(client, server)) {
            Some(id) => *id,
            None => {
                let id = importer.open(&connection("udp", at_ns, names, [client, server]))?;
                self.0.insert((client, server), id);
                id
            }
        };
        importer.bytes(id, from, at_ns, 0, bytes)
    }
}
