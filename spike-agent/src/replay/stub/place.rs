//! One recorded server, and what a stub knows of it.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use bytes::Bytes;

use super::book::{Book, Cursor, Nearest};
use crate::{
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
