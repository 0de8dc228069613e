//! A session's stream must be a whole pcapng file in every way that it can end.

use std::sync::atomic::{AtomicU64, Ordering};

use pcap_parser::{Block, PcapNGSlice};
use tokio::task::JoinHandle;

use super::*;
use crate::capture::oracle;
use crate::capture::record::{About, Direction, LinkType, Party};

/// Counts that a test sets.
#[derive(Default)]
struct Counts {
    received: AtomicU64,
    dropped: AtomicU64,
    written: AtomicU64,
}

impl DropCounts for Counts {
    fn received(&self, interface: u32) -> u64 {
        self.received.load(Ordering::Relaxed) + u64::from(interface)
    }
    fn dropped(&self, _: u32) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
    fn written(&self, _: u32, wire_bytes: u32) {
        self.written.fetch_add(u64::from(wire_bytes), Ordering::Relaxed);
    }
}

/// A running session with both of its ends.
struct Running {
    packets: mpsc::Sender<PacketRecord>,
    out: mpsc::Receiver<Bytes>,
    stop: CancellationToken,
    trigger: watch::Sender<Option<String>>,
    counts: Arc<Counts>,
    task: JoinHandle<Summary>,
}

fn interfaces() -> Vec<Interface> {
    vec![
        Interface {
            name: "lo".to_owned(),
            link_type: LinkType::Ethernet,
            snaplen: 0,
            filter: None,
        },
        Interface {
            name: "eth0@blue".to_owned(),
            link_type: LinkType::Raw,
            snaplen: 64,
            filter: Some("ip".to_owned()),
        },
    ]
}

fn start(count: Option<u64>, duration: Option<Duration>) -> Running {
    start_with(SessionSpec {
        count,
        duration,
        ..SessionSpec::default()
    })
}

fn start_with(spec: SessionSpec) -> Running {
    let (packets, packets_rx) = mpsc::channel(1024);
    let (out_tx, out) = mpsc::channel(4);
    let stop = CancellationToken::new();
    let counts = Arc::new(Counts::default());
    let spec = SessionSpec {
        interfaces: interfaces(),
        ..spec
    };
    let (trigger, trigger_rx) = watch::channel(None);
    let controls = Controls {
        stop: stop.clone(),
        trigger: trigger_rx,
    };
    let task = tokio::spawn(run(spec, packets_rx, out_tx, controls, counts.clone()));
    Running {
        trigger,
        packets,
        out,
        stop,
        counts,
        task,
    }
}

impl Running {
    /// All that is still to come, and the summary.
    async fn finish(mut self) -> (Vec<u8>, Summary) {
        let mut file = Vec::new();
        while let Some(bytes) = self.out.recv().await {
            file.extend_from_slice(&bytes);
        }
        (file, self.task.await.unwrap())
    }
}

fn packet(timestamp_ns: u64, size: usize) -> PacketRecord {
    PacketRecord {
        timestamp_ns,
        interface: 0,
        direction: Direction::Out,
        original_len: size as u32,
        data: vec![0; size].into(),
        dropped: 0,
        resets: false,
        about: about(true, true),
    }
}

fn about(sends: bool, receives: bool) -> Arc<About> {
    let curl = Party {
        pid: 1234,
        process: "curl".to_owned(),
        ..Party::default()
    };
    let nginx = Party {
        pid: 77,
        process: "nginx".to_owned(),
        service: Some("web".to_owned()),
        container: Some("web-1".to_owned()),
    };
    Arc::new(About::new(sends.then_some(&curl), receives.then_some(&nginx)))
}

/// The number of packets, and of statistics blocks, of a file that has nothing wrong in it.
fn tally(file: &[u8]) -> (usize, usize) {
    let slice = PcapNGSlice::from_slice(file).expect("a pcapng file");
    let mut tally = (0, 0);
    for block in slice {
        match block.expect("a whole block") {
            pcap_parser::PcapBlockOwned::NG(Block::EnhancedPacket(_)) => tally.0 += 1,
            pcap_parser::PcapBlockOwned::NG(Block::InterfaceStatistics(_)) => tally.1 += 1,
            _ => {}
        }
    }
    tally
}

#[tokio::test]
async fn header_comes_at_once_and_a_packet_soon_after() {
    let mut session = start(None, None);
    let header = timeout(Duration::from_millis(500), session.out.recv())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(tally(&header), (0, 0));
    session.packets.send(packet(1, 60)).await.unwrap();
    let sent = Instant::now();
    timeout(Duration::from_millis(500), session.out.recv())
        .await
        .unwrap()
        .unwrap();
    assert!(
        sent.elapsed() >= FLUSH_AFTER - Duration::from_millis(2),
        "one block at a time costs a call for each"
    );
}

#[tokio::test]
async fn stop_keeps_what_was_captured_before_it() {
    let session = start(None, None);
    session.counts.received.store(300, Ordering::Relaxed);
    session.counts.dropped.store(7, Ordering::Relaxed);
    for n in 0..200 {
        session.packets.send(packet(n, 60)).await.unwrap();
    }
    session.stop.cancel();
    // Still in the kernel's ring when the stop came, handed over a little later.
    let late = session.packets.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(30)).await;
        for n in 200..250 {
            late.send(packet(n, 60)).await.unwrap();
        }
    });
    let (file, summary) = session.finish().await;
    assert_eq!(tally(&file), (250, 2));
    assert_eq!(
        summary,
        Summary {
            end: End::Stopped,
            packets: 250,
            bytes: file.len() as u64,
            received: 601, // 300 on lo, 301 on the other
            dropped: 14,
            unknown_interface: 0
        }
    );
}

#[tokio::test]
async fn stop_ends_although_traffic_goes_on() {
    let session = start(None, None);
    let packets = session.packets.clone();
    let traffic = tokio::spawn(async move {
        while packets.send(packet(unix_now(), 60)).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    session.stop.cancel();
    let stopped = unix_now();
    let (file, summary) = timeout(Duration::from_secs(1), session.finish())
        .await
        .expect("an end");
    assert_eq!(summary.end, End::Stopped);
    traffic.await.unwrap();
    let allowed = stopped + nanos(Duration::from_millis(20));
    for block in PcapNGSlice::from_slice(&file).unwrap() {
        if let pcap_parser::PcapBlockOwned::NG(Block::EnhancedPacket(packet)) = block.unwrap() {
            let time = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
            assert!(time <= allowed, "{} ns after the stop", time - stopped);
        }
    }
}

#[tokio::test]
async fn count_is_exact() {
    let session = start(Some(5), None);
    for n in 0..20 {
        let _ = session.packets.send(packet(n, 60)).await;
    }
    let (file, summary) = session.finish().await;
    assert_eq!(
        (tally(&file), summary.end, summary.packets),
        ((5, 2), End::Count, 5)
    );
}

#[tokio::test]
async fn duration_ends_it() {
    let started = Instant::now();
    let session = start(None, Some(Duration::from_millis(150)));
    session.packets.send(packet(1, 60)).await.unwrap();
    let (file, summary) = session.finish().await;
    assert_eq!((tally(&file), summary.end), ((1, 2), End::Duration));
    let took = started.elapsed();
    assert!(
        took >= Duration::from_millis(150) && took < Duration::from_secs(1),
        "{took:?}"
    );
}

#[tokio::test]
async fn closed_source_ends_it_with_all_packets() {
    let mut session = start(None, None);
    for n in 0..10 {
        session.packets.send(packet(n, 60)).await.unwrap();
    }
    session.packets = mpsc::channel(1).0;
    let (file, summary) = session.finish().await;
    assert_eq!((tally(&file), summary.end), ((10, 2), End::SourceClosed));
}

#[tokio::test]
async fn reader_that_leaves_ends_it() {
    let mut session = start(None, None);
    session.out.recv().await.unwrap();
    session.out.close();
    let summary = timeout(Duration::from_secs(1), session.task)
        .await
        .expect("an end")
        .unwrap();
    assert_eq!(summary.end, End::ReaderGone);
}

#[tokio::test]
async fn slow_reader_holds_packets_back_and_loses_none() {
    let mut session = start(None, None);
    let packets = session.packets.clone();
    // 16 MiB, far beyond what queue and buffers hold.
    let sender = tokio::spawn(async move {
        for n in 0..4096 {
            packets.send(packet(n, 4096)).await.unwrap();
        }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!sender.is_finished(), "the queue must have filled up");
    let mut file = Vec::new();
    while !sender.is_finished() {
        file.extend_from_slice(&session.out.recv().await.unwrap());
    }
    session.stop.cancel();
    let (rest, summary) = session.finish().await;
    file.extend_from_slice(&rest);
    assert_eq!((tally(&file), summary.packets), ((4096, 2), 4096));
}

#[tokio::test]
async fn wireshark_sees_who_spoke_to_whom() {
    let session = start(Some(4), None);
    let counts = session.counts.clone();
    let start_ns = 1_700_000_000_000_000_001;
    let both = packet(start_ns, 60);
    let records = [
        PacketRecord {
            about: about(true, false),
            ..both.clone()
        },
        PacketRecord {
            about: about(false, true),
            direction: Direction::In,
            ..both.clone()
        },
        PacketRecord {
            interface: 9,
            ..both.clone()
        }, // of nobody's: left out, counted
        PacketRecord {
            interface: 1,
            about: about(false, false),
            original_len: 9000,
            data: vec![0; 80].into(),
            ..both.clone()
        },
        both,
    ];
    for record in records {
        session.packets.send(record).await.unwrap();
    }
    let (file, summary) = session.finish().await;
    assert_eq!((summary.packets, summary.unknown_interface), (4, 1));
    assert_eq!(counts.written.load(Ordering::Relaxed), 60 * 3 + 9000);
    let fields = [
        "frame.comment",
        "frame.interface_name",
        "frame.cap_len",
        "frame.len",
        "frame.time_epoch",
    ];
    let Some(rows) = oracle::tshark(&file, &fields) else {
        return;
    };
    let time = "1700000000.000000001";
    assert_eq!(
        rows,
        [
            ["curl[1234] ->", "lo", "60", "60", time],
            ["-> nginx[77] service=web container=web-1", "lo", "60", "60", time],
            ["", "eth0@blue", "64", "9000", time],
            [
                "curl[1234] -> nginx[77] service=web container=web-1",
                "lo",
                "60",
                "60",
                time
            ],
        ]
    );
    let info = oracle::capinfos(&file).expect("capinfos comes with tshark");
    assert!(
        info.contains(concat!("Capture application: spike ", env!("CARGO_PKG_VERSION"))),
        "{info}"
    );
}

#[tokio::test]
async fn what_it_waits_for_brings_what_was_before() {
    let session = start_with(SessionSpec {
        wait: Some(Waiting {
            before: Duration::from_secs(10),
            after: Duration::from_millis(100),
            for_reset: true,
        }),
        ..SessionSpec::default()
    });
    let now = unix_now();
    session
        .packets
        .send(packet(now - nanos(Duration::from_secs(60)), 60))
        .await
        .unwrap();
    for n in 0..5 {
        session.packets.send(packet(now + n, 60)).await.unwrap();
    }
    let reset = PacketRecord {
        resets: true,
        ..packet(now + 5, 54)
    };
    session.packets.send(reset).await.unwrap();
    session.packets.send(packet(now + 6, 60)).await.unwrap();
    let (file, summary) = session.finish().await;
    assert_eq!((tally(&file), summary.end), ((7, 2), End::Duration));
    let Some(rows) = oracle::tshark(&file, &["frame.comment", "frame.len"]) else {
        return;
    };
    let marked: Vec<_> = rows
        .iter()
        .filter(|row| row[0].ends_with("(triggered: reset)"))
        .collect();
    assert_eq!((marked.len(), &*marked[0][1]), (1, "54"));
}

#[tokio::test]
async fn nothing_is_written_of_what_did_not_happen() {
    let session = start_with(SessionSpec {
        wait: Some(Waiting {
            before: Duration::from_secs(10),
            after: Duration::from_millis(50),
            for_reset: false,
        }),
        ..SessionSpec::default()
    });
    session.packets.send(packet(unix_now(), 60)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    session.stop.cancel();
    assert_eq!(tally(&session.finish().await.0), (0, 2));

    let session = start_with(SessionSpec {
        wait: Some(Waiting {
            before: Duration::from_secs(10),
            after: Duration::from_millis(50),
            for_reset: false,
        }),
        ..SessionSpec::default()
    });
    session.packets.send(packet(unix_now(), 60)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    session.trigger.send_replace(Some("by hand".to_owned()));
    assert_eq!(tally(&session.finish().await.0), (1, 2));
}

#[tokio::test]
async fn each_section_is_a_file_of_its_own() {
    let session = start_with(SessionSpec {
        file_size: Some(4096),
        ..SessionSpec::default()
    });
    session.counts.received.store(100, Ordering::Relaxed);
    let (packets, stop) = (session.packets.clone(), session.stop.clone());
    tokio::spawn(async move {
        for n in 0..100 {
            packets.send(packet(n, 400)).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        stop.cancel();
    });
    let (file, summary) = session.finish().await;
    assert_eq!(summary.packets, 100);
    let mut blocks = crate::capture::blocks::Blocks::default();
    blocks.push(&file);
    let mut files: Vec<Vec<u8>> = Vec::new();
    while let Some(block) = blocks.next_block().unwrap() {
        if block.begins_section() {
            files.push(Vec::new());
        }
        files.last_mut().unwrap().extend_from_slice(&block.bytes);
    }
    assert!(files.len() >= 10, "{}", files.len());
    let mut total = 0;
    for file in &files {
        assert!(
            file.len() <= 4096 + 2 * 96,
            "statistics come on top: {}",
            file.len()
        );
        let (packets, statistics) = tally(file);
        assert_eq!(statistics, 2);
        total += packets;
    }
    assert_eq!(total, 100);
    assert!(oracle::capinfos(&files[1]).is_none_or(|info| info.contains("eth0@blue")));
}

#[tokio::test]
async fn a_size_ends_it() {
    let session = start_with(SessionSpec {
        size: Some(10_000),
        ..SessionSpec::default()
    });
    let packets = session.packets.clone();
    tokio::spawn(async move {
        for n in 0..100 {
            if packets.send(packet(n, 1000)).await.is_err() {
                return;
            }
        }
    });
    let (file, summary) = session.finish().await;
    assert_eq!(summary.end, End::Size);
    assert!((10_000..12_000).contains(&file.len()), "{}", file.len());
}
