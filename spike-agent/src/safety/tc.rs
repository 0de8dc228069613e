//! Lists and removes qdiscs and filters of an interface over netlink; works in the calling thread's network namespace.
//!
//! aya adds these and forgets them with its process, and the netlink crates refuse whole answers over a filter kind that
//! they do not know, so the little that is needed is spelled out here.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use netlink_packet_core::{
    DecodeError, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkDeserializable,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable, NlasIterator,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use rustix::net::sockopt::{Timeout, set_socket_timeout};

use super::journal::Direction;

/// From `linux/pkt_sched.h`.
const TC_H_ROOT: u32 = 0xffff_ffff;
const TC_H_CLSACT: u32 = 0xffff_fff1;
const CLSACT_HANDLE: u32 = 0xffff_0000;
/// From `linux/rtnetlink.h` and `linux/pkt_cls.h`.
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_NAME: u16 = 7;
/// Every program of Spike is named so, and aya names a filter after its program.
const SPIKES: &str = "spike_";
/// The handle of the fq qdisc that is put on an interface: tells it from everybody else's.
const FQ_HANDLE: u32 = 0x5350_0000;
/// Attributes of fq, and what Spike sets: room for packets that wait, and no pacing of its own (`linux/pkt_sched.h`).
const FQ_OPTIONS: [(u16, u32); 3] = [
    (1, 200_000), // TCA_FQ_PLIMIT, packets in all
    (2, 100_000), // TCA_FQ_FLOW_PLIMIT, packets of a flow
    (5, 0),       // TCA_FQ_RATE_ENABLE
];

/// A filter of an interface's clsact qdisc.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) ifindex: u32,
    pub(crate) direction: Direction,
    pub(crate) handle: u32,
    pub(crate) priority: u16,
    /// In network byte order, as the kernel gives it.
    protocol: u16,
    /// Of a BPF filter: the name that it was given, mostly its program's.
    pub(crate) name: Option<String>,
}

impl Filter {
    /// Whether it can only be Spike's, by its name.
    pub(crate) fn is_spikes(&self) -> bool {
        self.name.as_ref().is_some_and(|name| name.starts_with(SPIKES))
    }
}

/// What an interface's packets go through before they leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Root {
    /// fq, or several of them, whoever put it there.
    Fq,
    /// What the kernel gave it, and gives it again when another root is taken away.
    Default,
    /// Another kind, which someone has configured.
    Configured(String),
}

/// A qdisc as it hangs on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// It replaces the interface's own queue.
    Root,
    /// It holds the filters on both ways and queues nothing.
    Clsact,
}

/// A conversation with the kernel about traffic control.
pub(crate) struct Tc {
    socket: Socket,
}

impl Tc {
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // The kernel's answer cannot be longer in coming than this; without it a lost one would hang us.
        let timeout = Duration::from_secs(5);
        // SAFETY: the descriptor is the socket's and lives as long as the borrow.
        let fd = unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) };
        set_socket_timeout(fd, Timeout::Recv, Some(timeout))?;
        Ok(Self { socket })
    }

    /// The interfaces that have a clsact qdisc.
    pub(crate) fn clsacts(&self) -> io::Result<Vec<u32>> {
        let qdiscs = self.call(libc::RTM_GETQDISC, NLM_F_DUMP, Message::default())?;
        let clsacts = qdiscs
            .into_iter()
            .filter(|qdisc| qdisc.kind.as_deref() == Some("clsact"));
        Ok(clsacts.map(|qdisc| qdisc.ifindex).collect())
    }

    /// The filters of an interface's clsact qdisc, both ways.
    pub(crate) fn filters(&self, ifindex: u32) -> io::Result<Vec<Filter>> {
        let mut found = Vec::new();
        for direction in [Direction::Ingress, Direction::Egress] {
            let of_parent = Message {
                ifindex,
                parent: parent(direction),
                ..Message::default()
            };
            let messages = self.call(libc::RTM_GETTFILTER, NLM_F_DUMP, of_parent)?;
            // Handle 0 announces a priority; the filters of it follow.
            found.extend(
                messages
                    .into_iter()
                    .filter(|message| message.handle != 0)
                    .map(|message| Filter {
                        ifindex,
                        direction,
                        handle: message.handle,
                        priority: (message.info >> 16) as u16,
                        protocol: message.info as u16,
                        name: message.name,
                    }),
            );
        }
        Ok(found)
    }

    /// Removes a filter that was listed.
    pub(crate) fn delete_filter(&self, filter: &Filter) -> io::Result<()> {
        self.call(
            libc::RTM_DELTFILTER,
            NLM_F_ACK,
            Message {
                ifindex: filter.ifindex,
                handle: filter.handle,
                parent: parent(filter.direction),
                info: u32::from(filter.priority) << 16 | u32::from(filter.protocol),
                kind: Some("bpf".to_owned()),
                ..Message::default()
            },
        )
        .map(drop)
    }

    /// Removes an interface's clsact qdisc with all filters in it.
    pub(crate) fn delete_clsact(&self, ifindex: u32) -> io::Result<()> {
        let qdisc = Message {
            ifindex,
            handle: CLSACT_HANDLE,
            parent: TC_H_CLSACT,
            ..Message::default()
        };
        self.call(libc::RTM_DELQDISC, NLM_F_ACK, qdisc).map(drop)
    }

    /// Adds a qdisc without options; `ENOENT` says that the kernel does not know the kind.
    pub(crate) fn add_qdisc(&self, ifindex: u32, kind: &str, place: Place) -> io::Result<()> {
        let (handle, parent) = match place {
            Place::Root => (0, TC_H_ROOT),
            Place::Clsact => (CLSACT_HANDLE, TC_H_CLSACT),
        };
        let qdisc = Message {
            ifindex,
            handle,
            parent,
            kind: Some(kind.to_owned()),
            ..Message::default()
        };
        self.call(libc::RTM_NEWQDISC, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, qdisc)
            .map(drop)
    }

    /// What kind of root an interface has.
    pub(crate) fn root(&self, ifindex: u32) -> io::Result<Root> {
        let qdiscs = self.call(libc::RTM_GETQDISC, NLM_F_DUMP, Message::default())?;
        let here: Vec<&Message> = qdiscs.iter().filter(|qdisc| qdisc.ifindex == ifindex).collect();
        let Some(root) = here.iter().find(|qdisc| qdisc.parent == TC_H_ROOT) else {
            return Ok(Root::Default);
        };
        let is_fq = |qdisc: &&Message| qdisc.kind.as_deref() == Some("fq");
        let kind = root.kind.as_deref().unwrap_or_default();
        // A card with several queues has a qdisc for each of them.
        let mut queues = here
            .iter()
            .filter(|qdisc| qdisc.parent != TC_H_ROOT && qdisc.parent >> 16 == root.handle >> 16)
            .peekable();
        if is_fq(root) || kind == "mq" && queues.peek().is_some() && queues.all(is_fq) {
            return Ok(Root::Fq);
        }
        // A handle is given to what is configured, and to nothing else.
        Ok(if root.handle == 0 {
            Root::Default
        } else {
            Root::Configured(kind.to_owned())
        })
    }

    /// Makes fq an interface's root; `ENOENT` says that the kernel does not know it.
    pub(crate) fn add_fq(&self, ifindex: u32) -> io::Result<()> {
        let qdisc = Message {
            ifindex,
            handle: FQ_HANDLE,
            parent: TC_H_ROOT,
            kind: Some("fq".to_owned()),
            options: &FQ_OPTIONS,
            ..Message::default()
        };
        self.call(libc::RTM_NEWQDISC, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, qdisc)
            .map(drop)
    }

    /// Whether an interface's root is what [`Tc::add_fq`] put there.
    pub(crate) fn has_our_fq(&self, ifindex: u32) -> io::Result<bool> {
        let qdiscs = self.call(libc::RTM_GETQDISC, NLM_F_DUMP, Message::default())?;
        Ok(qdiscs.iter().any(|qdisc| {
            qdisc.ifindex == ifindex
                && qdisc.parent == TC_H_ROOT
                && qdisc.handle == FQ_HANDLE
                && qdisc.kind.as_deref() == Some("fq")
        }))
    }

    /// Takes away what [`Tc::add_fq`] put on an interface; the kernel gives it its default root again.
    pub(crate) fn delete_fq(&self, ifindex: u32) -> io::Result<()> {
        let qdisc = Message {
            ifindex,
            handle: FQ_HANDLE,
            parent: TC_H_ROOT,
            ..Message::default()
        };
        self.call(libc::RTM_DELQDISC, NLM_F_ACK, qdisc).map(drop)
    }

    /// Asks for a filter without options on an interface with clsact; `ENOENT` says that the kernel does not know the kind.
    pub(crate) fn add_empty_filter(&self, ifindex: u32, kind: &str) -> io::Result<()> {
        let info = 1 << 16 | u32::from((libc::ETH_P_ALL as u16).to_be());
        let parent = parent(Direction::Ingress);
        let filter = Message {
            ifindex,
            parent,
            info,
            kind: Some(kind.to_owned()),
            ..Message::default()
        };
        self.call(
            libc::RTM_NEWTFILTER,
            NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL,
            filter,
        )
        .map(drop)
    }

    /// Sends one request and collects the answer to its end.
    fn call(&self, kind: u16, flags: u16, message: Message) -> io::Result<Vec<Message>> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = 1;
        let mut request =
            NetlinkMessage::new(header, NetlinkPayload::InnerMessage(Request { kind, message }));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;

        let mut answers = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            let mut rest = &datagram[..];
            while !rest.is_empty() {
                let message = NetlinkMessage::<Request>::deserialize(rest).map_err(io::Error::other)?;
                rest = rest
                    .get((message.header.length as usize).next_multiple_of(4)..)
                    .unwrap_or_default();
                match message.payload {
                    NetlinkPayload::InnerMessage(answer) => answers.push(answer.message),
                    NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(answers),
                    _ => {}
                }
            }
        }
    }
}

fn parent(direction: Direction) -> u32 {
    match direction {
        Direction::Ingress => 0xffff_fff2,
        Direction::Egress => 0xffff_fff3,
    }
}

/// A `struct tcmsg` with the attributes that matter here.
#[derive(Debug, Default)]
struct Message {
    ifindex: u32,
    handle: u32,
    parent: u32,
    /// Of a filter: priority in the upper half, protocol in the lower.
    info: u32,
    kind: Option<String>,
    /// Of a request: numbers of options, and their values.
    options: &'static [(u16, u32)],
    name: Option<String>,
}

/// A message with its type, as the netlink crate wants it.
#[derive(Debug)]
struct Request {
    kind: u16,
    message: Message,
}

/// Length of a `struct tcmsg`.
const TCMSG: usize = 20;
/// Length of an attribute whose value is a number.
const OPTION: usize = 8;

impl Request {
    /// Length of the attribute with the kind, 0 without.
    fn kind_len(&self) -> usize {
        let kind = self.message.kind.as_ref();
        kind.map_or(0, |kind| (4 + kind.len() + 1).next_multiple_of(4))
    }
}

impl NetlinkSerializable for Request {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        let options = match self.message.options.len() {
            0 => 0,
            count => 4 + count * OPTION,
        };
        TCMSG + self.kind_len() + options
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let Message {
            ifindex,
            handle,
            parent,
            info,
            kind,
            options,
            name: _,
        } = &self.message;
        buffer.fill(0);
        for (at, value) in [(4, ifindex), (8, handle), (12, parent), (16, info)] {
            buffer[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        }
        if let Some(kind) = kind {
            let len = (4 + kind.len() + 1) as u16;
            buffer[TCMSG..TCMSG + 2].copy_from_slice(&len.to_ne_bytes());
            buffer[TCMSG + 2..TCMSG + 4].copy_from_slice(&TCA_KIND.to_ne_bytes());
            buffer[TCMSG + 4..TCMSG + 4 + kind.len()].copy_from_slice(kind.as_bytes());
        }
        if options.is_empty() {
            return;
        }
        let mut rest = &mut buffer[TCMSG + self.kind_len()..];
        let mut put = |length: usize, number: u16, value: &[u8]| {
            let (attribute, after) = std::mem::take(&mut rest).split_at_mut(4 + value.len());
            attribute[..2].copy_from_slice(&(length as u16).to_ne_bytes());
            attribute[2..4].copy_from_slice(&number.to_ne_bytes());
            attribute[4..].copy_from_slice(value);
            rest = after;
        };
        // Its value is the attributes that follow.
        put(4 + options.len() * OPTION, TCA_OPTIONS, &[]);
        for (number, value) in *options {
            put(OPTION, *number, &value.to_ne_bytes());
        }
    }
}

impl NetlinkDeserializable for Request {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        let (fixed, attributes) = payload
            .split_at_checked(TCMSG)
            .ok_or_else(|| DecodeError::from("shorter than a tcmsg"))?;
        let number = |at: usize| u32::from_ne_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
        let kind = attribute(attributes, TCA_KIND).map(|value| text(&value));
        let name = match kind.as_deref() {
            Some("bpf") => attribute(attributes, TCA_OPTIONS)
                .and_then(|options| attribute(&options, TCA_BPF_NAME))
                .map(|value| text(&value)),
            _ => None, // the number means something else there
        };
        let message = Message {
            ifindex: number(4),
            handle: number(8),
            parent: number(12),
            info: number(16),
            kind,
            options: &[],
            name,
        };
        Ok(Self {
            kind: header.message_type,
            message,
        })
    }
}

/// The value of the first attribute with this number; none too when the attributes are malformed before it.
fn attribute(attributes: &[u8], number: u16) -> Option<Vec<u8>> {
    NlasIterator::new(attributes)
        .map_while(Result::ok)
        .find(|attribute| attribute.kind() == number)
        .map(|attribute| attribute.value().to_vec())
}

/// Up to the first NUL.
fn text(value: &[u8]) -> String {
    let value = value.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(value).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::safety::netns;

    /// `lo` of a namespace that was just made.
    const LO: u32 = 1;

    #[test]
    #[ignore = "needs root: run by cargo xtask test"]
    fn clsact_comes_and_goes() {
        netns::inside_new(|| {
            let tc = Tc::open().unwrap();
            assert!(tc.clsacts().unwrap().is_empty());
            tc.add_qdisc(LO, "clsact", Place::Clsact).unwrap();
            assert_eq!(tc.clsacts().unwrap(), [LO]);
            assert!(tc.filters(LO).unwrap().is_empty());
            tc.delete_clsact(LO).unwrap();
            assert!(tc.clsacts().unwrap().is_empty());
        })
        .unwrap();
    }

    #[test]
    #[ignore = "needs root: run by cargo xtask test"]
    fn a_configured_root_is_told_from_the_kernels_own() {
        netns::inside_new(|| {
            let tc = Tc::open().unwrap();
            assert_eq!(tc.root(LO).unwrap(), Root::Default);
            tc.add_qdisc(LO, "pfifo", Place::Root).unwrap();
            assert_eq!(tc.root(LO).unwrap(), Root::Configured("pfifo".to_owned()));
            assert!(!tc.has_our_fq(LO).unwrap());
        })
        .unwrap();
    }

    /// Where the kernel has fq; elsewhere it says so and changes nothing.
    #[test]
    #[ignore = "needs root: run by cargo xtask test"]
    fn fq_comes_and_goes() {
        netns::inside_new(|| {
            let tc = Tc::open().unwrap();
            match tc.add_fq(LO) {
                Ok(()) => {
                    assert_eq!(tc.root(LO).unwrap(), Root::Fq);
                    assert!(tc.has_our_fq(LO).unwrap());
                    tc.delete_fq(LO).unwrap();
                }
                Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ENOENT)),
            }
            assert_eq!(tc.root(LO).unwrap(), Root::Default);
        })
        .unwrap();
    }

    #[test]
    #[ignore = "needs root: run by cargo xtask test"]
    fn unknown_qdisc_is_told_from_a_bad_request() {
        let error = netns::inside_new(|| {
            Tc::open()
                .unwrap()
                .add_qdisc(LO, "nonesuch", Place::Root)
                .unwrap_err()
        });
        assert_eq!(error.unwrap().raw_os_error(), Some(libc::ENOENT));
    }
}
