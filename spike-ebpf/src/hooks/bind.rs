//! Notes who binds which address: from those that then listen, the accepted connections inherit their owner.

use aya_ebpf::Global;
use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::generated::bpf_get_netns_cookie;
use aya_ebpf::macros::cgroup_sock;
use aya_ebpf::programs::SockContext;
use spike_common::address::{Address, Endpoint};
use spike_common::counter::Counter;
use spike_common::edge::UDP;
use spike_common::event::{NamespaceWanted, WAS_BOUND};
use spike_common::socket::{BOUND, Binder, ServiceKey};
use spike_common::task::Task;

use super::ALLOW;
use crate::maps::{BINDERS, CONFIG, EVENTS};
use crate::support::{counts, storage, tasks};

const IPPROTO_TCP: u32 = 6;

/// Whether `bpf_get_netns_cookie` exists for sock_ops (5.15); for this hook it always does.
#[unsafe(no_mangle)]
pub(super) static HAS_NETNS_COOKIE: Global<u8> = Global::new(0);

#[cgroup_sock(post_bind4)]
fn spike_post_bind4(ctx: SockContext) -> i32 {
    // SAFETY: a context field.
    let address = Address::from_ipv4_word(unsafe { (*ctx.sock).src_ip4 });
    note(&ctx, address)
}

#[cgroup_sock(post_bind6)]
fn spike_post_bind6(ctx: SockContext) -> i32 {
    let sock: *mut bpf_sock = ctx.sock;
    // SAFETY: context fields, read one word at a time as the verifier demands.
    let address = unsafe {
        Address([
            core::ptr::read_volatile(&raw const (*sock).src_ip6[0]),
            core::ptr::read_volatile(&raw const (*sock).src_ip6[1]),
            core::ptr::read_volatile(&raw const (*sock).src_ip6[2]),
            core::ptr::read_volatile(&raw const (*sock).src_ip6[3]),
        ])
    };
    note(&ctx, address)
}

#[inline(always)]
fn note(ctx: &SockContext, address: Address) -> i32 {
    // SAFETY: context fields; the port is in host order here.
    let (protocol, port) = unsafe { ((*ctx.sock).protocol, (*ctx.sock).src_port) };
    if protocol == UDP {
        // SAFETY: the context is the socket; null is checked by the helper's caller.
        if let Some(socket) = unsafe { storage::get_or_create(ctx.sock) } {
            socket.flags |= BOUND;
        }
    } else if protocol != IPPROTO_TCP {
        return ALLOW;
    }
    // SAFETY: the helper takes this context.
    let netns = unsafe { bpf_get_netns_cookie(ctx.sock.cast()) };
    let mut binder = Binder {
        task: Task::default(),
        netns,
    };
    tasks::fill(&mut binder.task);
    let mut key = binder_key(netns, Endpoint::new(address, port as u16));
    if protocol == UDP {
        key.transport = UDP;
    }
    // Full is not a case: the least used goes.
    _ = BINDERS.insert(key, binder, 0);
    if CONFIG.get(0).is_some_and(|config| config.tells_binds != 0) {
        let event = NamespaceWanted {
            netns,
            tgid: binder.task.tgid,
            kind: WAS_BOUND,
        };
        if EVENTS.output::<NamespaceWanted>(&event, 0).is_err() {
            counts::count(Counter::EventRingFull);
        }
    }
    ALLOW
}

/// The key of an address that is bound in a namespace.
#[inline(always)]
pub(super) fn binder_key(netns: u64, endpoint: Endpoint) -> ServiceKey {
    ServiceKey {
        netns: if HAS_NETNS_COOKIE.load() == 0 { 0 } else { netns },
        endpoint,
        transport: 0,
    }
}
