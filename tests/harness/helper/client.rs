//! Clients: each prints what it saw.

use std::{
    io::{self, BufRead as _, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    os::fd::{FromRawFd as _, OwnedFd},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Connects, tells both addresses, asks once and tells the answer.
pub(super) fn ask(address: &str) -> io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    println!("peer {}", stream.peer_addr()?);
    println!("local {}", stream.local_addr()?);
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"ping\n")?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer)?;
    println!("answer {}", String::from_utf8_lossy(&answer).trim());
    Ok(())
}

/// Connects, and tells after how many milliseconds the kernel said so.
pub(super) fn connect(address: &str) -> io::Result<()> {
    let start = Instant::now();
    let outcome = TcpStream::connect(address);
    println!("after {}", start.elapsed().as_millis());
    println!("peer {}", outcome?.peer_addr()?);
    Ok(())
}

/// Connects and reads until the end without a word of its own.
pub(super) fn listen_first(address: &str) -> io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    println!("{}", text.trim());
    Ok(())
}

/// Sends, closes its half, and only then gets an answer.
pub(super) fn half_close(address: &str) -> io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(&[7; 100_000])?;
    stream.shutdown(Shutdown::Write)?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    println!("{}", text.trim());
    Ok(())
}

/// Connects without waiting, as event loops do, and then asks once.
pub(super) fn nonblocking(address: &str) -> io::Result<()> {
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    let SocketAddr::V4(v4) = address else {
        return Err(io::Error::other("an IPv4 address is needed"));
    };
    let name = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: v4.port().to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from_ne_bytes(v4.ip().octets()),
        },
        sin_zero: [0; 8],
    };
    // SAFETY: a system call without pointers.
    let raw = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel gave it just now, and nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    let size = size_of::<libc::sockaddr_in>() as libc::socklen_t;
    // SAFETY: the address is whole and of the size given.
    if unsafe { libc::connect(raw, (&raw const name).cast(), size) } == 0 {
        return Err(io::Error::other("connect() did not say EINPROGRESS"));
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() != Some(libc::EINPROGRESS) {
        return Err(error);
    }
    println!("EINPROGRESS");
    let mut poll = libc::pollfd {
        fd: raw,
        events: libc::POLLOUT,
        revents: 0,
    };
    // SAFETY: one entry, as said.
    if unsafe { libc::poll(&raw mut poll, 1, 10_000) } != 1 {
        return Err(io::Error::other("poll() waited in vain"));
    }
    let mut stream = TcpStream::from(socket);
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    println!("peer {}", stream.peer_addr()?);
    stream.set_nonblocking(false)?;
    stream.write_all(b"ping\n")?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer)?;
    println!("answer {}", String::from_utf8_lossy(&answer).trim());
    Ok(())
}

/// Sends many bytes to an echo server while it reads them back, and compares all.
pub(super) fn bounce(address: &str, bytes: usize) -> io::Result<()> {
    let mut reader = TcpStream::connect(address)?;
    let mut writer = reader.try_clone()?;
    let pattern = pattern();
    let sent = pattern.clone();
    let sending = thread::spawn(move || -> io::Result<()> {
        let mut position = 0;
        while position < bytes {
            let length = PIECE.min(bytes - position);
            writer.write_all(&sent[position % PERIOD..][..length])?;
            position += length;
        }
        writer.shutdown(Shutdown::Write)
    });
    let mut buffer = vec![0; PIECE];
    let mut got = 0;
    loop {
        let length = reader.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        if buffer[..length] != pattern[got % PERIOD..][..length] {
            return Err(io::Error::other(format!("wrong bytes after {got}")));
        }
        got += length;
    }
    sending
        .join()
        .map_err(|_| io::Error::other("the sender panicked"))??;
    println!("{got} bytes came back");
    Ok(())
}

/// Most bytes sent or read at once.
const PIECE: usize = 1 << 16;
/// A prime, so that a piece that was lost, doubled or moved does not fit where it comes.
const PERIOD: usize = 65_521;

/// Bytes that tell their position, twice over, so that every piece is a slice of them.
fn pattern() -> Vec<u8> {
    let byte = |position: usize| {
        let mixed = (position % PERIOD).wrapping_mul(0x9e37_79b9);
        (mixed >> 16) as u8
    };
    (0..PERIOD + PIECE).map(byte).collect()
}

/// Opens many connections, then uses every one of them, then closes them all.
pub(super) fn many(address: &str, count: usize) -> io::Result<()> {
    let mut streams = Vec::with_capacity(count);
    for _ in 0..count {
        streams.push(TcpStream::connect(address)?);
    }
    for stream in &mut streams {
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(b"x")?;
    }
    let mut answered = 0;
    for stream in &mut streams {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        answered += 1;
    }
    println!("{answered} answered");
    Ok(())
}

/// Keeps one connection open and asks once for each line of standard input.
pub(super) fn hold(address: &str) -> io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    println!("open");
    for line in io::stdin().lock().lines() {
        line?;
        stream.write_all(b"ping\n")?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer)?;
        println!("answer {}", String::from_utf8_lossy(&answer).trim());
    }
    Ok(())
}

/// Calls an echo server until standard input ends: on one connection kept open, and on a new one each time.
pub(super) fn steady(address: &str) -> io::Result<()> {
    static OVER: AtomicBool = AtomicBool::new(false);
    thread::spawn(|| {
        let _ = io::stdin().lock().read(&mut [0]);
        OVER.store(true, Ordering::Relaxed);
    });
    println!("started");
    let mut kept = TcpStream::connect(address)?;
    let (mut good, mut bad, mut slowest) = (0_u64, 0_u64, Duration::ZERO);
    while !OVER.load(Ordering::Relaxed) {
        let start = Instant::now();
        let once = call(&mut kept).and_then(|()| call(&mut TcpStream::connect(address)?));
        match once {
            Ok(()) => good += 1,
            Err(error) => {
                bad += 1;
                eprintln!("{}", super::name_of(&error));
                kept = TcpStream::connect(address)?;
            }
        }
        slowest = slowest.max(start.elapsed());
    }
    println!("good {good} bad {bad} slowest {} ms", slowest.as_millis());
    Ok(())
}

fn call(stream: &mut TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"ping\n")?;
    stream.read_exact(&mut [0; 5])?;
    Ok(())
}

/// Asks for the pages of a shop over connections that stay open, and tells of each call when all are done.
pub(super) fn browse(address: &str, calls: usize, connections: usize) -> io::Result<()> {
    let browsers: Vec<_> = (0..connections)
        .map(|first| {
            let address = address.to_owned();
            thread::spawn(move || -> io::Result<Vec<String>> {
                let mut stream = TcpStream::connect(&address)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(Duration::from_secs(20)))?;
                let pages = (first..calls).step_by(connections);
                pages.map(|number| page(&mut stream, number, first)).collect()
            })
        })
        .collect();
    for browser in browsers {
        let lines = browser
            .join()
            .map_err(|_| io::Error::other("a browser panicked"))??;
        lines.iter().for_each(|line| println!("{line}"));
    }
    Ok(())
}

/// One page; the first of a connection has the connection's number.
fn page(stream: &mut TcpStream, number: usize, first: usize) -> io::Result<String> {
    let service = crate::topology::SERVICES[number % crate::topology::SERVICES.len()];
    let request = format!("GET /{service}/{number} HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    let start = Instant::now();
    stream.write_all(request.as_bytes())?;
    let (mut answer, mut heard, mut buffer) = (Vec::new(), None, [0; 16 * 1024]);
    loop {
        let length = stream.read(&mut buffer)?;
        let elapsed = *heard.get_or_insert_with(|| start.elapsed());
        answer.extend_from_slice(&buffer[..length]);
        let text = String::from_utf8_lossy(&answer);
        if length == 0 {
            return Err(io::Error::other(format!("the answer ends early: {text}")));
        }
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let size = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            let is_it = name.eq_ignore_ascii_case("content-length");
            is_it.then(|| value.parse().ok()).flatten()
        });
        if size.is_some_and(|size: usize| body.len() >= size) || body.ends_with("0\r\n\r\n") {
            if !head.starts_with("HTTP/1.1 200") {
                return Err(io::Error::other(head.to_owned()));
            }
            return Ok(format!(
                "{{\"to\":\"nginx\",\"out\":{},\"in\":{},\"ns\":{},\"opened\":{}}}",
                request.len(),
                answer.len(),
                elapsed.as_nanos(),
                u8::from(number == first)
            ));
        }
    }
}

/// Calls an echo server over many new connections, from few local ports of `127.0.0.1` that are used again and again, by
/// four threads; tells how many calls were made and how long that took.
pub(super) fn churn(address: &str, count: usize, first_port: u16) -> io::Result<()> {
    const THREADS: u16 = 4;
    const PORTS: u16 = 50;
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    let start = Instant::now();
    let threads = (0..THREADS).map(|thread| {
        let calls = count / usize::from(THREADS);
        thread::spawn(move || -> io::Result<usize> {
            let (mut made, mut turn) = (0, 0);
            while made < calls {
                let port = first_port + thread * PORTS + turn % PORTS;
                turn = (turn + 1) % PORTS;
                match connect_from(port, address) {
                    Ok(mut stream) => {
                        call(&mut stream)?;
                        made += 1;
                    }
                    // Another process holds the very same connection just now.
                    Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(made)
        })
    });
    let threads: Vec<_> = threads.collect();
    let mut made = 0;
    for thread in threads {
        made += thread
            .join()
            .map_err(|_| io::Error::other("a thread panicked"))??;
    }
    println!("made {made} in {} ms", start.elapsed().as_millis());
    Ok(())
}

/// Asks once at each of `count` loopback addresses, from the `first` on.
pub(super) fn spread(port: u16, first: usize, count: usize) -> io::Result<()> {
    for number in first..first + count {
        let [.., high, middle, low] = number.to_be_bytes();
        let address = SocketAddr::from(([127, 1 + high, middle, low], port));
        call(&mut TcpStream::connect(address)?)?;
    }
    Ok(())
}

/// Connects from a local port, which is free again at once when the stream is dropped: by a reset, with no TIME_WAIT.
fn connect_from(port: u16, address: SocketAddr) -> io::Result<TcpStream> {
    let name = |port: u16| libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from_ne_bytes([127, 0, 0, 1]),
        },
        sin_zero: [0; 8],
    };
    // SAFETY: a system call without pointers.
    let raw = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel gave it just now, and nobody else has it.
    let stream = TcpStream::from(unsafe { OwnedFd::from_raw_fd(raw) });
    let on: libc::c_int = 1;
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    let (local, remote) = (name(port), name(address.port()));
    let length = size_of::<libc::sockaddr_in>() as libc::socklen_t;
    // SAFETY: each pointer is to a whole value of the size given.
    let done = unsafe {
        libc::setsockopt(
            raw,
            libc::SOL_SOCKET,
            libc::SO_REUSEADDR,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        ) == 0
            && libc::setsockopt(
                raw,
                libc::SOL_SOCKET,
                libc::SO_LINGER,
                (&raw const linger).cast(),
                size_of_val(&linger) as libc::socklen_t,
            ) == 0
            && libc::bind(raw, (&raw const local).cast(), length) == 0
            && libc::connect(raw, (&raw const remote).cast(), length) == 0
    };
    if done {
        Ok(stream)
    } else {
        Err(io::Error::last_os_error())
    }
}
