//! Where a connect() or sendmsg() is to go.

use core::ptr::read_volatile;

use aya_ebpf::programs::SockAddrContext;
use spike_common::address::{Address, Endpoint};

#[inline(always)]
pub(super) fn destination4(ctx: &SockAddrContext) -> Endpoint {
    // SAFETY: the context is valid while the program runs.
    let (address, port) = unsafe { ((*ctx.sock_addr).user_ip4, (*ctx.sock_addr).user_port) };
    Endpoint::new(Address::from_ipv4_word(address), u16::from_be(port as u16))
}

#[inline(always)]
pub(super) fn destination6(ctx: &SockAddrContext) -> Endpoint {
    let raw = ctx.sock_addr;
    // SAFETY: as above; word by word, since the verifier refuses the pointer arithmetic of a copy.
    let (address, port) = unsafe {
        let address = [
            read_volatile(&raw const (*raw).user_ip6[0]),
            read_volatile(&raw const (*raw).user_ip6[1]),
            read_volatile(&raw const (*raw).user_ip6[2]),
            read_volatile(&raw const (*raw).user_ip6[3]),
        ];
        (Address(address), (*raw).user_port)
    };
    Endpoint::new(address, u16::from_be(port as u16))
}
