//! Answers the questions for names that come in datagrams: a name that does not resolve any more would keep callers from
//! coming at all.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use hickory_proto::op::ResponseCode;

use super::{Lifetime, Nearest, OnMiss, Stub, book::Cursor};
use crate::{
    model::EndSelector,
    replay::{
        exchange::{Answer, Exchange, Sent},
        wire::dns::{self, Question},
    },
};

/// Questions that were passed on and wait for their answer; older ones are forgotten.
const WAITING: usize = 64;

/// Whether a stub still answers.
type IsThere = Box<dyn Fn(&Arc<Stub>) -> bool + Send + Sync>;

/// The datagrams between one socket and one name server.
pub struct Datagrams {
    stub: Arc<Stub>,
    server: SocketAddr,
    /// Whose they are; where that is everybody, names that were not recorded are passed on.
    from: EndSelector,
    is_there: IsThere,
    /// Where each connection begins anew.
    own: Mutex<Option<Cursor>>,
    /// Questions that were passed on.
    waiting: Mutex<VecDeque<(Question, Vec<u8>)>>,
}

/// What becomes of a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// This is its answer, after a time.
    Answer(Vec<u8>, Duration),
    /// The real server is asked.
    Pass,
    /// Nothing.
    Silence,
}

impl Datagrams {
    /// Between one socket of `from` and `server`. `is_there` says whether the stub still answers.
    pub(super) fn new(
        stub: Arc<Stub>,
        server: SocketAddr,
        from: EndSelector,
        is_there: impl Fn(&Arc<Stub>) -> bool + Send + Sync + 'static,
    ) -> Self {
        stub.counts.connections.fetch_add(1, Ordering::Relaxed);
        let own = (stub.settings.lifetime == Lifetime::Connection).then(Cursor::default);
        Self {
            stub,
            server: SocketAddr::new(server.ip().to_canonical(), server.port()),
            from,
            is_there: Box::new(is_there),
            own: Mutex::new(own),
            waiting: Mutex::default(),
        }
    }

    /// The cgroup of the stub's callers, where it has one.
    pub fn cgroup(&self) -> Option<&str> {
        self.from.cgroup.as_deref()
    }

    /// Answers a datagram of the caller.
    pub fn reply(&self, request: &[u8]) -> Reply {
        let Some(question) = dns::question(request).filter(|_| (self.is_there)(&self.stub)) else {
            return Reply::Pass;
        };
        let answered = |answer: Option<Vec<u8>>, after| {
            self.stub.counts.answered.fetch_add(1, Ordering::Relaxed);
            answer.map_or(Reply::Silence, |answer| Reply::Answer(answer, after))
        };
        let nearest = match self.find(&question) {
            Ok(exchange) => {
                let after = exchange.waited.unwrap_or_default();
                let after = after.mul_f64(self.stub.settings.pace);
                return answered(dns::answer_to(request, &exchange.answer.bytes()), after);
            }
            Err(nearest) => nearest,
        };
        let name = question.parts.get("name").unwrap_or_default();
        if let Some(addresses) = self.stub.names.get(name)
            && let Some(answer) = dns::addresses_to(request, addresses)
        {
            return answered(Some(answer), Duration::ZERO);
        }
        // What everybody asks for is none of a stub's business.
        if self.from.is_empty() {
            return Reply::Pass;
        }
        self.stub
            .note_miss(&self.server.to_string(), &question.label, nearest, None);
        if self.stub.settings.on_miss == OnMiss::Fail {
            let failed = dns::failure(request, ResponseCode::ServFail);
            return failed.map_or(Reply::Silence, |answer| Reply::Answer(answer, Duration::ZERO));
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() == WAITING {
            waiting.pop_front();
        }
        waiting.push_back((question, request.to_vec()));
        Reply::Pass
    }

    /// The real server's answer to a question that was passed on.
    pub fn heard(&self, response: &[u8]) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let place = waiting
            .iter()
            .position(|(question, _)| response.starts_with(&question.id.to_be_bytes()));
        let Some((question, request)) = place.and_then(|place| waiting.remove(place)) else {
            return;
        };
        self.stub.counts.passed.fetch_add(1, Ordering::Relaxed);
        let server = self.places().next();
        if self.stub.settings.on_miss == OnMiss::Record
            && let Some(place) = server
        {
            let learned = Exchange {
                kind: question.label.clone(),
                label: question.label,
                request: question.parts,
                response: dns::answer_parts(response),
                sent: Sent::Raw(request.into()),
                answer: Answer::at_once(response.to_vec()),
                started_ns: u64::MAX,
                waited: None,
                whole: true,
            };
            self.stub.learn(&self.stub.places[place], true, learned);
        }
    }

    /// What the recorded name servers said, the one that is asked first; the nearest when none knows the name.
    fn find(&self, question: &Question) -> Result<Arc<Exchange>, Option<Nearest>> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let mut nearest = None;
        for place in self.places() {
            let place = &self.stub.places[place];
            match place.find(&question.label, &question.parts, own.as_mut()) {
                Ok(exchange) => return Ok(exchange),
                Err(found) => nearest = nearest.or(found),
            }
        }
        Err(nearest)
    }

    fn places(&self) -> impl Iterator<Item = usize> {
        let all = || {
            self.stub
                .places
                .iter()
                .enumerate()
                .filter(|(_, place)| place.is_dns())
        };
        let is_own = |address: Option<SocketAddr>| address == Some(self.server);
        let own = all().filter(move |(_, place)| is_own(place.address));
        let others = all().filter(move |(_, place)| !is_own(place.address));
        own.chain(others).map(|(index, _)| index)
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr as _;

    use hickory_proto::{
        op::{Message, MessageType, OpCode, Query},
        rr::{Name, RData, Record, RecordType, rdata::A},
    };

    use super::{super::Settings, *};
    use crate::{
        model::RawEnd,
        replay::{Matcher, Talk, wire::testing::recorded},
    };

    const SERVER: &str = "127.0.0.1:53";

    fn question(id: u16, name: &str) -> Vec<u8> {
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(Name::from_str(name).unwrap(), RecordType::A));
        message.to_vec().unwrap()
    }

    fn answer(id: u16, name: &str) -> Vec<u8> {
        let name = Name::from_str(name).unwrap();
        let mut message = Message::response(id, OpCode::Query);
        message.add_query(Query::query(name.clone(), RecordType::A));
        message.add_answer(Record::from_rdata(name, 60, RData::A(A::new(10, 0, 0, 1))));
        message.to_vec().unwrap()
    }

    /// One datagram each way, 2 ms apart.
    fn talk() -> Talk {
        let mut recorded = recorded("dns", &question(1, "api.example."), &answer(1, "api.example."));
        recorded.is_udp = true;
        recorded.server = SERVER.to_owned();
        recorded.split()
    }

    fn datagrams(on_miss: OnMiss, from: &str, server: &str) -> Datagrams {
        let settings = Settings {
            pace: 1.0,
            on_miss,
            lifetime: Lifetime::Session,
            matcher: Matcher::default(),
            kept: None,
        };
        let known = ("Known.example", "10.0.0.9".parse().unwrap());
        let stub = Stub::new(&[talk()], [known], settings);
        let from: RawEnd = serde_json::from_str(from).unwrap();
        let from = EndSelector::try_from(&from).unwrap();
        Datagrams::new(stub, server.parse().unwrap(), from, |_| true)
    }

    /// The answer's number, its records and its code, and after which time.
    fn told(reply: Reply) -> (u16, usize, ResponseCode, Duration) {
        let Reply::Answer(answer, after) = reply else {
            panic!("{reply:?}")
        };
        let message = Message::from_vec(&answer).unwrap();
        assert_eq!(message.queries.len(), 1);
        let code = message.metadata.response_code;
        (message.metadata.id, message.answers.len(), code, after)
    }

    #[test]
    fn a_recorded_name_is_answered_whatever_server_is_asked() {
        for server in [SERVER, "10.7.7.7:53"] {
            let datagrams = datagrams(OnMiss::Fail, r#"{"pid":7}"#, server);
            let reply = datagrams.reply(&question(77, "API.example."));
            let waited = Duration::from_millis(2);
            assert_eq!(told(reply), (77, 1, ResponseCode::NoError, waited));
            // It led to a recorded connection, which is all that is known of it.
            let reply = datagrams.reply(&question(78, "known.example."));
            assert_eq!(told(reply), (78, 1, ResponseCode::NoError, Duration::ZERO));
            assert!(datagrams.stub.misses().is_empty());
            assert_eq!(datagrams.stub.counts.answered.load(Ordering::Relaxed), 2);
        }
    }

    #[test]
    fn a_name_that_was_not_recorded_fails_for_those_who_were_chosen_alone() {
        let chosen = datagrams(OnMiss::Fail, r#"{"pid":7}"#, SERVER);
        let reply = chosen.reply(&question(79, "other.example."));
        assert_eq!(told(reply), (79, 0, ResponseCode::ServFail, Duration::ZERO));
        let misses = chosen.stub.misses();
        assert_eq!(misses[0].label, "A other.example");
        assert!(
            misses[0]
                .explain()
                .contains("name: recorded api.example, came other.example")
        );
        let everybody = datagrams(OnMiss::Fail, "{}", SERVER);
        assert_eq!(everybody.reply(&question(79, "other.example.")), Reply::Pass);
        assert!(everybody.stub.misses().is_empty());
        assert_eq!(chosen.reply(b"no question"), Reply::Pass);
    }

    #[test]
    fn what_the_real_server_says_is_kept_when_asked_to() {
        for (on_miss, is_kept) in [(OnMiss::Pass, false), (OnMiss::Record, true)] {
            let datagrams = datagrams(on_miss, r#"{"pid":7}"#, SERVER);
            assert_eq!(datagrams.reply(&question(5, "other.example.")), Reply::Pass);
            datagrams.heard(&answer(5, "other.example."));
            // A late one more is of nobody's question.
            datagrams.heard(&answer(5, "other.example."));
            assert_eq!(datagrams.stub.counts.passed.load(Ordering::Relaxed), 1);
            let again = datagrams.reply(&question(6, "other.example."));
            assert_eq!(again != Reply::Pass, is_kept, "{on_miss:?}");
        }
    }
}
