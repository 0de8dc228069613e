//! UDP: a server that echoes, and clients that print who answered what, and when.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

/// How long a client waits for one more answer.
const PATIENCE: Duration = Duration::from_millis(1500);

/// Sends back what comes, from the address that it came to.
pub(super) fn echo(address: &str) -> io::Result<()> {
    let socket = UdpSocket::bind(address)?;
    println!("listening {}", socket.local_addr()?);
    let mut buffer = [0; 65_535];
    loop {
        let (length, peer) = socket.recv_from(&mut buffer)?;
        socket.send_to(&buffer[..length], peer)?;
    }
}

/// Sends one datagram to each address by one socket that is not connected.
pub(super) fn unconnected(addresses: &[&str]) -> io::Result<()> {
    let any = if addresses.iter().any(|address| address.starts_with('[')) {
        "[::]:0"
    } else {
        "0.0.0.0:0"
    };
    // Bound by the library, as by any that wants to know its port: it speaks first, so that it is a client all the same.
    let socket = UdpSocket::bind(any)?;
    let start = Instant::now();
    for (number, address) in addresses.iter().enumerate() {
        socket.send_to(format!("ask {number}").as_bytes(), address)?;
    }
    print_answers(&socket, start)
}

/// The same by a socket that is connected.
pub(super) fn connected(address: &str) -> io::Result<()> {
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    let any = if address.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
    let socket = UdpSocket::bind(any)?;
    socket.connect(address)?;
    println!("peer {}", socket.peer_addr()?);
    let start = Instant::now();
    socket.send(b"ask 0")?;
    print_answers(&socket, start)
}

fn print_answers(socket: &UdpSocket, start: Instant) -> io::Result<()> {
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut buffer = [0; 65_535];
    loop {
        match socket.recv_from(&mut buffer) {
            Ok((length, peer)) => {
                let text = String::from_utf8_lossy(&buffer[..length]);
                println!("{peer} {text} after {}", start.elapsed().as_millis());
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
