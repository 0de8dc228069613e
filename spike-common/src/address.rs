//! One form for IPv4 and IPv6, so that maps need one key type and hooks one code path.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::layout;

/// The third word of an IPv4-mapped IPv6 address (`::ffff:a.b.c.d`, RFC 4291 section 2.5.5.2), as it lies in memory.
pub const MAPPED_WORD: u32 = u32::from_be(0x0000_ffff);

/// An IP address as the 16 bytes of its IPv6 form in network order; IPv4 is IPv4-mapped.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address(pub [u32; 4]);
layout!(Address, size = 16, align = 4);

impl Address {
    /// The mapped form of an IPv4 address given as the kernel holds it (network order in memory).
    #[inline(always)]
    pub const fn from_ipv4_word(word: u32) -> Self {
        Self([0, 0, MAPPED_WORD, word])
    }

    /// Whether this is an IPv4 address in IPv4-mapped form.
    #[inline(always)]
    pub const fn is_ipv4(&self) -> bool {
        self.0[0] == 0 && self.0[1] == 0 && self.0[2] == MAPPED_WORD
    }

    /// Whether this is `127.0.0.0/8` or `::1`, which mean another machine in each network namespace.
    #[inline(always)]
    pub const fn is_loopback(&self) -> bool {
        if self.is_ipv4() {
            u32::from_be(self.0[3]) >> 24 == 127
        } else {
            self.0[0] == 0 && self.0[1] == 0 && self.0[2] == 0 && self.0[3] == u32::from_be(1)
        }
    }

    /// Whether this is `0.0.0.0`, its mapped form, or `::`.
    #[inline(always)]
    pub const fn is_unspecified(&self) -> bool {
        self.0[0] == 0 && self.0[1] == 0 && (self.0[2] == 0 || self.0[2] == MAPPED_WORD) && self.0[3] == 0
    }

    /// Whether this is `fe80::/10`, which needs a scope that the connect hook cannot see.
    #[inline(always)]
    pub const fn is_ipv6_link_local(&self) -> bool {
        u32::from_be(self.0[0]) >> 22 == 0xfe80 >> 6
    }

    /// The address with only its first `bits` bits kept (0 to 128).
    pub const fn masked(self, bits: u32) -> Self {
        let value = u128::from_be_bytes(self.bytes());
        let mask = if bits == 0 { 0 } else { u128::MAX << (128 - bits) };
        Self::from_bytes((value & mask).to_be_bytes())
    }

    /// The 16 bytes in network order.
    pub const fn bytes(self) -> [u8; 16] {
        let mut out = [0; 16];
        let mut i = 0;
        while i < 16 {
            out[i] = self.0[i / 4].to_ne_bytes()[i % 4];
            i += 1;
        }
        out
    }

    /// From the 16 bytes in network order.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        let mut words = [0; 4];
        let mut i = 0;
        while i < 4 {
            words[i] =
                u32::from_ne_bytes([bytes[i * 4], bytes[i * 4 + 1], bytes[i * 4 + 2], bytes[i * 4 + 3]]);
            i += 1;
        }
        Self(words)
    }

    /// As the standard library has it; IPv4-mapped becomes IPv4.
    pub const fn ip(self) -> IpAddr {
        let bytes = self.bytes();
        if self.is_ipv4() {
            IpAddr::V4(Ipv4Addr::new(bytes[12], bytes[13], bytes[14], bytes[15]))
        } else {
            IpAddr::V6(Ipv6Addr::from_octets(bytes))
        }
    }
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => Self::from_bytes(v4.to_ipv6_mapped().octets()),
            IpAddr::V6(v6) => Self::from_bytes(v6.octets()),
        }
    }
}

/// An address and a TCP port.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// The address, IPv4 in mapped form.
    pub address: Address,
    /// The port, in host order.
    pub port: u16,
    /// Written out, so that map keys have no undefined bytes.
    pub padding: u16,
}
layout!(Endpoint, size = 20, align = 4);

impl Endpoint {
    /// An endpoint; `port` in host order.
    #[inline(always)]
    pub const fn new(address: Address, port: u16) -> Self {
        Self {
            address,
            port,
            padding: 0,
        }
    }

    /// As the standard library has it; IPv4-mapped becomes IPv4.
    pub const fn socket_addr(self) -> SocketAddr {
        SocketAddr::new(self.address.ip(), self.port)
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(addr: SocketAddr) -> Self {
        Self::new(addr.ip().into(), addr.port())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    #[test]
    fn standard_addresses_round_trip() {
        for text in [
            "127.0.0.1",
            "10.1.2.3",
            "::1",
            "::",
            "0.0.0.0",
            "2001:db8::7",
            "fe80::1",
        ] {
            let ip: IpAddr = text.parse().unwrap();
            let address = Address::from(ip);
            assert_eq!(address.ip(), ip);
            assert_eq!(address.is_ipv4(), ip.is_ipv4());
            assert_eq!(address.is_loopback(), ip.is_loopback(), "{text}");
            assert_eq!(address.is_unspecified(), ip.is_unspecified(), "{text}");
        }
    }

    #[test]
    fn link_local_is_fe80_slash_10() {
        let of = |text: &str| Address::from(text.parse::<IpAddr>().unwrap()).is_ipv6_link_local();
        assert!(of("fe80::1") && of("febf::1"));
        assert!(!of("fec0::1") && !of("::1") && !of("169.254.0.1"));
    }

    #[test]
    fn masking_keeps_the_leading_bits() {
        let address = Address::from("10.1.2.3".parse::<IpAddr>().unwrap());
        assert_eq!(
            address.masked(96 + 8),
            Address::from("10.0.0.0".parse::<IpAddr>().unwrap())
        );
        assert_eq!(address.masked(128), address);
        assert_eq!(address.masked(0), Address::default());
    }
}
