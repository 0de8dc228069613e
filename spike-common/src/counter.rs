//! Why the kernel side let something go: each loss or refusal to act has a number of its own.

/// Index into the counters map.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// A connection or edge was not recorded: the map for it is full.
    EdgesFull,
    /// A flow's owner was not recorded.
    FlowsFull,
    /// A packet of a watched connection had headers that the hook could not read.
    PacketUnread,
    /// A matching connection went straight: its network namespace has no usable listener.
    EscapedNamespace,
    /// A matching connection went straight: the agent's listener was not found alive.
    EscapedListener,
    /// A matching connection went straight: its socket is bound to a device, or its destination needs a scope.
    EscapedScope,
    /// A matching connection went straight: the agent's heartbeat was too old.
    EscapedHeartbeat,
    /// A redirected connection whose original destination could not be recorded; the agent resets it.
    RedirectsFull,
    /// A packet chosen by a capture did not fit the ring buffer.
    TapRingFull,
    /// An event for the agent did not fit the ring buffer.
    EventRingFull,
    /// A segment of a sampled connection did not fit the ring buffer.
    SampleRingFull,
    /// A matching datagram went straight: its socket talks to more destinations than the agent has ports.
    EscapedDestinations,
}

impl Counter {
    /// Every counter with its name for machines and its meaning for people.
    pub const ALL: [(Counter, &'static str, &'static str); 12] = [
        (
            Counter::EdgesFull,
            "edges_full",
            "connections not drawn: the edge map is full",
        ),
        (
            Counter::FlowsFull,
            "flows_full",
            "connections whose owner was not recorded: the flow map is full",
        ),
        (
            Counter::PacketUnread,
            "packet_unread",
            "packets of watched connections with unreadable headers",
        ),
        (
            Counter::EscapedNamespace,
            "escaped_namespace",
            "matching connections left alone: no usable listener in their network namespace",
        ),
        (
            Counter::EscapedListener,
            "escaped_listener",
            "matching connections left alone: the agent's listener was not found",
        ),
        (
            Counter::EscapedScope,
            "escaped_scope",
            "matching connections left alone: bound to a device or to a scoped address",
        ),
        (
            Counter::EscapedHeartbeat,
            "escaped_heartbeat",
            "matching connections left alone: the agent did not run for 2 s",
        ),
        (
            Counter::RedirectsFull,
            "redirects_full",
            "redirected connections reset: their destination could not be recorded",
        ),
        (
            Counter::TapRingFull,
            "tap_ring_full",
            "chosen packets not captured: the ring buffer was full",
        ),
        (
            Counter::EventRingFull,
            "event_ring_full",
            "events for the agent lost: the ring buffer was full",
        ),
        (
            Counter::SampleRingFull,
            "sample_ring_full",
            "segments of sampled connections not decoded: the ring buffer was full",
        ),
        (
            Counter::EscapedDestinations,
            "escaped_destinations",
            "matching datagrams left alone: their socket talks to more than 8 destinations at one time",
        ),
    ];
}

/// How many counters there are.
pub const COUNTERS: u32 = Counter::ALL.len() as u32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_in_index_order() {
        for (index, (counter, _, _)) in Counter::ALL.iter().enumerate() {
            assert_eq!(*counter as usize, index);
        }
    }
}
