//! MongoDB's wire protocol (<https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/>).
//!
//! Of a document only the first few kilobytes are looked at, element by element: the name of a command is its first
//! one, and an error is a small document.

mod bson;
mod reply;

use super::{
    Key::{self, Id},
    Kind, Messages, Protocol, ProtocolName, Request, Side, Step, Verdict,
};
use bson::Value;

pub(super) const KIND: Kind = Kind {
    name: ProtocolName::MongoDb,
    ports: &[27017, 27018, 27019],
    detect,
    start: || Box::new(MongoDb::default()),
};

/// Size, number, number of what is answered, and kind of a message.
const HEAD: usize = 16;
/// A server takes 48,000,000 bytes and a little.
const SIZE_LIMIT: usize = 49 << 20;
/// Bytes of a message that are looked at.
const LOOK_LIMIT: usize = 16 * 1024;
/// Answers of several messages that are followed.
const STREAMS_LIMIT: usize = 64;

const REPLY: u32 = 1;
const UPDATE: u32 = 2001;
const INSERT: u32 = 2002;
const QUERY: u32 = 2004;
const GET_MORE: u32 = 2005;
const DELETE: u32 = 2006;
const KILL_CURSORS: u32 = 2007;
const COMPRESSED: u32 = 2012;
const MESSAGE: u32 = 2013;

/// Flags of a message: a checksum comes behind it; another one follows without being asked for.
const CHECKSUM: u32 = 1;
const MORE_TO_COME: u32 = 1 << 1;
const EXHAUST_ALLOWED: u32 = 1 << 16;

/// Commands whose first element is the name of a collection.
const OF_COLLECTION: [&str; 23] = [
    "aggregate",
    "collMod",
    "collStats",
    "compact",
    "convertToCapped",
    "count",
    "create",
    "createIndexes",
    "delete",
    "distinct",
    "drop",
    "dropIndexes",
    "find",
    "findAndModify",
    "findandmodify",
    "insert",
    "killCursors",
    "listIndexes",
    "mapReduce",
    "planCacheClear",
    "reIndex",
    "update",
    "validate",
];
/// Answers to these may follow each other for ever.
const WATCHING: [&str; 3] = ["hello", "isMaster", "ismaster"];

#[derive(Default)]
struct MongoDb {
    /// Of answers that go on: the number of the last message, and the call.
    streams: Vec<(u32, u32)>,
    /// Calls whose server goes on unasked, once it may.
    watching: Vec<u32>,
}

struct Head {
    size: usize,
    number: u32,
    answers: u32,
    kind: u32,
}

impl Protocol for MongoDb {
    fn read(&mut self, from: Side, bytes: &[u8], messages: &mut Messages<'_>) -> Step {
        let head = match head(bytes) {
            Ok(head) => head,
            Err(step) => return step,
        };
        let known = head.size.min(LOOK_LIMIT);
        let Some(message) = bytes.get(HEAD..known) else {
            return Step::Need(known);
        };
        let fits = match from {
            Side::Client => self.request(&head, message, messages),
            Side::Server => self.reply(&head, message, messages),
        };
        match fits {
            Some(()) => Step::Took {
                bytes: known,
                skip: (head.size - known) as u64,
            },
            None => Step::Lost,
        }
    }

    fn resync(&mut self, from: Side, bytes: &[u8]) -> Option<usize> {
        (0..bytes.len()).find(|at| detect(from, &bytes[*at..]) == Verdict::Yes)
    }

    fn lost(&mut self, from: Side) {
        if from == Side::Server {
            self.streams.clear();
        }
    }
}

impl MongoDb {
    fn request(&mut self, head: &Head, message: &[u8], messages: &mut Messages<'_>) -> Option<()> {
        let key = call(head.number);
        match head.kind {
            MESSAGE => {
                let (flags, document) = document(message)?;
                let request = command(document)?;
                if flags & MORE_TO_COME != 0 {
                    messages.one_way(key, request);
                } else {
                    if flags & EXHAUST_ALLOWED != 0 && WATCHING.contains(&&*request.operation) {
                        self.watch(head.number);
                    }
                    messages.whole_request(key, request);
                }
            }
            COMPRESSED => messages.whole_request(key, Request::new("OP_COMPRESSED", "")),
            QUERY => messages.whole_request(key, query(message)?),
            GET_MORE => messages.whole_request(key, Request::new("getMore", collection(message)?)),
            INSERT => messages.one_way(key, Request::new("insert", collection(message)?)),
            UPDATE => messages.one_way(key, Request::new("update", collection(message)?)),
            DELETE => messages.one_way(key, Request::new("delete", collection(message)?)),
            KILL_CURSORS => messages.one_way(key, Request::new("killCursors", "")),
            _ => return None,
        }
        Some(())
    }

    fn reply(&mut self, head: &Head, message: &[u8], messages: &mut Messages<'_>) -> Option<()> {
        let stream = self.streams.iter().position(|(last, _)| *last == head.answers);
        let number = stream.map_or(head.answers, |place| self.streams[place].1);
        let key = call(number);
        let (goes_on, status) = match head.kind {
            MESSAGE => {
                let (flags, document) = document(message)?;
                (flags & MORE_TO_COME != 0, Some(reply::status(document)))
            }
            REPLY => (false, Some(reply::old_status(message)?)),
            COMPRESSED => (false, None),
            _ => return None,
        };
        if let Some(place) = stream {
            self.streams.swap_remove(place);
        }
        messages.response(key);
        if let Some((status, failed)) = status {
            messages.status(key, status, failed);
        }
        let watching = self.watching.contains(&number);
        self.watching.retain(|watching| *watching != number);
        if goes_on && !watching && self.streams.len() < STREAMS_LIMIT {
            self.streams.push((head.number, number));
        } else {
            messages.response_end(key);
        }
        Some(())
    }

    fn watch(&mut self, number: u32) {
        if self.watching.len() >= STREAMS_LIMIT {
            self.watching.remove(0);
        }
        self.watching.push(number);
    }
}

fn call(number: u32) -> Key {
    Id(u64::from(number))
}

/// Flags and first document of a message.
fn document(message: &[u8]) -> Option<(u32, &[u8])> {
    let flags = long(message, 0)?;
    match message.get(4)? {
        0 => Some((flags, &message[5..])),
        // Documents of a sequence come first, as some clients do.
        1 => {
            let size = usize::try_from(long(message, 5)?).ok()?;
            match message.get(5..)?.get(size..) {
                Some([0, document @ ..]) => Some((flags, document)),
                _ => Some((flags, &[])),
            }
        }
        _ => None,
    }
}

/// A command, and the collection that it is about.
fn command(document: &[u8]) -> Option<Request> {
    let mut elements = bson::elements(document);
    let Some((name, value)) = elements.next() else {
        return Some(Request::new("OP_MSG", ""));
    };
    let named =
        (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !named {
        return None;
    }
    let mut request = Request::new(name, "");
    if let Value::Text(collection) = value
        && OF_COLLECTION.contains(&name)
    {
        collection.clone_into(&mut request.target);
    }
    for (other, value) in elements {
        match (other, value) {
            ("collection", Value::Text(collection)) if name == "getMore" => {
                collection.clone_into(&mut request.target)
            }
            ("$db", Value::Text(database)) => request.details.push(("database", database.to_owned())),
            _ => {}
        }
    }
    Some(request)
}

/// A message of the first versions: a command, where its collection is `$cmd`.
fn query(message: &[u8]) -> Option<Request> {
    let name = bson::name(message.get(4..)?)?;
    match name.strip_suffix(".$cmd") {
        Some(_) => command(message.get(4 + name.len() + 1 + 8..)?),
        None => Some(Request::new("query", behind_database(name))),
    }
}

fn collection(message: &[u8]) -> Option<&str> {
    bson::name(message.get(4..)?).map(behind_database)
}

fn behind_database(name: &str) -> &str {
    name.split_once('.').map_or(name, |(_, collection)| collection)
}

fn head(bytes: &[u8]) -> Result<Head, Step> {
    let part = |place: usize| long(bytes, 4 * place).ok_or(Step::Need(HEAD));
    let head = Head {
        size: part(0)? as usize,
        number: part(1)?,
        answers: part(2)?,
        kind: part(3)?,
    };
    let known =
        matches!(head.kind, REPLY | UPDATE..=KILL_CURSORS | COMPRESSED | MESSAGE) && head.kind != 2003;
    let fits = known && (HEAD + 5..=SIZE_LIMIT).contains(&head.size);
    if fits { Ok(head) } else { Err(Step::Lost) }
}

fn detect(from: Side, bytes: &[u8]) -> Verdict {
    let head = match head(bytes) {
        Ok(head) => head,
        Err(Step::Need(_)) if bytes.get(3).is_none_or(|high| *high <= 3) => return Verdict::Maybe,
        Err(_) => return Verdict::No,
    };
    let answers = from == Side::Server;
    if (head.answers != 0) != answers || (head.kind == REPLY) && !answers {
        return Verdict::No;
    }
    let message = &bytes[HEAD..];
    if head.kind != MESSAGE {
        return Verdict::Yes;
    }
    let (Some(flags), Some(section)) = (long(message, 0), message.get(4)) else {
        return Verdict::Maybe;
    };
    let known = CHECKSUM | MORE_TO_COME | EXHAUST_ALLOWED;
    match flags & !known == 0 && *section <= 1 {
        true => Verdict::Yes,
        false => Verdict::No,
    }
}

fn long(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|chunk| u32::from_le_bytes(*chunk))
}

#[cfg(test)]
mod tests;
