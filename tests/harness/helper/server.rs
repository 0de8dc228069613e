//! Servers: each says `listening ADDRESS` when it can be called.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    thread,
};

/// Sends back what comes; closes its half after the client closed its own.
pub(super) fn echo(address: &str) -> io::Result<()> {
    serve(address, |mut stream| {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let length = stream.read(&mut buffer)?;
            if length == 0 {
                return stream.shutdown(Shutdown::Write);
            }
            stream.write_all(&buffer[..length])?;
        }
    })
}

/// Speaks first, telling the client what address it has.
pub(super) fn greet(address: &str) -> io::Result<()> {
    serve(address, |mut stream| {
        let peer = stream.peer_addr()?;
        writeln!(stream, "hello {peer}")?;
        // Closing with unread bytes would reset the connection.
        stream.shutdown(Shutdown::Write)?;
        io::copy(&mut stream, &mut io::sink()).map(drop)
    })
}

/// Answers only after the client closed its half, with the number of bytes that came.
pub(super) fn count(address: &str) -> io::Result<()> {
    serve(address, |mut stream| {
        let bytes = io::copy(&mut stream, &mut io::sink())?;
        writeln!(stream, "got {bytes}")
    })
}

fn serve(address: &str, each: fn(TcpStream) -> io::Result<()>) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    // The standard library's backlog is too short for the helper that opens thousands at once.
    // SAFETY: a system call without pointers, on a descriptor that lives.
    unsafe { libc::listen(std::os::fd::AsRawFd::as_raw_fd(&listener), 4096) };
    println!("listening {}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept()?;
        // A thread each, with a small stack: there may be thousands.
        let thread = thread::Builder::new().stack_size(1 << 18);
        thread.spawn(move || each(stream))?;
    }
}
