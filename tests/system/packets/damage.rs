//! Damaged packets, as the receiver's kernel counts them and Wireshark reads them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use spike_tests::{
    agent::Agent,
    needs, wait_for,
    world::{Place, World, finish, kill, start},
};

use super::{Came, Pair, assert_share, trials};

/// `InCsumErrors` of a place's namespace: what its kernel found damaged.
fn checksum_errors(place: &Place<'_>) -> usize {
    let text = place.run("sh", &["-c", "cat /proc/self/net/snmp"]).ok();
    let mut lines = text.lines().filter(|line| line.starts_with("Udp:"));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let at = names.split(' ').position(|name| name == "InCsumErrors");
    let value = at.and_then(|at| values.split(' ').nth(at)?.parse().ok());
    value.unwrap_or_else(|| panic!("{names}\n{values}"))
}

/// What tcpdump takes on the receiving end of datagrams sent there.
fn tcpdump(world: &World, pair: &Pair<'_>, count: usize) -> (Vec<Came>, PathBuf) {
    let file = world.path("there.pcap");
    let output = file.to_str().expect("UTF-8");
    let args = [
        "-i",
        &pair.device_there,
        "-w",
        output,
        "-U",
        "--immediate-mode",
        "udp",
    ];
    let child = pair.there.start("tcpdump", &args);
    wait_for("tcpdump to listen", Duration::from_secs(10), || {
        fs::metadata(&file).ok().filter(|meta| meta.len() > 0).map(drop)
    });
    let came = pair.send(count);
    std::thread::sleep(Duration::from_millis(300));
    kill(child.id(), libc::SIGINT);
    finish(child, "tcpdump");
    (came, file)
}

/// How many UDP checksums tshark finds bad, and how many good.
fn checksums(file: &Path) -> (usize, usize) {
    let mut command = Command::new("tshark");
    command
        .args([
            "-n",
            "-o",
            "udp.check_checksum:TRUE",
            "-T",
            "fields",
            "-e",
            "udp.checksum.status",
            "-r",
        ])
        .arg(file)
        .stdin(Stdio::null());
    let said = finish(start(&mut command), "tshark").ok();
    let count = |status: &str| said.lines().filter(|line| *line == status).count();
    (count("0"), count("1"))
}

pub(super) fn damage_shows_in_the_checksum() {
    let world = World::new();
    let pair = Pair::new(&world);
    let agent = Agent::start(&world);
    pair.here
        .run_helper(&["compute-checksums", &pair.device_here])
        .ok();
    agent.fault(&format!(
        "packet-corrupt --percent-corrupt 10 --bits 3 --name bad {}",
        pair.on()
    ));
    let before = checksum_errors(&pair.there);
    let came = pair.send(trials());
    let damaged = trials() - came.len();
    assert_share(damaged, trials(), 0.1);
    assert!(
        came.iter().all(|came| came.is_whole),
        "the kernel gave damaged datagrams on"
    );
    assert_eq!(checksum_errors(&pair.there) - before, damaged);
    assert_eq!(agent.fault_count("bad", "affected"), damaged as u64);
    needs::program("tcpdump");
    let (came, file) = tcpdump(&world, &pair, 500);
    assert_eq!(
        checksums(&file),
        (500 - came.len(), came.len()),
        "as Wireshark reads them"
    );
}

pub(super) fn damage_under_a_fixed_checksum_reaches_the_application() {
    let world = World::new();
    let pair = Pair::new(&world);
    let agent = Agent::start(&world);
    // Checksums that are there, and checksums that are left to the interface.
    for computed in [false, true] {
        if computed {
            pair.here
                .run_helper(&["compute-checksums", &pair.device_here])
                .ok();
        }
        agent.fault(&format!(
            "packet-corrupt --percent-corrupt 50 --checksum fixed {}",
            pair.on()
        ));
        let before = checksum_errors(&pair.there);
        let came = pair.send(trials());
        assert_eq!(came.len(), trials());
        let damaged = came.iter().filter(|came| !came.is_whole).count();
        assert_share(damaged, trials(), 0.5);
        assert_eq!(checksum_errors(&pair.there), before);
        if computed && Path::new("/usr/bin/tcpdump").exists() {
            let (_, file) = tcpdump(&world, &pair, 200);
            let (bad, good) = checksums(&file);
            // tcpdump may lose some on a slow machine.
            assert!(
                bad == 0 && good >= 150,
                "as Wireshark reads them: {bad} bad, {good} good"
            );
        }
        agent.clear();
    }
}
