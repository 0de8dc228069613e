//! One selector as the rules that the kernel can look up for it: it falls under the selector's rules if it is chosen.

use std::net::IpAddr;

use ipnet::IpNet;
use spike_common::{
    address::{Address, MAPPED_WORD},
    name::NameHash,
    rule::{
        ADDRESS, CGROUP, COMM, EXECUTABLE, FIXED_BITS, LEAF, NAME, NAMED, NETNS, PORT, PREFIX, REDIRECT,
        REDIRECT_DATAGRAMS, RuleKey, RuleValue, TGID, UID,
    },
    task::{EXECUTABLE_LEN, comm, executable_hash, padded},
};

use super::{Capabilities, Identities};
use crate::model::{EndSelector, NamePattern, PortRange, ProcessPattern, Selector, User};

/// Most addresses or ports that one selector's destination is spread over; with more it is left to the agent.
const MAX_SPREAD: usize = 4096;

/// What looks a rule up: they know different things of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    /// Knows the caller as it is, and its names.
    Connect,
    /// Knows what was noted of a flow.
    Tap,
}

/// One rule before it meets those with the same key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draft {
    pub(super) key: RuleKey,
    /// First and last port.
    ports: (u16, u16),
    /// The rule says all that the selector says.
    pub(super) is_exact: bool,
    pub(super) kernel_fault: Option<u32>,
    pub(super) datagrams: bool,
    pub(super) deadline_ns: u64,
    /// Hash of an executable that is left to another rule.
    unless_executable: u64,
}

impl Draft {
    /// The rules of a selector, without its cgroup; none while nothing that it names is there.
    pub(super) fn all(
        selector: &Selector,
        hook: Hook,
        can: &Capabilities,
        known: &dyn Identities,
    ) -> Vec<Self> {
        let mut base = Self {
            key: RuleKey::default(),
            ports: (0, u16::MAX),
            is_exact: true,
            kernel_fault: None,
            datagrams: false,
            deadline_ns: u64::MAX,
            unless_executable: 0,
        };
        base.name_ports(selector.to.port);
        if let Some(network) = selector.to.cidr {
            base.name_network(network);
        }
        let callers = base.callers(&selector.from, hook, can, known);
        let called = |draft: Self| draft.called(&selector.to, hook, known);
        callers.into_iter().flat_map(called).collect()
    }

    /// Spread over what `from` may mean.
    fn callers(
        mut self,
        from: &EndSelector,
        hook: Hook,
        can: &Capabilities,
        known: &dyn Identities,
    ) -> Vec<Self> {
        let left_to_the_agent = [&from.service, &from.container, &from.unit, &from.host];
        if left_to_the_agent.iter().any(|key| key.is_some()) || from.cidr.is_some() || from.port.is_some() {
            self.is_exact = false;
        }
        if let Some(pid) = from.pid {
            self.key.mask |= TGID;
            self.key.tgid = pid;
        }
        if let Some(user) = &from.user {
            let uid = match user {
                User::Id(id) => Some(*id),
                User::Name(name) => known.uid(name),
            };
            let Some(uid) = uid else { return Vec::new() };
            self.key.mask |= UID;
            self.key.uid = uid;
        }
        let drafts = match &from.process {
            Some(pattern) => self.processes(pattern, hook, can, known),
            None => vec![self],
        };
        match &from.netns {
            None => drafts,
            Some(netns) if hook == Hook::Connect => {
                let cookies = known.netns_cookies(netns);
                let within = |draft: &Self, &cookie: &u64| {
                    let mut draft = *draft;
                    draft.key.mask |= NETNS;
                    draft.key.netns = cookie;
                    draft
                };
                drafts
                    .iter()
                    .flat_map(|draft| cookies.iter().map(|cookie| within(draft, cookie)))
                    .collect()
            }
            Some(_) => drafts.into_iter().map(Self::inexact).collect(),
        }
    }

    /// A name is that of the executable, or the one that it was invoked by.
    fn processes(
        self,
        pattern: &ProcessPattern,
        hook: Hook,
        can: &Capabilities,
        known: &dyn Identities,
    ) -> Vec<Self> {
        let is_path = pattern.as_str().contains('/');
        let named = pattern.file_name().filter(|_| can.executable);
        let Some((name, file)) = named.and_then(|name| Some((name, padded(name)?))) else {
            return vec![self.inexact()];
        };
        let run = |file: &[u8; EXECUTABLE_LEN]| {
            let mut draft = self;
            draft.key.mask |= EXECUTABLE;
            draft.key.executable = executable_hash(file);
            // One that fills the field may be a longer name that was cut.
            draft.is_exact &= !is_path && file[EXECUTABLE_LEN - 2] == 0;
            draft
        };
        let by_file = run(&file);
        if is_path {
            return vec![by_file];
        }
        let mut drafts = vec![by_file];
        match hook {
            Hook::Connect => {
                let mut draft = self.inexact();
                draft.key.mask |= COMM;
                draft.key.executable = executable_hash(&comm(name));
                if by_file.is_exact {
                    draft.unless_executable = by_file.key.executable;
                }
                drafts.push(draft);
            }
            Hook::Tap => drafts.extend(
                known
                    .executables_invoked_as(name)
                    .iter()
                    .filter_map(|file| padded(file))
                    .map(|file| run(&file).inexact()),
            ),
        }
        drafts
    }

    /// Spread over what `to` may mean.
    fn called(self, to: &EndSelector, hook: Hook, known: &dyn Identities) -> Vec<Self> {
        let drafts = match &to.host {
            Some(host) => self.hosts(host, hook, known),
            None => vec![self],
        };
        if !to.names_process() {
            return drafts;
        }
        let drafts: Vec<Self> = drafts.into_iter().map(Self::inexact).collect();
        // A single port narrows enough, and misses nobody who came just now.
        if self.key.mask & PORT != 0 {
            return drafts;
        }
        let listeners = known.listeners(to);
        if listeners.len() > MAX_SPREAD {
            return drafts;
        }
        let meant = listeners
            .iter()
            .filter(|(_, port)| (self.ports.0..=self.ports.1).contains(port));
        let at = |draft: &Self, (ip, port): &(Option<IpAddr>, u16)| {
            let mut draft = *draft;
            draft.key.mask |= PORT;
            draft.key.port = *port;
            draft.ports = (*port, *port);
            if let Some(ip) = ip
                && draft.key.mask & (ADDRESS | PREFIX) == 0
            {
                draft.name_address(*ip);
            }
            draft
        };
        let meant: Vec<_> = meant.collect();
        drafts
            .iter()
            .flat_map(|draft| meant.iter().map(|listener| at(draft, listener)))
            .collect()
    }

    fn hosts(self, host: &NamePattern, hook: Hook, known: &dyn Identities) -> Vec<Self> {
        let mut drafts = Vec::new();
        if hook == Hook::Connect {
            // A connection may fall under the rule of its address as well: one of the two must decide.
            let mut draft = self.inexact();
            match host.exact().and_then(name_hash) {
                Some(hash) => {
                    draft.key.mask |= NAME;
                    draft.key.name = hash;
                }
                None => {
                    draft.key.mask |= NAMED;
                    draft.key.named = 1;
                }
            }
            drafts.push(draft);
        }
        let addresses = known.addresses(host);
        if addresses.len() > MAX_SPREAD {
            return vec![self.inexact()];
        }
        for ip in addresses {
            // The network that was named too is checked by the agent.
            let mut draft = self.inexact();
            draft.key.mask &= !PREFIX;
            draft.key.prefix_len = 0;
            draft.name_address(ip);
            drafts.push(draft);
        }
        drafts
    }

    fn inexact(mut self) -> Self {
        self.is_exact = false;
        self
    }

    fn name_ports(&mut self, range: Option<PortRange>) {
        let Some(range) = range else { return };
        self.ports = (range.first, range.last);
        if range.first == range.last {
            self.key.mask |= PORT;
            self.key.port = range.first;
        }
    }

    fn name_address(&mut self, ip: IpAddr) {
        self.key.mask |= ADDRESS;
        self.key.address = Address::from(ip);
    }

    fn name_network(&mut self, network: IpNet) {
        let from_front = match network {
            IpNet::V4(v4) => 96 + u32::from(v4.prefix_len()),
            IpNet::V6(v6) => u32::from(v6.prefix_len()),
        };
        self.key.address = Address::from(network.addr()).masked(from_front);
        if from_front == 128 {
            self.key.mask |= ADDRESS;
            return;
        }
        self.key.mask |= PREFIX;
        self.key.prefix_len = FIXED_BITS + from_front;
        // A network such as `::/0` has all of IPv4 in its mapped form below it, but does not mean it.
        let has_ipv4_below = Address([0, 0, MAPPED_WORD, 0]).masked(from_front) == self.key.address;
        if has_ipv4_below && matches!(network, IpNet::V6(_)) {
            self.is_exact = false;
        }
    }

    pub(super) fn name_cgroup(&mut self, depth: u32, id: u64) {
        self.key.mask |= CGROUP | depth << 8;
        self.key.cgroup = id;
    }

    pub(super) fn value(&self) -> RuleValue {
        let mut value = RuleValue {
            port_first: self.ports.0,
            port_last: self.ports.1,
            unless_executable: self.unless_executable,
            deadline_ns: self.deadline_ns,
            ..RuleValue::default()
        };
        match self.kernel_fault {
            Some(fault) => value.refusals[0] = fault,
            None if self.datagrams => value.flags = REDIRECT_DATAGRAMS,
            None => value.flags = REDIRECT,
        }
        value
    }

    /// Leaves out one of the fields that a kind can do without; false when there is none.
    pub(super) fn can_coarsen(mask: u32) -> bool {
        mask & (EXECUTABLE | COMM | TGID | CGROUP | NAME | NAMED | UID | NETNS) != 0
    }

    /// Leaves out one of the fields that a kind can do without.
    pub(super) fn coarsen(&mut self) {
        self.is_exact = false;
        self.kernel_fault = None;
        let key = &mut self.key;
        let mut left_out = |flags: u32| {
            let has = key.mask & flags != 0;
            key.mask &= !flags;
            has
        };
        if left_out(EXECUTABLE | COMM) {
            key.executable = 0;
            self.unless_executable = 0;
        } else if left_out(TGID) {
            key.tgid = 0;
        } else if left_out(UID) {
            key.uid = 0;
        } else if left_out(NETNS) {
            key.netns = 0;
        } else if left_out(NAME | NAMED) {
            (key.name, key.named) = (0, 0);
        } else if left_out(CGROUP | LEAF << 8) {
            key.cgroup = 0;
        }
    }
}

/// The kernel's number of a host name; none for what cannot be one.
fn name_hash(host: &str) -> Option<u64> {
    let mut wire = Vec::with_capacity(host.len() + 2);
    for label in host.split('.') {
        wire.push(
            u8::try_from(label.len())
                .ok()
                .filter(|length| (1..64).contains(length))?,
        );
        wire.extend_from_slice(label.as_bytes());
    }
    wire.push(0);
    NameHash::of(&wire)
}
