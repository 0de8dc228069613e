//! Files on a disk: several readers, several files, a killed agent, no more room.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use spike_tests::{
    agent::{self, Agent},
    oracle::{capinfos, tshark},
    workload::nginx,
    world::{World, finish},
};

use super::{end, export, fetch, number, run, start, stop, view};

pub(super) fn has_several_readers_while_it_grows() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let client = world.place("client");
    let id = start(&agent, &["-i", "lo", "--to", &format!("port={port}")]);
    let files = [world.path("a.pcapng"), world.path("b.pcapng")];
    let follow = |file: &Path| {
        let output = file.to_str().expect("UTF-8");
        let args = ["capture", "export", &id, "--follow", "--output", output];
        agent.start_in(&world.place("readers"), &args)
    };
    let early = follow(&files[0]);
    fetch(&client, port, "mib");
    spike_tests::wait_for(
        "the early reader to have some of it",
        Duration::from_secs(5),
        || {
            fs::metadata(&files[0])
                .is_ok_and(|file| file.len() > 1 << 20)
                .then_some(())
        },
    );
    let late = follow(&files[1]);
    fetch(&client, port, "small");
    // A look at what is there now does not wait for the end.
    let now = world.path("now.pcapng");
    export(&agent, &id, &now, &[]);
    assert!(!tshark(&now, "http.request.uri == \"/mib\"", &["frame.number"]).is_empty());
    stop(&agent, &id);
    for reader in [early, late] {
        let done = finish(reader, "spike capture export");
        assert_eq!(done.code(), 0, "{}", done.stderr);
    }
    let [early, late] = files.map(|file| fs::read(file).expect("read a file"));
    assert!(early == late, "{} and {} bytes", early.len(), late.len());
    assert_eq!(early.len() as u64, number(&agent, &id, "bytes"));
}

pub(super) fn is_cut_into_files() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let client = world.place("client");
    let to = format!("port={port}");
    let options = ["-i", "lo", "--to", &to, "--file-size", "100KB", "--files", "3"];
    let id = start(&agent, &options);
    let capture = run(&world, &agent, &world.path("a.pcapng"), &options);
    for _ in 0..3 {
        fetch(&client, port, "mib");
    }
    let said = end(capture);
    stop(&agent, &id);
    let in_dir = |dir: &Path, suffix: &str| -> Vec<PathBuf> {
        let entries = fs::read_dir(dir).expect("list a directory").flatten();
        let mut files: Vec<PathBuf> = entries
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|found| found == suffix))
            .collect();
        files.sort();
        files
    };
    let kept = in_dir(&world.path("state/captures").join(&id), "pcapng");
    let here = in_dir(world.path("a").parent().expect("the directory"), "pcapng");
    for files in [&kept, &here] {
        assert_eq!(files.len(), 3, "{files:?}: {said}");
        for file in files {
            let info = capinfos(file);
            assert!(
                info.contains("Name = lo") && info.contains("Number of stat entries = 1"),
                "{info}"
            );
            let metadata = fs::metadata(file).expect("the file");
            assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
            // Statistics come on top, and a packet of the loopback device has up to 64 KiB.
            assert!(metadata.len() < 100_000 + 70_000, "{} bytes", metadata.len());
        }
    }
    assert_eq!(number(&agent, &id, "files"), 3);
    let whole = world.path("whole.pcapng");
    export(&agent, &id, &whole, &[]);
    let parts: usize = kept
        .iter()
        .map(|file| tshark(file, "frame", &["frame.number"]).len())
        .sum();
    assert_eq!(tshark(&whole, "frame", &["frame.number"]).len(), parts);
}

pub(super) fn outlives_a_killed_agent() {
    let world = World::new();
    let agent = Agent::start(&world);
    let port = nginx(&world, &world.place("web"));
    let id = start(&agent, &["-i", "lo", "--to", &format!("port={port}")]);
    fetch(&world.place("client"), port, "mib");
    spike_tests::wait_for("packets on the disk", Duration::from_secs(5), || {
        (number(&agent, &id, "bytes") > 1 << 20).then_some(())
    });
    agent.kill9();
    let file = world.path("state/captures").join(&id).join("000001.pcapng");
    assert!(capinfos(&file).contains("pcapng"));
    let packets = tshark(&file, "tcp", &["frame.number"]).len();
    assert!(packets > 10);

    let agent = Agent::start(&world);
    let found = view(&agent, &id);
    assert_eq!(found["state"], "ended", "{found}");
    assert!(
        found["note"].as_str().is_some_and(|note| note.contains("killed")),
        "{found}"
    );
    assert_eq!(found["capture"]["to"]["port"], port);
    let copy = world.path("copy.pcapng");
    export(&agent, &id, &copy, &[]);
    assert_eq!(tshark(&copy, "tcp", &["frame.number"]).len(), packets);
    let other = start(&agent, &["-i", "lo"]);
    assert_ne!(other, id, "a name is not used again");
}

/// A small disk of its own.
struct Disk(PathBuf);

impl Disk {
    fn new(path: PathBuf, size: &str) -> Self {
        fs::create_dir(&path).expect("make the place of a disk");
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(&path)
            .status()
            .expect("run mount");
        assert!(done.success(), "mount a small disk");
        Self(path)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

pub(super) fn ends_when_the_disk_is_full() {
    let world = World::new();
    let disk = Disk::new(world.path("disk"), "1m");
    let mut command = agent::command(&world);
    command.arg("--capture-dir").arg(disk.0.join("captures"));
    let agent = Agent::start_with(&world, command);
    let port = nginx(&world, &world.place("web"));
    let client = world.place("client");
    let to = format!("port={port}");
    let id = start(&agent, &["-i", "lo", "--to", &to]);
    for _ in 0..3 {
        fetch(&client, port, "mib");
    }
    let ended = || (view(&agent, &id)["state"] == "ended").then(|| view(&agent, &id));
    let ended = spike_tests::wait_for("the capture to end", Duration::from_secs(5), ended);
    let note = ended["note"].as_str().unwrap_or_default();
    assert!(note.contains("No space left"), "{ended}");
    let file = disk.0.join("captures").join(&id).join("000001.pcapng");
    assert!(capinfos(&file).contains("pcapng"));
    assert!(tshark(&file, "tcp", &["frame.number"]).len() > 10);

    // A client whose own disk is full says so, too.
    agent.spike(&["capture", "remove", &id]).ok();
    let file = disk.0.join("mine.pcapng");
    let capture = run(&world, &agent, &file, &["-i", "lo", "--to", &to]);
    for _ in 0..3 {
        fetch(&client, port, "mib");
    }
    let done = finish(capture, "spike capture");
    assert!(
        done.code() == 1 && done.stderr.contains("No space left"),
        "{}",
        done.stderr
    );
    assert!(done.stderr.contains("can be read"), "{}", done.stderr);
}

pub(super) fn ends_at_the_quota() {
    let world = World::new();
    let mut command = agent::command(&world);
    command.args(["--capture-quota", "500KB"]);
    let agent = Agent::start_with(&world, command);
    let port = nginx(&world, &world.place("web"));
    let to = format!("port={port}");
    let id = start(&agent, &["-i", "lo", "--to", &to]);
    fetch(&world.place("client"), port, "mib");
    spike_tests::wait_for("the capture to end", Duration::from_secs(5), || {
        (view(&agent, &id)["state"] == "ended").then_some(())
    });
    let ended = view(&agent, &id);
    let note = ended["note"].as_str().unwrap_or_default();
    assert!(
        note.contains("500000 bytes") && note.contains("capture remove"),
        "{ended}"
    );
    assert!(number(&agent, &id, "bytes") <= 500_000);
    let file = world.path("state/captures").join(&id).join("000001.pcapng");
    assert!(!tshark(&file, "tcp", &["frame.number"]).is_empty());
    agent.spike(&["capture", "remove", &id]).ok();
    let again = start(&agent, &["-i", "lo", "--to", &to]);
    fetch(&world.place("client"), port, "small");
    stop(&agent, &again);
    assert_eq!(view(&agent, &again)["note"], serde_json::Value::Null);
}
