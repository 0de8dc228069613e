//! Programs that judge Spike from outside: what the client saw, what Wireshark reads, what the kernel lists.

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::{
    needs,
    world::{Done, Place, World, finish, kill, start},
};

/// What curl saw.
#[derive(Clone, Debug)]
pub struct Curl {
    /// curl's exit code: 0, 7 when it could not connect, 28 for a timeout, 56 for a reset.
    pub code: i32,
    /// Time of the whole call.
    pub time: Duration,
    /// Status of the response; 0 without one.
    pub status: u16,
    /// Bytes of the body.
    pub size: u64,
    /// curl's complaint.
    pub error: String,
}

/// One call of curl, with more arguments if need be.
pub fn curl(place: &Place<'_>, url: &str, more: &[&str]) -> Curl {
    let format = "%{time_total} %{http_code} %{size_download}";
    let args = [
        &["-sS", "-m", "20", "-o", "/dev/null", "-w", format],
        more,
        &[url],
    ]
    .concat();
    let Done {
        status,
        stdout,
        stderr,
    } = place.run("curl", &args);
    let words: Vec<&str> = stdout.split_whitespace().collect();
    let word = |at: usize| words.get(at).copied().unwrap_or("0");
    Curl {
        code: status.code().unwrap_or(-1),
        time: Duration::from_secs_f64(word(0).parse().unwrap_or(0.0)),
        status: word(1).parse().unwrap_or(0),
        size: word(2).parse().unwrap_or(0),
        error: stderr,
    }
}

/// Median time of some calls of curl, all of which must succeed.
#[track_caller]
pub fn median_time(place: &Place<'_>, url: &str, calls: usize) -> Duration {
    let mut times: Vec<Duration> = (0..calls)
        .map(|_| {
            let seen = curl(place, url, &[]);
            assert_eq!((seen.code, seen.status), (0, 200), "{}", seen.error);
            seen.time
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

/// What capinfos says of a capture, without a complaint.
#[track_caller]
pub fn capinfos(file: &Path) -> String {
    quiet(Command::new("capinfos").arg(file))
}

/// Fields of each packet as tshark reads them, without a complaint and with every TCP checksum checked.
#[track_caller]
pub fn tshark(file: &Path, filter: &str, fields: &[&str]) -> Vec<Vec<String>> {
    let mut command = Command::new("tshark");
    command
        .arg("-n")
        .arg("-r")
        .arg(file)
        .args(["-T", "fields", "-Y", filter]);
    for field in fields {
        command.args(["-e", field]);
    }
    let row = |line: &str| line.split('\t').map(str::to_owned).collect();
    quiet(&mut command).lines().map(row).collect()
}

/// What another tool for captures says, which must succeed.
#[track_caller]
pub fn tool<A: AsRef<std::ffi::OsStr>>(program: &str, args: &[A]) -> String {
    needs::program(program);
    let mut command = Command::new(program);
    finish(start(command.args(args).stdin(Stdio::null())), program).ok()
}

#[track_caller]
fn quiet(command: &mut Command) -> String {
    let name = command.get_program().to_string_lossy().into_owned();
    let Done {
        status,
        stdout,
        stderr,
    } = finish(
        start(command.env("LC_ALL", "C.UTF-8").stdin(Stdio::null())),
        &name,
    );
    let complaints: Vec<&str> = stderr
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.starts_with("Running as user \"root\""))
        .collect();
    assert!(
        status.success() && complaints.is_empty(),
        "{name} {status}: {complaints:#?}"
    );
    stdout
}

/// Names of Spike's programs that bpftool finds attached to the world's cgroups.
pub fn attached_programs(world: &World) -> Vec<String> {
    let mut command = Command::new("bpftool");
    // It cannot read what older kernels say of a cgroup: there, all programs of the machine.
    if needs::kernel_version() < (6, 0) {
        command.args(["prog", "show"]);
    } else {
        command.args(["cgroup", "tree"]).arg(&world.cgroup);
    }
    let done = finish(start(command.stdin(Stdio::null())), "bpftool");
    assert_eq!(done.code(), 0, "bpftool: {}{}", done.stdout, done.stderr);
    let words = done.stdout.split_whitespace();
    words
        .filter(|word| word.starts_with("spike_"))
        .map(str::to_owned)
        .collect()
}

/// Programs of Spike that bpftool finds on network devices.
pub fn programs_on_devices() -> Vec<String> {
    let mut command = Command::new("bpftool");
    command.args(["net", "show"]).stdin(Stdio::null());
    let done = finish(start(&mut command), "bpftool");
    done.stdout
        .lines()
        .filter(|line| line.contains("spike_"))
        .map(str::to_owned)
        .collect()
}

/// tcpdump that writes the TCP packets of some ports to a file until it is dropped.
#[derive(Debug)]
pub struct Tcpdump {
    child: Child,
    file: PathBuf,
}

impl Tcpdump {
    /// Watches a device of this namespace.
    pub fn start(device: &str, ports: &[u16], file: PathBuf) -> Self {
        let ports: Vec<String> = ports.iter().map(|port| format!("tcp port {port}")).collect();
        let mut command = Command::new("tcpdump");
        command
            .args([
                "-i",
                device,
                "-n",
                "-U",
                "-s",
                "128",
                "-B",
                "16384",
                "--time-stamp-precision=nano",
                "-w",
            ])
            .arg(&file)
            .arg(ports.join(" or "))
            .stdin(Stdio::null());
        let mut child = start(&mut command);
        let mut said = BufReader::new(child.stderr.take().expect("tcpdump's output"));
        let mut line = String::new();
        while !line.contains("listening on") {
            line.clear();
            let length = said.read_line(&mut line).expect("read from tcpdump");
            assert!(length > 0, "tcpdump ended");
        }
        // What it says at its end finds a reader.
        child.stderr = Some(said.into_inner());
        Self { child, file }
    }

    /// Ends it, and gives the time from each request's last packet to its response's first, at a port: in nanoseconds,
    /// sorted.
    pub fn latencies(&mut self, port: u16) -> Vec<u64> {
        self.stop();
        let fields = ["tcp.stream", "tcp.dstport", "tcp.len", "frame.time_epoch"];
        let filter = format!("tcp.port == {port} and tcp.len > 0 and not tcp.analysis.retransmission");
        let mut asked: HashMap<String, u64> = HashMap::new();
        let mut latencies = Vec::new();
        for packet in tshark(&self.file, &filter, &fields) {
            let [stream, to, _, time] = <[String; 4]>::try_from(packet).expect("four fields");
            let (seconds, fraction) = time.split_once('.').expect("a time");
            let time = seconds.parse::<u64>().expect("seconds") * 1_000_000_000
                + format!("{fraction:0<9}")[..9].parse::<u64>().expect("a fraction");
            if to == port.to_string() {
                asked.insert(stream, time);
            } else if let Some(asked) = asked.remove(&stream) {
                latencies.push(time - asked);
            }
        }
        latencies.sort_unstable();
        latencies
    }

    fn stop(&mut self) {
        if self.child.try_wait().expect("ask for tcpdump").is_none() {
            kill(self.child.id(), libc::SIGINT);
            self.child.wait().expect("wait for tcpdump");
        }
    }
}

impl Drop for Tcpdump {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
