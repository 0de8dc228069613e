//! Kafka's protocol (<https://kafka.apache.org/protocol>).
//!
//! A request says which API and which version of it, an answer only the number of its request: what was asked is kept
//! until then.

mod api;
mod detect;
mod fields;

use std::collections::VecDeque;

use super::{Key::Id, Kind, Messages, Protocol, ProtocolName, Request, Side, Step};
use fields::Fields;

pub(super) const KIND: Kind = Kind {
    name: ProtocolName::Kafka,
    ports: &[9092, 9093, 19092, 29092],
    detect: detect::detect,
    start: || Box::new(Kafka::default()),
};

/// Size of a message's own size.
const SIZE: usize = 4;
/// Far above what brokers take.
const SIZE_LIMIT: usize = 512 << 20;
/// Bytes of a message that are looked at.
const LOOK_LIMIT: usize = 1024;
/// Requests that are not answered yet; clients stop at 5, or a few more.
const ASKED_LIMIT: usize = 256;

#[derive(Default)]
struct Kafka {
    asked: VecDeque<Asked>,
}

struct Asked {
    number: u32,
    api: u16,
    version: u16,
}

/// The start of a request.
struct Head<'a> {
    api: u16,
    version: u16,
    number: u32,
    client: Option<&'a [u8]>,
    rest: Fields<'a>,
}

impl Protocol for Kafka {
    fn read(&mut self, from: Side, bytes: &[u8], messages: &mut Messages<'_>) -> Step {
        let size = match size(bytes) {
            Ok(size) => size,
            Err(step) => return step,
        };
        let known = SIZE + size.min(LOOK_LIMIT);
        let Some(message) = bytes.get(SIZE..known) else {
            return Step::Need(known);
        };
        let fits = match from {
            Side::Client => self.request(message, messages),
            Side::Server => self.answer(message, messages),
        };
        match fits {
            Some(()) => Step::Took {
                bytes: known,
                skip: (SIZE + size - known) as u64,
            },
            None => Step::Lost,
        }
    }

    fn resync(&mut self, from: Side, bytes: &[u8]) -> Option<usize> {
        let asked = |number| self.asked.iter().any(|asked| asked.number == number);
        (0..bytes.len()).find(|at| match from {
            Side::Client => detect::are_requests(&bytes[*at..]),
            Side::Server => detect::are_answers(&bytes[*at..], asked),
        })
    }
}

impl Kafka {
    fn request(&mut self, message: &[u8], messages: &mut Messages<'_>) -> Option<()> {
        let head = Head::read(message)?;
        let (mut request, answered) = api::request(&head)?;
        if let Some(client) = head.client.filter(|client| !client.is_empty()) {
            let client = String::from_utf8_lossy(client).into_owned();
            request.details.push(("client", client));
        }
        let call = Id(u64::from(head.number));
        if !answered {
            messages.one_way(call, request);
            return Some(());
        }
        messages.whole_request(call, request);
        if self.asked.len() >= ASKED_LIMIT {
            self.asked.pop_front();
        }
        self.asked.push_back(Asked {
            number: head.number,
            api: head.api,
            version: head.version,
        });
        Some(())
    }

    fn answer(&mut self, message: &[u8], messages: &mut Messages<'_>) -> Option<()> {
        let (number, rest) = message.split_first_chunk()?;
        let number = u32::from_be_bytes(*number);
        let call = Id(u64::from(number));
        messages.response(call);
        if let Some(place) = self.asked.iter().position(|asked| asked.number == number) {
            let asked = self.asked.remove(place)?;
            if let Some(code) = api::error(asked.api, asked.version, Fields::new(rest)) {
                messages.status(call, api::error_name(code), api::is_failure(code));
            }
        }
        messages.response_end(call);
        Some(())
    }
}

impl<'a> Head<'a> {
    fn read(message: &'a [u8]) -> Option<Self> {
        let mut rest = Fields::new(message);
        let (api, version, number) = (rest.short()?, rest.short()?, rest.long()?);
        let client = rest.nullable()?;
        Some(Self {
            api,
            version,
            number,
            client,
            rest,
        })
    }
}

fn size(bytes: &[u8]) -> Result<usize, Step> {
    let head = bytes.first_chunk::<SIZE>().ok_or(Step::Need(SIZE))?;
    let size = u32::from_be_bytes(*head) as usize;
    if (4..=SIZE_LIMIT).contains(&size) {
        Ok(size)
    } else {
        Err(Step::Lost)
    }
}

#[cfg(test)]
mod tests;
