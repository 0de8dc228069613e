//! Names whose server is down: questions in datagrams, answered from a recording.

use spike_tests::{
    agent::Agent,
    tools::script,
    workload::{free_port, wait_for_listener},
    world::{Done, Place, World, finish},
};

use super::{is_down, serve};
use crate::calls::{dns, own_address};

/// `spike exec` of a script in Python for which a file is `/etc/resolv.conf`.
fn exec_resolving(agent: &Agent, place: &Place<'_>, options: &[&str], resolv: &str, args: &[&str]) -> Done {
    let mut command = place.command(spike_tests::agent::spike_bin());
    command
        .arg("exec")
        .args(options)
        .args(["--", "unshare", "--mount", "sh", "-c"])
        .args([
            "mount --bind \"$1\" /etc/resolv.conf && shift && exec python3 \"$@\"",
            "sh",
            resolv,
        ])
        .args(args)
        .env("SPIKE_SOCKET", agent.socket());
    finish(spike_tests::world::start(&mut command), "spike exec")
}

pub(super) fn names_resolve_with_their_server_stopped() {
    let servers = World::new();
    let world = World::new();
    let agent = Agent::start(&world);
    let name = "rates.shop.test";
    let resolver = own_address(5);
    let resolv = dns(&servers, &resolver, &[(name, "127.0.0.1")]);
    let port = free_port().to_string();
    serve(&servers, &servers.place("rates"), "json_rates.py", &[&port]);
    wait_for_listener(&format!("127.0.0.1:{port}"));
    // It outlives the servers.
    let kept = world.path("resolv.conf").display().to_string();
    std::fs::copy(&resolv, &kept).expect("copy resolv.conf");
    let file = world.path("names.spike").display().to_string();
    let shell = world.place("shell");
    let suite = script("names_suite.py").display().to_string();
    let args = [suite.as_str(), name, &port, &resolver];
    let recorded = exec_resolving(&agent, &shell, &["--record", &file], &kept, &args);
    assert_eq!(recorded.code(), 0, "recording: {}", recorded.stderr);
    let calls = agent.spike(&["record", "export", &file, "--jsonl"]).ok();
    assert!(calls.contains("\"127.0.0.1\"") && calls.contains(name), "{calls}");

    drop(servers);
    is_down(port.parse().expect("a port"));
    let alone = exec_resolving(&agent, &shell, &[], &kept, &args);
    assert_ne!(alone.code(), 0, "{}", alone.stderr);
    let stubbed = ["--stub", file.as_str(), "--strict"];
    for run in 1..=3 {
        let done = exec_resolving(&agent, &shell, &stubbed, &kept, &args);
        assert_eq!(done.code(), 0, "run {run}: {}{}", done.stdout, done.stderr);
    }
    // By way of packets, too.
    let [packets, again] = ["names.pcapng", "again.spike"].map(|name| world.path(name).display().to_string());
    agent
        .spike(&["record", "export", &file, "--pcapng", "-o", &packets])
        .ok();
    let asked = shell
        .run(
            "tshark",
            &[
                "-r",
                &packets,
                "-Y",
                "udp && dns.flags.response == 1",
                "-T",
                "fields",
                "-e",
                "dns.qry.name",
            ],
        )
        .ok();
    assert!(asked.lines().filter(|line| *line == name).count() >= 3, "{asked}");
    let imported = agent.spike(&["record", "import", &packets, "-o", &again]);
    assert_eq!(imported.code(), 0, "{}", imported.stderr);
    let from_packets = ["--stub", again.as_str(), "--strict"];
    let done = exec_resolving(&agent, &shell, &from_packets, &kept, &args);
    assert_eq!(done.code(), 0, "{}{}", done.stdout, done.stderr);
    // Another host has another name server.
    let (other, elsewhere) = (world.path("other.conf").display().to_string(), own_address(6));
    std::fs::write(&other, format!("nameserver {elsewhere}\n")).expect("write resolv.conf");
    let args = [suite.as_str(), name, &port, &elsewhere];
    let done = exec_resolving(&agent, &shell, &stubbed, &other, &args);
    assert_eq!(done.code(), 0, "{}{}", done.stdout, done.stderr);
    // A name that was not recorded does not resolve, and is told.
    let ask = "import socket\ntry: socket.gethostbyname('other.shop.test')\nexcept OSError: pass\n";
    let done = exec_resolving(&agent, &shell, &stubbed, &kept, &["-c", ask]);
    assert_eq!(done.code(), 3, "{}{}", done.stdout, done.stderr);
    let told = "no recorded answer to A other.shop.test; nearest: A ";
    assert!(
        done.stderr.contains(told) || done.stdout.contains(told),
        "{}{}",
        done.stdout,
        done.stderr
    );
    // A stub by itself is for those whom it was said to be for.
    let (mine, others) = (shell.selector(), world.place("others"));
    agent
        .spike(&[
            "replay", "stub", &file, "--detach", "--name", "names", "--from", &mine,
        ])
        .ok();
    let resolves = |place: &Place<'_>| {
        let line = format!("import socket; print(socket.gethostbyname('{name}'))");
        let script = format!("mount --bind {kept} /etc/resolv.conf && exec python3 -c \"{line}\"");
        place.run("unshare", &["--mount", "sh", "-c", &script]).code() == 0
    };
    assert!(resolves(&shell) && !resolves(&others));
    agent.spike(&["replay", "stop", "names"]).ok();
    assert!(!resolves(&shell));
}
