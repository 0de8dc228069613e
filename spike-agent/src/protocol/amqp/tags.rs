//! Messages that are confirmed: published ones by the server, delivered ones by the client.

use std::collections::VecDeque;

use super::{Messages, Side, answered, method::Arguments};

/// Messages of a side that are not confirmed yet; of more it isn't told when they are.
const OPEN_LIMIT: usize = 384;
/// Consumers, and channels that publish with confirms.
const NAMES_LIMIT: usize = 256;

#[derive(Default)]
pub(super) struct Tags {
    /// Channels where the server confirms, and how many messages were published there.
    confirmed: VecDeque<(u16, u64)>,
    /// Consumers that acknowledge.
    consumers: VecDeque<(u16, Vec<u8>)>,
    published: Vec<Tag>,
    delivered: Vec<Tag>,
}

struct Tag {
    channel: u16,
    tag: u64,
    call: u64,
    /// Why the server sent it back, if it did.
    returned: Option<String>,
}

impl Tags {
    /// A part of a side's stream is gone: neither what it said of the other's messages is known, nor how many it sent.
    pub(super) fn lost(&mut self, from: Side) {
        match from {
            Side::Client => {
                self.confirmed.clear();
                self.delivered.clear();
            }
            Side::Server => self.published.clear(),
        }
    }

    pub(super) fn confirm(&mut self, channel: u16) {
        if self.confirmed.iter().any(|(known, _)| *known == channel) {
            return;
        }
        if self.confirmed.len() >= NAMES_LIMIT {
            self.confirmed.pop_front();
        }
        self.confirmed.push_back((channel, 0));
    }

    /// A channel begins with nothing.
    pub(super) fn opened(&mut self, channel: u16) {
        self.confirmed.retain(|(known, _)| *known != channel);
        self.consumers.retain(|(known, _)| *known != channel);
        self.published.retain(|tag| tag.channel != channel);
        self.delivered.retain(|tag| tag.channel != channel);
    }

    pub(super) fn consumes(&mut self, channel: u16, consumer: &[u8]) {
        if self.consumers.len() >= NAMES_LIMIT {
            self.consumers.pop_front();
        }
        self.consumers.push_back((channel, consumer.to_vec()));
    }

    /// Whether the message will be confirmed.
    pub(super) fn published(&mut self, channel: u16, call: u64) -> bool {
        let Some((_, count)) = self.confirmed.iter_mut().find(|(known, _)| *known == channel) else {
            return false;
        };
        *count += 1;
        let tag = *count;
        add(&mut self.published, channel, tag, call)
    }

    /// Whether the message will be acknowledged.
    pub(super) fn delivered(&mut self, channel: u16, consumer: &[u8], tag: u64, call: u64) -> bool {
        let acknowledges = |(known, name): &(u16, Vec<u8>)| *known == channel && name == consumer;
        self.consumers.iter().any(acknowledges) && add(&mut self.delivered, channel, tag, call)
    }

    /// A message comes back; which one is sure where only one is open.
    pub(super) fn returned(&mut self, channel: u16, arguments: &mut Arguments<'_>) -> Option<()> {
        let reason = arguments.reason()?;
        let mut of_channel = self.published.iter_mut().filter(|tag| tag.channel == channel);
        if let (Some(tag), None) = (of_channel.next(), of_channel.next()) {
            tag.returned = Some(reason);
        }
        Some(())
    }

    /// `basic.ack`, `basic.reject` and `basic.nack`.
    pub(super) fn settle(
        &mut self,
        from: Side,
        channel: u16,
        method: u16,
        arguments: &mut Arguments<'_>,
        messages: &mut Messages<'_>,
    ) -> Option<()> {
        let last = arguments.tag()?;
        let multiple = method != 90 && arguments.bits() & 1 == 1;
        let (word, failed) = match method {
            80 => ("ack", false),
            90 => ("reject", true),
            _ => ("nack", true),
        };
        let open = match from {
            Side::Server => &mut self.published,
            Side::Client => &mut self.delivered,
        };
        let settled = |tag: &Tag| {
            tag.channel == channel && (tag.tag == last || multiple && (tag.tag < last || last == 0))
        };
        for tag in open.iter().filter(|tag| settled(tag)) {
            match &tag.returned {
                Some(reason) => answered(messages, tag.call, reason.clone(), true),
                None => answered(messages, tag.call, word.to_owned(), failed),
            }
        }
        open.retain(|tag| !settled(tag));
        Some(())
    }

    /// The calls of the other side that end with a channel, or with all.
    pub(super) fn closed(&mut self, from: Side, channel: u16, all: bool) -> Vec<u64> {
        let of_it = |tag: &Tag| all || tag.channel == channel;
        let open = match from {
            Side::Server => &mut self.published,
            Side::Client => &mut self.delivered,
        };
        let calls = open.iter().filter(|tag| of_it(tag)).map(|tag| tag.call).collect();
        self.published.retain(|tag| !of_it(tag));
        self.delivered.retain(|tag| !of_it(tag));
        calls
    }
}

fn add(open: &mut Vec<Tag>, channel: u16, tag: u64, call: u64) -> bool {
    if open.len() >= OPEN_LIMIT {
        return false;
    }
    open.push(Tag {
        channel,
        tag,
        call,
        returned: None,
    });
    true
}
