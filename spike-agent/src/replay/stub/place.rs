//! One recorded server, and what a stub knows of it.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use bytes::Bytes;

use super::book::{Book, Cursor, Nearest};
use crate::{
    model::EndSelector,
    protocol::ProtocolName,
    replay::{
        exchange::{Exchange, Talk},
        noise::Matcher,
        parts::Parts,
    },
};

/// A recorded server.
#[derive(Debug)]
pub(super) struct Place {
    /// As recorded.
    pub(super) server: String,
    /// The same, read; none when it is no address.
    pub(super) address: Option<SocketAddr>,
    /// The name that callers found it by.
    pub(super) host: Option<String>,
    /// The service that it was.
    pub(super) callee: String,
    /// What it speaks, the most usual first.
    pub(super) protocols: Vec<Option<ProtocolName>>,
    /// What it says before anything is asked.
    pub(super) greeting: Bytes,
    /// Of bytes that no protocol is known for: the conversations, as they are answered in their order.
    pub(super) conversations: Vec<Talk>,
    book: RwLock<Book>,
    session: Mutex<Cursor>,
}

/// The servers of a recording.
pub(super) fn places(talks: &[Talk], matcher: &Matcher) -> Vec<Place> {
    let mut by_server = BTreeMap::<&str, Vec<&Talk>>::new();
    for talk in talks {
        by_server.entry(&talk.server).or_default().push(talk);
    }
    let place = |(server, talks): (&str, Vec<&Talk>)| {
        let mut protocols: Vec<(Option<ProtocolName>, usize)> = Vec::new();
        for talk in talks
            .iter()
            .filter(|talk| !talk.exchanges.is_empty() || !talk.greeting.is_empty())
        {
            match protocols.iter_mut().find(|(known, _)| *known == talk.protocol) {
                Some((_, count)) => *count += 1,
                None => protocols.push((talk.protocol, 1)),
            }
        }
        protocols.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let greeting = talks.iter().map(|talk| &talk.greeting);
        let unknown = talks.iter().filter(|talk| talk.protocol.is_none());
        let known = talks.iter().filter(|talk| talk.protocol.is_some());
        Place {
            server: server.to_owned(),
            address: server
                .parse()
                .ok()
                .map(|address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port())),
            host: talks.iter().find_map(|talk| talk.host.clone()),
            callee: talks.first().map_or_else(String::new, |talk| talk.callee.clone()),
            protocols: protocols.into_iter().map(|(name, _)| name).collect(),
            greeting: greeting
                .into_iter()
                .find(|greeting| !greeting.is_empty())
                .cloned()
                .unwrap_or_default(),
            conversations: unknown.map(|talk| (*talk).clone()).collect(),
            book: RwLock::new(Book::new(known.copied(), matcher)),
            session: Mutex::default(),
        }
    };
    by_server.into_iter().map(place).collect()
}

impl Place {
    /// Whether names are asked for here.
    pub(super) fn is_dns(&self) -> bool {
        self.protocols.contains(&Some(ProtocolName::Dns))
    }

    /// Whether it was of the service or host that is chosen, by the names of the recording.
    pub(super) fn is_of(&self, to: &EndSelector, address: SocketAddr) -> bool {
        let by_name = EndSelector {
            service: None,
            host: None,
            ..to.clone()
        };
        let of_service = to.service.as_ref().map(|service| service.matches(&self.callee));
        let host = self.host.as_deref().map(str::to_ascii_lowercase);
        let of_host = to
            .host
            .as_ref()
            .map(|name| host.as_ref().is_some_and(|host| name.matches(host)));
        let names = [of_service, of_host];
        names.iter().any(Option::is_some)
            && names.iter().flatten().all(|is_it| *is_it)
            && by_name.matches_destination(&address)
    }

    /// How many different requests are recorded.
    pub(super) fn requests(&self) -> usize {
        let book = self.book.read().unwrap_or_else(PoisonError::into_inner);
        book.len() + self.conversations.len()
    }

    pub(super) fn restart(&self) {
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = Cursor::default();
    }

    /// The next answer to a request, of the connection's own order when it has one.
    pub(super) fn find(
        &self,
        kind: &str,
        request: &Parts,
        own: Option<&mut Cursor>,
    ) -> Result<Arc<Exchange>, Option<Nearest>> {
        let book = self.book.read().unwrap_or_else(PoisonError::into_inner);
        match own {
            Some(cursor) => book.find(kind, request, cursor),
            None => {
                let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
                book.find(kind, request, &mut session)
            }
        }
    }

    /// Keeps an answer for the next such request.
    pub(super) fn learn(&self, exchange: Arc<Exchange>) {
        let mut book = self.book.write().unwrap_or_else(PoisonError::into_inner);
        book.add(exchange);
    }
}
