//! How a protocol says what it saw in a step.

use super::{Call, ProtocolName, Trace, call};

/// How a response finds its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// Responses come in the order of the requests.
    Order,
    /// By a number, unique among the open calls of the side that asked: a stream, a correlation id.
    Id(u64),
}

/// What is known of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Method, verb or command; empty leaves what was said before.
    pub operation: String,
    /// What it is done to, with few distinct values; empty leaves what was said before.
    pub target: String,
    /// If another one than the conversation's: one that it carries.
    pub protocol: Option<ProtocolName>,
    /// The caller's trace.
    pub trace: Option<Trace>,
    /// Names and values; kept while there is room.
    pub details: Vec<(&'static str, String)>,
}

impl Request {
    /// A request with a name alone.
    pub fn new(operation: impl Into<String>, target: impl Into<String>) -> Self {
        Self {
            operation: operation.into(),
            target: target.into(),
            ..Self::default()
        }
    }

    pub(super) fn describe(self, call: &mut Call) {
        if !self.operation.is_empty() {
            call.operation = call::bounded(self.operation);
        }
        if !self.target.is_empty() {
            call.target = call::bounded(self.target);
        }
        call.protocol = self.protocol.unwrap_or(call.protocol);
        call.trace = self.trace.or(call.trace.take());
        for (name, value) in self.details {
            call.details.set(name, value);
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    Request(Key, Request),
    Describe(Key, Request),
    NoResponse(Key),
    RequestEnd(Key),
    Cancel(Key),
    Response(Key),
    Status(Key, String, bool),
    ResponseEnd(Key),
    Skipped(Key, String, bool),
}

impl Event {
    /// Whether it happens with the last byte of the step, and not with the first.
    pub(super) fn is_end(&self) -> bool {
        matches!(
            self,
            Self::RequestEnd(_) | Self::ResponseEnd(_) | Self::Cancel(_) | Self::Skipped(..)
        )
    }
}

/// What happened in a step; the step's bytes count for the message that is named first, else for the one that is open.
///
/// `request…` speaks of calls that the step's side began, `response…` of calls that the other side began.
pub struct Messages<'a> {
    pub(super) events: &'a mut Vec<Event>,
    pub(super) asked: Option<&'a str>,
}

impl Messages<'_> {
    /// A request starts with the first byte of the step.
    pub fn request(&mut self, key: Key, request: Request) {
        self.events.push(Event::Request(key, request));
    }

    /// More is known of a call that began: one that this side asked for or, if there is none, the other one.
    pub fn describe(&mut self, key: Key, request: Request) {
        self.events.push(Event::Describe(key, request));
    }

    /// The request that began is not answered: its call is over when it ends.
    pub fn no_response(&mut self, key: Key) {
        self.events.push(Event::NoResponse(key));
    }

    /// The request ends with the last byte of the step.
    pub fn request_end(&mut self, key: Key) {
        self.events.push(Event::RequestEnd(key));
    }

    /// The side that asked gives its call up.
    pub fn cancel(&mut self, key: Key) {
        self.events.push(Event::Cancel(key));
    }

    /// A request from its first to its last byte.
    pub fn whole_request(&mut self, key: Key, request: Request) {
        self.request(key, request);
        self.request_end(key);
    }

    /// A message that is never answered.
    pub fn one_way(&mut self, key: Key, request: Request) {
        self.request(key, request);
        self.no_response(key);
        self.request_end(key);
    }

    /// A response starts with the first byte of the step; said of one that has started, it changes nothing.
    pub fn response(&mut self, key: Key) {
        self.events.push(Event::Response(key));
    }

    /// How the call went.
    pub fn status(&mut self, key: Key, status: impl Into<String>, failed: bool) {
        self.events.push(Event::Status(key, status.into(), failed));
    }

    /// The response, and so the call, ends with the last byte of the step.
    pub fn response_end(&mut self, key: Key) {
        self.events.push(Event::ResponseEnd(key));
    }

    /// With this step a call is over and will have no response, or no more of it: one that the other side asked for or,
    /// if there is none, this one. May be said of several calls.
    pub fn skipped(&mut self, key: Key, status: impl Into<String>, failed: bool) {
        self.events.push(Event::Skipped(key, status.into(), failed));
    }

    /// The operation that the next response in order from this side answers, if known.
    pub fn asked(&self) -> Option<&str> {
        self.asked
    }
}
