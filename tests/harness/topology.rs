//! A small shop of real processes in several languages, each of which logs what it says and hears.
//!
//! ```text
//! browser --> nginx --> catalog (Python) --> redis, rates.test (another host, by name)
//!                   --> cart (Node) -------> postgres, tax.test (the same host, by another name)
//!                   --> orders (Perl) -----> redis
//! ```

use std::{
    fs,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use serde::Deserialize;

use crate::{
    needs, tools, wait_for,
    workload::{self, free_port, wait_for_listener},
    world::{Place, World, finish, ip, kill, start},
};

/// The shop while it runs.
#[derive(Debug)]
pub struct Shop<'w> {
    world: &'w World,
    /// Where browsers ask.
    pub front: u16,
    /// Of the three services, in the order of [`SERVICES`].
    pub services: [u16; 3],
    /// Port of Redis.
    pub redis: u16,
    /// Port of PostgreSQL.
    pub postgres: u16,
    /// Port of the other host, behind both of its names.
    pub rates: u16,
    /// The device that the other host is behind.
    pub device: String,
    /// Address of the name server.
    pub resolver: String,
    /// Process id of PostgreSQL.
    postmaster: u32,
}

/// What nginx passes requests on to, by the first part of the path.
pub const SERVICES: [&str; 3] = ["catalog", "cart", "orders"];

/// One exchange as a process has logged it: all that it said, and all that came back before it spoke again.
#[derive(Clone, Debug, Deserialize)]
pub struct Exchange {
    /// Whom it asked.
    pub to: String,
    /// Bytes that it sent.
    pub out: u64,
    /// Bytes that came back.
    #[serde(rename = "in")]
    pub back: u64,
    /// Nanoseconds from before it sent until the first of the answer was there; nginx tells milliseconds, so none.
    #[serde(default)]
    pub ns: Option<u64>,
    /// Connections that it opened for this.
    #[serde(default)]
    pub opened: u64,
}

impl<'w> Shop<'w> {
    /// Starts all of it and waits until everything listens; `elsewhere` has the other host.
    pub fn start(world: &'w World, elsewhere: &World) -> Self {
        for program in [
            "nginx",
            "redis-server",
            "dnsmasq",
            "python3",
            "node",
            "perl",
            "setpriv",
        ] {
            needs::program(program);
        }
        let (rates_address, netns, device) = other_host(elsewhere);
        let (rates, resolver) = (free_port(), format!("127.{}.78.1", std::process::id() % 250 + 1));
        let args = [
            path(&tools::script("rates.py")),
            rates_address.clone(),
            rates.to_string(),
        ];
        elsewhere.place("rates").within(&netns).serve("python3", &args);
        wait_for_listener(&format!("{rates_address}:{rates}"));
        let resolv = name_server(world, &resolver, &rates_address);
        let redis = workload::redis(world, &world.place("d"));
        let (postgres, postmaster) = postgres(world);
        let services = [free_port(), free_port(), free_port()];
        let [catalog, cart, orders] = services;
        let shop = Self {
            world,
            front: front(world, services),
            services,
            redis,
            postgres,
            rates,
            device,
            resolver,
            postmaster,
        };
        // Their cgroups say nothing of what they are.
        let program = |name: &str, port: u16, more: &[String]| {
            let mut words = vec![path(&tools::script(name)), port.to_string()];
            words.extend_from_slice(more);
            words.push(path(&shop.log(name.split('.').next().unwrap_or(name))));
            words
        };
        let at = |name: &str| format!("{name}:{rates}");
        let python = program("catalog.py", catalog, &[redis.to_string(), at("rates.test")]);
        resolving(&world.place("a"), &resolv, "python3", &python);
        let node = program("cart.js", cart, &[postgres.to_string(), at("tax.test")]);
        resolving(&world.place("b"), &resolv, "node", &node);
        let perl = program("orders.pl", orders, &[redis.to_string()]);
        world.place("c").serve("perl", &perl);
        for port in services {
            wait_for_listener(&format!("127.0.0.1:{port}"));
        }
        shop
    }

    /// Asks for so many pages over so many connections; gives what the browser logged.
    pub fn browse(&self, calls: usize, connections: usize) -> Vec<Exchange> {
        let address = format!("127.0.0.1:{}", self.front);
        let (calls, connections) = (calls.to_string(), connections.to_string());
        let browser = self.world.place("browser");
        let done = browser.run_helper(&["browse", &address, &calls, &connections]);
        read(&done.ok())
    }

    /// What a process has logged by now.
    pub fn logged(&self, who: &str) -> Vec<Exchange> {
        read(&fs::read_to_string(self.log(who)).unwrap_or_default())
    }

    /// How often the name server was asked for an address.
    pub fn lookups(&self, name: &str) -> u64 {
        let text = fs::read_to_string(self.log("dnsmasq")).unwrap_or_default();
        text.matches(&format!("query[A] {name} from")).count() as u64
    }

    fn log(&self, who: &str) -> PathBuf {
        log(self.world, who)
    }
}

impl Drop for Shop<'_> {
    /// PostgreSQL keeps shared memory that outlives it when it is killed.
    fn drop(&mut self) {
        kill(self.postmaster, libc::SIGQUIT);
        let socket = self
            .world
            .path("postgres")
            .join(format!(".s.PGSQL.{}", self.postgres));
        for _ in 0..200 {
            if !socket.exists() {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn log(world: &World, who: &str) -> PathBuf {
    world.path(&format!("{who}.jsonl"))
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

fn read(text: &str) -> Vec<Exchange> {
    let lines = text.lines().filter(|line| line.starts_with('{'));
    let parsed =
        lines.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")));
    parsed.collect()
}

/// A network namespace that stands for another host: its address and name, and the device that it is behind.
fn other_host(elsewhere: &World) -> (String, String, String) {
    let netns = elsewhere.namespace();
    let [(_, device), (address, _)] = elsewhere.connect(None, Some(&netns));
    ip(&["-n", &netns, "link", "set", "lo", "up"]);
    (address, netns, device)
}

/// dnsmasq with two names of one address; gives the file that is to be `/etc/resolv.conf`.
fn name_server(world: &World, address: &str, names: &str) -> String {
    let mut args: Vec<String> = [
        "--no-daemon",
        "--port=53",
        "--bind-interfaces",
        "--no-resolv",
        "--no-hosts",
        "--conf-file=/dev/null",
        "--user=root",
        "--log-queries",
    ]
    .map(str::to_owned)
    .into();
    args.push(format!("--log-facility={}", log(world, "dnsmasq").display()));
    args.push(format!("--listen-address={address}"));
    args.extend(["rates.test", "tax.test"].map(|name| format!("--address=/{name}/{names}")));
    world.place("dns").serve("dnsmasq", &args);
    wait_for_listener(&format!("{address}:53"));
    let file = world.path("resolv.conf");
    fs::write(&file, format!("nameserver {address}\n")).expect("write resolv.conf");
    path(&file)
}

/// Serves a program for which a file is `/etc/resolv.conf`.
fn resolving(place: &Place<'_>, resolv: &str, program: &str, words: &[String]) {
    let script = format!("mount --bind {resolv} /etc/resolv.conf && exec {program} \"$@\"");
    let mut args = ["--mount", "sh", "-c", &script, program]
        .map(str::to_owned)
        .to_vec();
    args.extend_from_slice(words);
    place.serve("unshare", &args);
}

/// PostgreSQL with a new database, as a systemd unit would run it; gives its port and process id.
fn postgres(world: &World) -> (u16, u32) {
    let programs = tools::postgres();
    let (port, dir) = (free_port(), world.path("postgres"));
    fs::create_dir_all(&dir).expect("make PostgreSQL's directory");
    // It refuses to be root.
    let (user, group) = user("postgres")
        .or_else(|| user("nobody"))
        .expect("a user that is not root");
    chown(&dir, Some(user), Some(group)).expect("give PostgreSQL its directory");
    open_way(&dir);
    let ids = [
        format!("--reuid={user}"),
        format!("--regid={group}"),
        "--clear-groups".to_owned(),
    ];
    let data = path(&dir.join("data"));
    let mut initdb = Command::new("setpriv");
    initdb
        .args(&ids)
        .arg(programs.join("initdb"))
        .args(["-U", "postgres", "-A", "trust", "-N", "--no-locale", "-D", &data])
        .current_dir(&dir);
    finish(start(&mut initdb), "initdb").ok();
    let mut args = ids.to_vec();
    let (port_text, socket) = (port.to_string(), path(&dir));
    args.push(path(&programs.join("postgres")));
    args.extend(["-D", &data, "-p", &port_text, "-k", &socket, "-F"].map(str::to_owned));
    let pid = world.place("shop-db.service").serve("setpriv", &args);
    wait_for("PostgreSQL to be ready", Duration::from_secs(30), || {
        dir.join(format!(".s.PGSQL.{port}")).exists().then_some(())
    });
    wait_for_listener(&format!("127.0.0.1:{port}"));
    (port, pid)
}

/// User and group ids of a name.
fn user(name: &str) -> Option<(u32, u32)> {
    let text = fs::read_to_string("/etc/passwd").ok()?;
    let line = text.lines().find(|line| line.starts_with(&format!("{name}:")))?;
    let mut fields = line.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// Lets other users pass through the world's directory.
fn open_way(dir: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let parent = dir.parent().expect("a parent");
    fs::set_permissions(parent, fs::Permissions::from_mode(0o711)).expect("open the world's directory");
}

/// nginx that passes requests on and logs what passes between it and each service; gives the port.
fn front(world: &World, services: [u16; 3]) -> u16 {
    let (port, dir) = (free_port(), world.path("nginx"));
    fs::create_dir_all(&dir).expect("make nginx's directory");
    let (shown, log) = (dir.display(), log(world, "nginx"));
    let mut http = String::new();
    let mut locations = String::new();
    for (name, port) in SERVICES.into_iter().zip(services) {
        let format =
            format!("{{\"to\":\"{name}\",\"out\":$upstream_bytes_sent,\"in\":$upstream_bytes_received}}");
        http += &format!("log_format {name} '{format}';\n");
        http += &format!("upstream {name} {{ server 127.0.0.1:{port}; keepalive 32; }}\n");
        locations += &format!(
            "location /{name} {{ proxy_pass http://{name}; proxy_http_version 1.1;\n\
             proxy_set_header Connection ''; access_log {} {name}; }}\n",
            log.display()
        );
    }
    let config = format!(
        "daemon off; master_process off; pid {shown}/pid; error_log {shown}/error.log; user root;\n\
         events {{ worker_connections 1024; }}\n\
         http {{ keepalive_requests 100000; client_body_temp_path {shown}; proxy_temp_path {shown};\n\
         fastcgi_temp_path {shown}; uwsgi_temp_path {shown}; scgi_temp_path {shown};\n{http}\
         server {{ listen 127.0.0.1:{port}; {locations} }} }}\n"
    );
    let file = dir.join("nginx.conf");
    fs::write(&file, config).expect("write nginx's configuration");
    let error_log = dir.join("error.log");
    let args = [
        "-c".as_ref(),
        file.as_os_str(),
        "-e".as_ref(),
        error_log.as_os_str(),
    ];
    world.place("web").serve("nginx", &args);
    wait_for_listener(&format!("127.0.0.1:{port}"));
    port
}
