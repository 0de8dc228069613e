//! Real namespaces: `ip` makes them and connects from inside them.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    net::{SocketAddr, TcpStream},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::Path,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use rustix::thread::{UnshareFlags, unshare_unsafe};
use tokio::{io::AsyncWriteExt, net::TcpListener};
use tokio_util::sync::CancellationToken;

use super::{ListenerTable, Namespaces, Serve};
use crate::{
    model::view::{NamespaceState, NamespaceView},
    proxy::UpstreamSockets,
};

/// Stands in for the kernel.
#[derive(Default)]
struct Table(Mutex<BTreeMap<u64, (u16, u16)>>);

impl Table {
    fn get(&self, cookie: u64) -> Option<(u16, u16)> {
        self.0.lock().unwrap().get(&cookie).copied()
    }
}

impl ListenerTable for Table {
    fn cookie(&self, socket: BorrowedFd<'_>) -> io::Result<u64> {
        let mut cookie = 0_u64;
        let mut size = size_of::<u64>() as libc::socklen_t;
        let (level, name) = (libc::SOL_SOCKET, libc::SO_NETNS_COOKIE);
        let value = (&raw mut cookie).cast();
        // SAFETY: the kernel writes at most `size` bytes, which `cookie` has; both live until the call returned.
        let result = unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, value, &raw mut size) };
        (result == 0)
            .then_some(cookie)
            .ok_or_else(io::Error::last_os_error)
    }

    fn set(&self, netns_cookie: u64, port4: u16, port6: u16) -> Result<()> {
        self.0.lock().unwrap().insert(netns_cookie, (port4, port6));
        Ok(())
    }

    fn remove(&self, netns_cookie: u64) {
        self.0.lock().unwrap().remove(&netns_cookie);
    }
}

/// Answers each connection with the cookie of the namespace, and keeps the maker of sockets for the test.
#[derive(Default)]
struct Greeter(Mutex<BTreeMap<u64, Arc<dyn UpstreamSockets>>>);

impl Greeter {
    fn socket(&self, cookie: u64, ipv6: bool) -> io::Result<OwnedFd> {
        let sockets = self.0.lock().unwrap()[&cookie].clone();
        sockets.tcp(ipv6)
    }
}

impl Serve for Greeter {
    fn serve(
        &self,
        listener: TcpListener,
        netns_cookie: u64,
        sockets: Arc<dyn UpstreamSockets>,
        stop: CancellationToken,
    ) {
        self.0.lock().unwrap().insert(netns_cookie, sockets);
        tokio::spawn(stop.run_until_cancelled_owned(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.write_all(netns_cookie.to_string().as_bytes()).await;
            }
        }));
    }
}

struct World {
    table: Arc<Table>,
    greeter: Arc<Greeter>,
    namespaces: Arc<Namespaces>,
    stop: CancellationToken,
}

impl World {
    fn new() -> Self {
        let table = Arc::<Table>::default();
        let greeter = Arc::<Greeter>::default();
        let stop = CancellationToken::new();
        let namespaces = Namespaces::new(table.clone(), greeter.clone(), stop.clone());
        Self {
            table,
            greeter,
            namespaces,
            stop,
        }
    }

    fn named(&self, name: &str) -> Option<NamespaceView> {
        let mut all = self.namespaces.view().into_iter();
        all.find(|view| view.name.as_deref() == Some(name))
    }

    fn by_inode(&self, inode: u64) -> Option<NamespaceView> {
        self.namespaces
            .view()
            .into_iter()
            .find(|view| view.inode == inode)
    }

    fn host(&self) -> NamespaceView {
        self.named("host").unwrap()
    }
}

/// A namespace with a name, deleted at the end of its test.
struct Named(String);

impl Named {
    fn add() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let named = Self(format!("spike-ns-{}-{number}", std::process::id()));
        ip(&format!("netns add {}", named.0));
        named
    }

    fn loopback(&self, state: &str) {
        ip(&format!("-n {} link set lo {state}", self.0));
    }

    /// What a process inside reads from `address`.
    fn read_from(&self, address: &str, port: u16) -> String {
        let script = format!("exec 3<>/dev/tcp/{address}/{port}; cat <&3");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0, "timeout", "5", "bash", "-c", &script]);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).output();
    }
}

fn ip(words: &str) {
    let output = Command::new("ip").args(words.split(' ')).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {words}: {error}");
}

async fn within<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

const SECOND: Duration = Duration::from_secs(1);

fn greeting(port: u16) -> String {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut text = String::new();
    TcpStream::connect(address)
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    text
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by cargo xtask test"]
async fn the_own_namespace_is_served_while_armed() {
    let world = World::new();
    assert_eq!(world.namespaces.view(), []);
    world.namespaces.set_armed(true).await.unwrap();
    let host = world.host();
    assert_eq!(host.state, NamespaceState::Ready);
    let (port4, port6) = world.table.get(host.cookie).unwrap();
    assert_ne!((port4, port6), (0, 0));
    assert_eq!(greeting(port4), host.cookie.to_string());
    let socket = world.greeter.socket(host.cookie, false).unwrap();
    assert_eq!(world.table.cookie(socket.as_fd()).unwrap(), host.cookie);

    world.namespaces.set_armed(true).await.unwrap();
    assert_eq!(world.table.get(host.cookie).unwrap(), (port4, port6));

    world.namespaces.set_armed(false).await.unwrap();
    assert_eq!(world.table.get(host.cookie), None);
    let address = SocketAddr::from(([127, 0, 0, 1], port4));
    within(SECOND, "the listener is closed", || {
        TcpStream::connect(address).err()
    })
    .await;

    world.namespaces.set_armed(true).await.unwrap();
    assert_ne!(world.table.get(host.cookie), None);
    world.stop.cancel();
    within(SECOND, "the entry is removed", || {
        world.table.get(host.cookie).is_none().then_some(())
    })
    .await;
    assert!(world.namespaces.set_armed(true).await.is_err());
    world.namespaces.set_armed(false).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by cargo xtask test"]
async fn a_named_namespace_is_served_as_soon_as_its_loopback_is_up_and_dropped_with_its_name() {
    let world = World::new();
    world.namespaces.set_armed(true).await.unwrap();
    let named = Named::add();
    let down = within(2 * SECOND, "known", || world.named(&named.0)).await;
    assert_eq!(down.state, NamespaceState::LoDown, "{down:?}");
    assert!(down.detail.unwrap().contains("lo"));
    assert_ne!(down.cookie, world.host().cookie);
    assert_eq!(world.table.get(down.cookie), Some((0, 0)));

    named.loopback("up");
    let ports = || {
        world
            .table
            .get(down.cookie)
            .filter(|ports| ports.0 != 0 && ports.1 != 0)
    };
    let (port4, port6) = within(SECOND / 2, "told by netlink, not by the next look", ports).await;
    assert_eq!(world.named(&named.0).unwrap().state, NamespaceState::Ready);
    assert_eq!(named.read_from("127.0.0.1", port4), down.cookie.to_string());
    assert_eq!(named.read_from("::1", port6), down.cookie.to_string());
    for ipv6 in [false, true] {
        let socket = world.greeter.socket(down.cookie, ipv6).unwrap();
        assert_eq!(world.table.cookie(socket.as_fd()).unwrap(), down.cookie);
    }

    named.loopback("down");
    let unusable = || (world.table.get(down.cookie)? == (0, 0)).then_some(());
    within(SECOND / 2, "down again", unusable).await;
    named.loopback("up");
    within(SECOND / 2, "up again", ports).await;

    // The kernel takes an interface away when its peer's namespace really ended.
    let witness = format!("spk{}", std::process::id());
    ip(&format!(
        "link add {witness} type veth peer name eth0 netns {}",
        named.0
    ));
    drop(named);
    within(3 * SECOND, "dropped", || {
        world.by_inode(down.inode).is_none().then_some(())
    })
    .await;
    assert_eq!(world.table.get(down.cookie), None);
    let witness = Path::new("/sys/class/net").join(witness);
    within(2 * SECOND, "ended", || (!witness.exists()).then_some(())).await;
    let error = world.greeter.socket(down.cookie, false).unwrap_err();
    assert!(error.to_string().contains("gone"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by cargo xtask test"]
async fn a_namespace_lives_as_long_as_a_process_is_in_it_and_dies_with_it() {
    let world = World::new();
    let mut process = Command::new("unshare")
        .args(["--net", "sh", "-c", "ip link set lo up; exec sleep 60"])
        .spawn()
        .unwrap();
    let way = format!("/proc/{}/ns/net", process.id());
    let own = inode("/proc/self/ns/net");
    let inode = within(SECOND, "unshared", || {
        Some(inode(&way)).filter(|inode| *inode != own)
    })
    .await;
    world.namespaces.set_armed(true).await.unwrap();
    let ready = || {
        world
            .by_inode(inode)
            .filter(|view| view.state == NamespaceState::Ready)
    };
    let view = within(2 * SECOND, "ready", ready).await;
    let socket = world.greeter.socket(view.cookie, false).unwrap();
    assert_eq!(world.table.cookie(socket.as_fd()).unwrap(), view.cookie);
    drop(socket);
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(world.by_inode(inode).unwrap().state, NamespaceState::Ready);

    process.kill().unwrap();
    process.wait().unwrap();
    within(3 * SECOND, "dropped", || {
        world.by_inode(inode).is_none().then_some(())
    })
    .await;
    assert_eq!(world.table.get(view.cookie), None);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by cargo xtask test"]
async fn a_wanted_namespace_of_a_single_thread_is_found() {
    let world = World::new();
    world.namespaces.set_armed(true).await.unwrap();
    let (inodes, inodes_rx) = mpsc::channel();
    let (end, end_rx) = mpsc::channel::<()>();
    let thread = thread::spawn(move || {
        // SAFETY: a network namespace of its own changes nothing about this thread's memory or descriptors.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
        inodes.send(inode("/proc/thread-self/ns/net")).unwrap();
        let _ = end_rx.recv();
    });
    let inode = inodes_rx.recv().unwrap();
    world.namespaces.wanted(std::process::id());
    let view = within(SECOND / 2, "known", || world.by_inode(inode)).await;
    assert_eq!(view.state, NamespaceState::LoDown);
    tokio::time::sleep(3 * SECOND).await;
    assert_eq!(world.by_inode(inode), Some(view));
    drop(end);
    thread.join().unwrap();
    within(3 * SECOND, "dropped", || {
        world.by_inode(inode).is_none().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: run by cargo xtask test"]
async fn a_namespace_that_cannot_be_entered_is_shown_and_the_others_are_served() {
    let world = World::new();
    // Holds the directory that the mount goes to.
    let named = Named::add();
    let name = format!("{}-uts", named.0);
    let mount = Path::new("/run/netns").join(&name);
    std::fs::write(&mount, "").unwrap();
    let mut bind = Command::new("mount");
    let bound = bind.args(["--bind", "/proc/self/ns/uts"]).arg(&mount).status();
    let armed = world.namespaces.set_armed(true).await;
    let view = world.named(&name);
    let _ = Command::new("umount").arg(&mount).status();
    std::fs::remove_file(&mount).unwrap();

    assert!(bound.unwrap().success());
    armed.unwrap();
    let view = view.unwrap();
    assert_eq!(view.state, NamespaceState::Unreachable);
    assert!(view.detail.unwrap().contains("enter the namespace"));
    assert_eq!(world.host().state, NamespaceState::Ready);
    assert_eq!(world.named(&named.0).unwrap().state, NamespaceState::LoDown);
    let gone = || world.by_inode(view.inode).is_none().then_some(());
    within(3 * SECOND, "dropped", gone).await;
}

fn inode(path: &str) -> u64 {
    std::fs::metadata(path).unwrap().ino()
}
