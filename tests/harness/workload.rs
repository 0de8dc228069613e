//! Real servers, with the least configuration that they run with.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::{SocketAddr, TcpListener, TcpStream},
    ops::Range,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use crate::{
    wait_for,
    world::{Place, World},
};

/// Size of the file that nginx serves as `/small`.
pub const SMALL: usize = 1024;

/// A port that nobody listens on now. The kernel gives none of these to a connection (`ip_local_port_range`, ip(7)), which
/// would be in the way of the server that is to have it, or connect to itself while one waits for that.
pub fn free_port() -> u16 {
    const PORTS: Range<u32> = 12_000..32_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let count = PORTS.end - PORTS.start;
    // Another process of tests begins elsewhere.
    let first = std::process::id().wrapping_mul(97);
    let mut ports = (0..count).map(|_| {
        let number = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        u16::try_from(PORTS.start + number % count).expect("a port")
    });
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    ports.find(is_free).expect("a free port")
}

/// Waits until somebody listens at an address of this namespace; asked from outside the world's cgroup.
pub fn wait_for_listener(address: &str) {
    let address: SocketAddr = address.parse().expect("an address");
    wait_for(
        &format!("a listener at {address}"),
        Duration::from_secs(10),
        || TcpStream::connect(address).ok().map(drop),
    );
}

/// nginx that serves a directory of the world on every IPv4 address and on `[::1]`; gives the port.
pub fn nginx(world: &World, place: &Place<'_>) -> u16 {
    start_nginx(world, place, |port| {
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    })
}

/// The same, but it speaks HTTP/2 in clear text.
pub fn nginx_http2(world: &World, place: &Place<'_>) -> u16 {
    let is_ready = |port| TcpStream::connect(("127.0.0.1", port)).is_ok();
    nginx_with(world, place, " http2", is_ready)
}

/// nginx where only the caller knows how to ask whether it is ready.
pub fn start_nginx(world: &World, place: &Place<'_>, is_ready: impl Fn(u16) -> bool) -> u16 {
    nginx_with(world, place, "", is_ready)
}

fn nginx_with(world: &World, place: &Place<'_>, option: &str, is_ready: impl Fn(u16) -> bool) -> u16 {
    let port = free_port();
    let dir = world.path("nginx");
    fs::create_dir_all(dir.join("www")).expect("make nginx's directory");
    fs::write(dir.join("www/small"), vec![b'x'; SMALL]).expect("write nginx's file");
    let big = fs::File::create(dir.join("www/mib")).expect("make nginx's file");
    big.set_len(1 << 20).expect("size nginx's file");
    let shown = dir.display();
    let config = format!(
        "daemon off; master_process off; pid {shown}/pid; error_log {shown}/error.log; user root;\n\
         events {{ worker_connections 8192; }}\n\
         http {{ access_log off; keepalive_requests 1000000000; client_body_temp_path {shown};\n\
         proxy_temp_path {shown}; fastcgi_temp_path {shown}; uwsgi_temp_path {shown}; scgi_temp_path {shown};\n\
         server {{ listen 0.0.0.0:{port} backlog=4096{option}; listen [::1]:{port}; root {shown}/www; }} }}\n"
    );
    let file = dir.join("nginx.conf");
    fs::write(&file, config).expect("write nginx's configuration");
    let log = dir.join("error.log");
    let args = ["-c".as_ref(), file.as_os_str(), "-e".as_ref(), log.as_os_str()];
    place.serve("nginx", &args);
    wait_for("nginx to listen", Duration::from_secs(10), || {
        is_ready(port).then_some(())
    });
    port
}

/// redis-server without persistence on 127.0.0.1; gives the port.
pub fn redis(world: &World, place: &Place<'_>) -> u16 {
    let port = free_port();
    let dir = world.path("redis");
    fs::create_dir_all(&dir).expect("make redis's directory");
    let (port_text, dir) = (port.to_string(), dir.to_string_lossy().into_owned());
    let args = [
        "--port",
        &port_text,
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
        "--dir",
        &dir,
    ];
    place.serve("redis-server", &args);
    wait_for_listener(&format!("127.0.0.1:{port}"));
    port
}

/// Where PostgreSQL's programs are, which Debian keeps off the path; none without its server.
pub fn postgres_bin() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let bins = versions.flatten().map(|version| version.path().join("bin"));
    bins.filter(|bin| bin.join("initdb").exists() && bin.join("pgbench").exists())
        .max()
}

/// PostgreSQL that trusts everybody, on 127.0.0.1; gives the port. It does not run as root: the user `postgres` does it.
pub fn postgres(world: &World, place: &Place<'_>, bin: &Path) -> u16 {
    let port = free_port();
    let dir = world.path("postgres");
    fs::create_dir_all(&dir).expect("make PostgreSQL's directory");
    let shown = dir.display().to_string();
    let open = Command::new("chmod")
        .args(["a+x"])
        .arg(dir.parent().unwrap_or(&dir))
        .status();
    let owned = Command::new("chown").args(["postgres", &shown]).status();
    assert!(
        open.is_ok_and(|status| status.success()) && owned.is_ok_and(|status| status.success()),
        "give PostgreSQL its directory"
    );
    let as_postgres = |program: &str, args: &[&str]| {
        let program = bin.join(program).display().to_string();
        [&["-u", "postgres", "--", &program], args]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let init = as_postgres("initdb", &["-D", &shown, "-A", "trust", "-U", "postgres", "-N"]);
    place.run("runuser", &init).ok();
    let port_text = port.to_string();
    let serve = as_postgres(
        "postgres",
        &[
            "-D",
            &shown,
            "-p",
            &port_text,
            "-h",
            "127.0.0.1",
            "-k",
            &shown,
            "-c",
            "fsync=off",
            "-c",
            "ssl=off",
        ],
    );
    place.serve("runuser", &serve);
    wait_for_listener(&format!("127.0.0.1:{port}"));
    // It listens before it takes sessions.
    wait_for("PostgreSQL to take sessions", Duration::from_secs(20), || {
        let psql = Command::new(bin.join("psql"))
            .args([
                "-h",
                "127.0.0.1",
                "-p",
                &port_text,
                "-U",
                "postgres",
                "-c",
                "SELECT 1",
            ])
            .output();
        psql.is_ok_and(|output| output.status.success()).then_some(())
    });
    port
}

/// One of the own servers, such as `echo`, at an address that may have port 0; gives the address it got.
pub fn server(world: &World, place: &Place<'_>, kind: &str, address: &str) -> String {
    let mut command = place.helper(&[kind, address]);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("start {kind}: {error}"));
    let stdout = child.stdout.take().expect("the helper's output");
    world.keep(child);
    let mut line = String::new();
    BufReader::new(stdout)
        .read_line(&mut line)
        .expect("read from the helper");
    let address = line.trim().strip_prefix("listening ");
    address
        .unwrap_or_else(|| panic!("{kind} at {address:?} said {line:?}"))
        .to_owned()
}

/// The port of an address.
pub fn port_of(address: &str) -> u16 {
    let address: SocketAddr = address.parse().expect("an address");
    address.port()
}
