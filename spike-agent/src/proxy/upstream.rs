//! Connects to the original destination as the caller would have: from its namespace, and from the source that it bound.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream as StdTcpStream},
    os::fd::AsRawFd,
};

use tokio::net::{TcpSocket, TcpStream};

use super::UpstreamSockets;

/// Why the original destination could not be reached.
#[derive(Debug, thiserror::Error)]
pub(super) enum UpstreamError {
    #[error("open a socket in the caller's network namespace: {0}")]
    Socket(#[source] io::Error),
    #[error("bind the caller's source {0}: {1}")]
    Bind(SocketAddr, #[source] io::Error),
    #[error("connect to {0}: {1}")]
    Connect(SocketAddr, #[source] io::Error),
    #[error("connect to {0}: {1}")]
    Name(String, #[source] io::Error),
}

/// Connects to `destination` for the caller at `client`.
pub(super) async fn connect(
    sockets: &dyn UpstreamSockets,
    destination: SocketAddr,
    client: SocketAddr,
) -> Result<TcpStream, UpstreamError> {
    let destination = unmapped(destination);
    let socket = sockets
        .tcp(destination.is_ipv6())
        .map_err(UpstreamError::Socket)?;
    let socket = TcpSocket::from_std_stream(StdTcpStream::from(socket));
    if let Some(source) = source(client, destination) {
        leave_port_to_connect(&socket)
            .and_then(|()| socket.bind(source))
            .map_err(|error| UpstreamError::Bind(source, error))?;
    }
    socket
        .connect(destination)
        .await
        .map_err(|error| UpstreamError::Connect(destination, error))
}

/// The address to bind: a redirected connection comes from loopback unless its caller bound another source.
pub(super) fn source(client: SocketAddr, destination: SocketAddr) -> Option<SocketAddr> {
    let (client, destination) = (unmapped(client), unmapped(destination));
    let is_chosen_by_kernel = matches!(
        client.ip(),
        IpAddr::V4(Ipv4Addr::LOCALHOST) | IpAddr::V6(Ipv6Addr::LOCALHOST)
    );
    if is_chosen_by_kernel || client.is_ipv6() != destination.is_ipv6() {
        return None;
    }
    let mut source = client;
    source.set_port(0);
    Some(source)
}

/// An IPv4-mapped IPv6 address as the IPv4 address that it means.
pub(super) fn unmapped(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
        IpAddr::V6(_) => address,
    }
}

/// Without this, `bind` takes a port that no other destination can share, and ports run out.
fn leave_port_to_connect(socket: &TcpSocket) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open, and the option's value is a `c_int` that outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_source_that_the_caller_bound_is_kept() {
        for (client, destination, expected) in [
            ("127.0.0.1:5", "10.0.0.1:80", None),
            ("[::1]:5", "[2001:db8::1]:80", None),
            ("[::ffff:127.0.0.1]:5", "10.0.0.1:80", None),
            ("10.0.0.2:5", "10.0.0.1:80", Some("10.0.0.2:0")),
            ("[::ffff:10.0.0.2]:5", "[::ffff:10.0.0.1]:80", Some("10.0.0.2:0")),
            ("127.0.0.2:5", "127.0.0.1:80", Some("127.0.0.2:0")),
            ("[2001:db8::2]:5", "[2001:db8::1]:80", Some("[2001:db8::2]:0")),
            ("[2001:db8::2]:5", "10.0.0.1:80", None),
        ] {
            let [client, destination] = [client, destination].map(|text| unmapped(text.parse().unwrap()));
            assert_eq!(
                source(client, destination),
                expected.map(|text| text.parse().unwrap()),
                "{client}"
            );
        }
    }
}
