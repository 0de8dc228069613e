//! Proxies that a user would put between two services instead, configured to carry TCP and do nothing else.

use std::fs;

use anyhow::{Context as _, Result};

use super::report;
use crate::{
    cargo::installed,
    demo::stage::{Stage, free_port, wait_for_port},
};

/// A proxy that runs.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) name: &'static str,
    pub(super) version: String,
    /// Where it listens for each upstream, in their order.
    pub(super) ports: Vec<u16>,
    pub(super) pid: u32,
}

struct Kind {
    name: &'static str,
    program: &'static str,
    version_flag: &'static str,
    /// What else must be there, as a file.
    needs: Option<&'static str>,
    config: fn(&[(u16, u16)], &str) -> String,
    args: fn(&str) -> Vec<String>,
}

const STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

const KINDS: [Kind; 3] = [
    Kind {
        name: "HAProxy",
        program: "haproxy",
        version_flag: "-v",
        needs: None,
        config: haproxy,
        args: |file| vec!["-db".into(), "-f".into(), file.into()],
    },
    Kind {
        name: "nginx stream",
        program: "nginx",
        version_flag: "-v",
        needs: Some(STREAM_MODULE),
        config: nginx,
        args: |file| vec!["-c".into(), file.into(), "-e".into(), "/dev/null".into()],
    },
    Kind {
        name: "Envoy",
        program: "envoy",
        version_flag: "--version",
        needs: None,
        config: envoy,
        args: |file| {
            let words = [
                "-c",
                file,
                "--log-level",
                "error",
                "--concurrency",
                "2",
                "--disable-hot-restart",
            ];
            words.into_iter().map(str::to_owned).collect()
        },
    },
];

/// Starts those that are installed, each with a listener for each upstream port.
pub(super) fn start(stage: &mut Stage, place: &str, upstreams: &[u16]) -> Result<Vec<Peer>> {
    let mut peers = Vec::new();
    for kind in &KINDS {
        let has_all = kind.needs.is_none_or(|file| fs::exists(file).unwrap_or(false));
        if !installed(kind.program) || !has_all {
            println!("skipped: {} is not installed", kind.name);
            continue;
        }
        let ports = upstreams
            .iter()
            .map(|_| free_port())
            .collect::<Result<Vec<_>>>()?;
        let pairs: Vec<(u16, u16)> = ports.iter().copied().zip(upstreams.iter().copied()).collect();
        let dir = stage.dir().to_string_lossy().into_owned();
        let file = stage.dir().join(format!("{}.yaml", kind.program));
        fs::write(&file, (kind.config)(&pairs, &dir))?;
        let args = (kind.args)(&file.to_string_lossy());
        let pid = stage.start(place, kind.program, &args)?;
        for &port in &ports {
            wait_for_port(port, kind.name).with_context(|| format!("start {}", kind.name))?;
        }
        peers.push(Peer {
            name: kind.name,
            version: report::version(kind.program, kind.version_flag),
            ports,
            pid,
        });
    }
    Ok(peers)
}

fn haproxy(pairs: &[(u16, u16)], _: &str) -> String {
    let mut text =
        "global\n  maxconn 4000\ndefaults\n  mode tcp\n  option splice-auto\n  timeout connect 5s\n  \
                    timeout client 60s\n  timeout server 60s\n"
            .to_owned();
    for (port, upstream) in pairs {
        text += &format!("listen p{port}\n  bind 127.0.0.1:{port}\n  server s 127.0.0.1:{upstream}\n");
    }
    text
}

fn nginx(pairs: &[(u16, u16)], dir: &str) -> String {
    let mut text = format!(
        "load_module {STREAM_MODULE};\ndaemon off; worker_processes 2; pid {dir}/stream.pid; user root;\n\
         events {{ worker_connections 16384; }}\nstream {{\n  tcp_nodelay on;\n"
    );
    for (port, upstream) in pairs {
        text += &format!("  server {{ listen 127.0.0.1:{port}; proxy_pass 127.0.0.1:{upstream}; }}\n");
    }
    text + "}\n"
}

fn envoy(pairs: &[(u16, u16)], _: &str) -> String {
    let address = |port: u16| format!("{{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}");
    let (mut listeners, mut clusters) = (String::new(), String::new());
    for &(port, upstream) in pairs {
        listeners += &format!(
            "  - name: l{port}\n    address: {}\n    filter_chains:\n    - filters:\n      - name: envoy.filters.network.tcp_proxy\n        \
             typed_config:\n          \"@type\": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy\n          \
             stat_prefix: l{port}\n          cluster: c{port}\n",
            address(port)
        );
        clusters += &format!(
            "  - name: c{port}\n    type: STATIC\n    connect_timeout: 5s\n    circuit_breakers: {{ thresholds: [{{ max_connections: 20000 }}] }}\n    \
             load_assignment:\n      cluster_name: c{port}\n      endpoints:\n      - lb_endpoints:\n        - endpoint: {{ address: {} }}\n",
            address(upstream)
        );
    }
    format!("static_resources:\n  listeners:\n{listeners}  clusters:\n{clusters}")
}
