//! A small shop of services in several languages, to have its map drawn and judged.
//!
//! ```text
//! load -> nginx, nginx -> users (Python), orders (JavaScript) -> stock (Perl)
//!                         users, orders -> redis
//! ```

use std::{fs, path::PathBuf};

use serde_json::Value;

use crate::{
    needs,
    workload::{free_port, redis, wait_for_listener},
    world::World,
};

/// The distribution's own: others may be started by a script of another name.
const PYTHON: &str = "/usr/bin/python3";

/// Services that a test plants, and the shop's own.
#[derive(Debug)]
pub struct Shop<'w> {
    world: &'w World,
    /// Ports of its two nginx.
    pub fronts: Vec<u16>,
}

/// The edges of the clean shop: who calls whom in what.
pub const EDGES: [(&str, &str, &str); 6] = [
    ("load", "nginx", "http"),
    ("nginx", "orders", "http"),
    ("nginx", "users", "http"),
    ("orders", "redis-server", "redis"),
    ("orders", "stock", "http"),
    ("users", "redis-server", "redis"),
];

impl<'w> Shop<'w> {
    /// Nothing runs yet.
    pub fn new(world: &'w World) -> Self {
        needs::program(PYTHON);
        Self {
            world,
            fronts: Vec::new(),
        }
    }

    /// Starts the clean shop: two of each service but the stores, eight processes; nobody calls it yet.
    pub fn clean(world: &'w World) -> Self {
        for program in ["node", "perl"] {
            needs::program(program);
        }
        let mut shop = Self::new(world);
        let redis = redis(world, &world.place("redis"));
        let stock = shop.stock();
        for _ in 0..2 {
            let users = shop.service("users", &serde_json::json!({ "redis": redis }));
            let orders = shop.orders(stock, redis);
            let front = shop.front(users, orders);
            shop.fronts.push(front);
        }
        shop
    }

    /// A service of this name with a plan, as `shop/service.py` has it; gives its port.
    pub fn service(&self, name: &str, plan: &Value) -> u16 {
        let port = free_port();
        self.service_at(name, port, plan);
        port
    }

    /// The same at a port that is known already, for rings.
    pub fn service_at(&self, name: &str, port: u16, plan: &Value) {
        let script = self.script(&format!("{name}.py"), include_str!("shop/service.py"));
        let (port_text, plan) = (port.to_string(), plan.to_string());
        let args = [script.to_str().expect("a path in UTF-8"), &port_text, &plan];
        self.world.place(&format!("{name}-{port}")).serve(PYTHON, &args);
        wait_for_listener(&format!("127.0.0.1:{port}"));
    }

    /// Asks some ports for a path without end, with a pause in seconds.
    pub fn load(&self, pause: &str, path: &str, ports: &[u16]) {
        let script = self.script("load.py", include_str!("shop/load.py"));
        let mut args = vec![
            script.to_string_lossy().into_owned(),
            pause.to_owned(),
            path.to_owned(),
        ];
        args.extend(ports.iter().map(u16::to_string));
        self.world.place("load").serve(PYTHON, &args);
    }

    fn stock(&self) -> u16 {
        let port = free_port();
        let script = self.script("stock.pl", include_str!("shop/stock.pl"));
        let args = [script.to_string_lossy().into_owned(), port.to_string()];
        self.world.place("stock").serve("perl", &args);
        wait_for_listener(&format!("127.0.0.1:{port}"));
        port
    }

    fn orders(&self, stock: u16, redis: u16) -> u16 {
        let port = free_port();
        let script = self.script("orders.js", include_str!("shop/orders.js"));
        let mut args = vec![script.to_string_lossy().into_owned()];
        args.extend([port, stock, redis].map(|port| port.to_string()));
        self.world.place(&format!("orders-{port}")).serve("node", &args);
        wait_for_listener(&format!("127.0.0.1:{port}"));
        port
    }

    /// nginx that passes every second call to each of two services, over connections that are kept.
    fn front(&self, users: u16, orders: u16) -> u16 {
        let port = free_port();
        let dir = self.world.path(&format!("front-{port}"));
        fs::create_dir_all(&dir).expect("make nginx's directory");
        let shown = dir.display();
        let config = format!(
            "daemon off; master_process off; pid {shown}/pid; error_log {shown}/error.log; user root;\n\
             events {{ worker_connections 1024; }}\n\
             http {{ access_log off; keepalive_requests 1000000000; client_body_temp_path {shown};\n\
             proxy_temp_path {shown}; fastcgi_temp_path {shown}; uwsgi_temp_path {shown}; scgi_temp_path {shown};\n\
             upstream both {{ server 127.0.0.1:{users}; server 127.0.0.1:{orders}; keepalive 8;\n\
             keepalive_requests 1000000000; }}\n\
             server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://both; proxy_http_version 1.1;\n\
             proxy_set_header Connection ''; }} }} }}\n"
        );
        let file = dir.join("nginx.conf");
        fs::write(&file, config).expect("write nginx's configuration");
        let log = dir.join("error.log");
        let args = ["-c".as_ref(), file.as_os_str(), "-e".as_ref(), log.as_os_str()];
        self.world.place(&format!("front-{port}")).serve("nginx", &args);
        wait_for_listener(&format!("127.0.0.1:{port}"));
        port
    }

    /// Services are named by their scripts.
    fn script(&self, name: &str, content: &str) -> PathBuf {
        let path = self.world.path(name);
        fs::write(&path, content).expect("write a script");
        path
    }
}

/// Nodes and edges of a flowchart as Mermaid's own parser reads them; none where it is not installed
/// (`scripts/setup.sh --test` does that where there is npm).
pub fn mermaid(world: &World, chart: &str) -> Option<Value> {
    let dir = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/mermaid"));
    if !dir.join("node_modules/mermaid").is_dir() {
        return None;
    }
    // A module finds others only from where it lies.
    let script = dir.join(format!("check-{}.mjs", world.name));
    fs::write(&script, include_str!("shop/mermaid.mjs")).expect("write the script");
    let file = world.path("chart.mmd");
    fs::write(&file, chart).expect("write the chart");
    let line = format!("node {} <{}", script.display(), file.display());
    let text = world.place("oracle").run("sh", &["-c", &line]).ok();
    let _ = fs::remove_file(&script);
    Some(serde_json::from_str(&text).expect("JSON of the parser"))
}
