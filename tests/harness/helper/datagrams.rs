//! Numbered datagrams: who sends them, and who tells which ones came.
//!
//! Each carries its number twice, the time of its sending (`CLOCK_MONOTONIC`, nanoseconds) and bytes that are known.

use std::{
    io::{self, Read as _},
    net::UdpSocket,
    os::fd::AsRawFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

const FILL: u8 = 0x5a;
/// Two numbers and a time.
const HEAD: usize = 24;

/// Sends `count` datagrams of `bytes` bytes, a pause after each.
pub(super) fn send(from: &str, to: &str, count: usize, bytes: usize, pause_us: usize) -> io::Result<()> {
    let socket = UdpSocket::bind(from)?;
    socket.connect(to)?;
    let mut datagram = vec![FILL; bytes.max(HEAD)];
    for number in 0..count as u64 {
        datagram[..8].copy_from_slice(&number.to_be_bytes());
        datagram[8..16].copy_from_slice(&number.to_be_bytes());
        datagram[16..HEAD].copy_from_slice(&now_ns().to_be_bytes());
        match socket.send(&datagram) {
            // Nobody listens there, which an earlier datagram found out.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            other => drop(other?),
        }
        if pause_us > 0 {
            thread::sleep(Duration::from_micros(pause_us as u64));
        }
    }
    Ok(())
}

/// Takes datagrams until its input ends and none has come for a while; then says of each, in their order: its number,
/// how long it took (nanoseconds), when it came, and whether it is `whole` or `damaged`.
pub(super) fn sink(address: &str) -> io::Result<()> {
    let socket = UdpSocket::bind(address)?;
    // What waits while this process does not run must not be lost here.
    let room: libc::c_int = 64 << 20;
    // SAFETY: the option is an integer that lives through the call.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            (&raw const room).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        );
    }
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    println!("listening {}", socket.local_addr()?);
    let ending = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&ending);
    thread::spawn(move || {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        seen.store(true, Ordering::Relaxed);
    });
    let (mut came, mut quiet, mut buffer) = (Vec::new(), 0, vec![0; 1 << 16]);
    while quiet < 5 {
        match socket.recv(&mut buffer) {
            Ok(length) => {
                came.push(line(&buffer[..length]));
                quiet = 0;
            }
            Err(_) if ending.load(Ordering::Relaxed) => quiet += 1,
            Err(_) => {}
        }
    }
    print!("{}", came.concat());
    Ok(())
}

fn line(datagram: &[u8]) -> String {
    let now = now_ns();
    let word = |at: usize| {
        let bytes = datagram.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u64::from_be_bytes)
    };
    let is_whole = datagram.len() >= HEAD
        && word(0) == word(8)
        && word(16) <= now
        && datagram[HEAD..].iter().all(|byte| *byte == FILL);
    let state = if is_whole { "whole" } else { "damaged" };
    format!("{} {} {now} {state}\n", word(0), now.saturating_sub(word(16)))
}

fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

/// Has the kernel, not the interface, compute the checksums of what leaves; between the two ends of a veth pair nobody
/// would otherwise.
pub(super) fn compute_checksums(interface: &str) -> io::Result<()> {
    /// From `linux/ethtool.h`.
    const ETHTOOL_STXCSUM: u32 = 0x17;
    #[repr(C)]
    struct Value {
        command: u32,
        data: u32,
    }
    let socket = UdpSocket::bind("127.0.0.1:0").or_else(|_| UdpSocket::bind("0.0.0.0:0"))?;
    let mut value = Value {
        command: ETHTOOL_STXCSUM,
        data: 0,
    };
    // SAFETY: all zeroes are a valid request.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: the request and the value that it points to live through the call.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
