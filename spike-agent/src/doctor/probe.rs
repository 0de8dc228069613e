//! Tries one facility each. Nothing that a probe does outlives it, and none touches the host's own network namespace.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;

use aya::maps::MapType;
use aya::programs::tc::TcAttachType;
use aya::programs::{ProgramError, ProgramType, SchedClassifier};
use aya::sys::{BpfHelper, is_helper_supported, is_map_supported, is_program_supported};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_packet_sock_diag::{SOCK_DESTROY, SockDiagMessage};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, socket};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use rustix::thread::CapabilitySet;

use super::Finding;
use crate::safety::effective_capabilities;
use crate::safety::netns::inside_new;
use crate::safety::tc::{Place, Tc};

/// The index of `lo` in a network namespace that was just made.
const LO: u32 = 1;

pub(super) fn map(kind: MapType) -> Finding {
    with_bpf(|| is_map_supported(kind).map_err(|error| error.io_error.to_string()))
}

pub(super) fn program(kind: ProgramType) -> Finding {
    with_bpf(|| is_program_supported(kind).map_err(in_words))
}

pub(super) fn helper(kind: ProgramType, helper: BpfHelper) -> Finding {
    with_bpf(|| is_helper_supported(kind, helper).map_err(in_words))
}

/// Asks which TCX programs `lo` has; a kernel without TCX does not understand the question.
pub(super) fn tcx() -> Finding {
    with_bpf(|| match SchedClassifier::query_tcx("lo", TcAttachType::Ingress) {
        Ok(_) => Ok(true),
        Err(ProgramError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::EINVAL) => {
            Ok(false)
        }
        Err(error) => Err(in_words(error)),
    })
}

/// Looks for a qdisc without loading its module: `module` is the part of its name after `sch_`.
pub(super) fn qdisc(module: &str, kind: &str) -> Finding {
    let place = if kind == "clsact" {
        Place::Clsact
    } else {
        Place::Root
    };
    module_or_try(&format!("sch_{module}"), || {
        Tc::open()?.add_qdisc(LO, kind, place)
    })
}

/// Looks for the filter that runs BPF programs on a clsact qdisc.
pub(super) fn bpf_filter() -> Finding {
    module_or_try("cls_bpf", || {
        let tc = Tc::open()?;
        tc.add_qdisc(LO, "clsact", Place::Clsact)?;
        tc.add_empty_filter(LO, "bpf")
    })
}

/// Looks for a module, and where there is none, whether the kernel knows what `add` adds to `lo` all the same.
fn module_or_try(module: &str, add: impl FnOnce() -> io::Result<()> + Send) -> Finding {
    if let Some(finding) = by_module(module) {
        return finding;
    }
    let tried = in_new_namespace(|| match add() {
        Ok(()) => Ok(true),
        // Any other refusal is of the empty options, by the part itself.
        Err(error) => match error.raw_os_error() {
            Some(libc::ENOENT) => Ok(false),
            Some(libc::EPERM | libc::EACCES) => Err(error),
            _ => Ok(true),
        },
    });
    finding(
        tried.map_err(|error| error.to_string()),
        "built into the kernel",
        "not in the kernel",
    )
}

/// A finding where the file system alone can tell, so that nothing need be tried.
fn by_module(name: &str) -> Option<Finding> {
    let loaded = fs::exists(format!("/sys/module/{name}")).unwrap_or(false);
    if loaded {
        return Some(Finding::Present("loaded".to_owned()));
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    let dir = format!("/lib/modules/{}", release.trim_end());
    let listed = |list: &str| {
        let text = fs::read_to_string(format!("{dir}/{list}")).unwrap_or_default();
        // A line starts with the path of a module, which may be compressed.
        text.lines().any(|line| {
            line.split(':')
                .next()
                .unwrap_or_default()
                .contains(&format!("/{name}.ko"))
        })
    };
    if listed("modules.builtin") {
        return Some(Finding::Present("built into the kernel".to_owned()));
    }
    if !listed("modules.dep") {
        return None; // built in with modules of its own elsewhere, or absent: has to be tried
    }
    let sealed = fs::read_to_string("/proc/sys/kernel/modules_disabled").is_ok_and(|text| text.trim() == "1");
    Some(if sealed {
        Finding::Absent(format!(
            "module {name} is not loaded, and kernel.modules_disabled=1 forbids it"
        ))
    } else {
        Finding::Present(format!("module {name}, loaded at its first use"))
    })
}

pub(super) fn netns_cookie() -> Finding {
    let Ok(socket) = socket(AddressFamily::UNIX, SocketType::DGRAM, None) else {
        return Finding::Unknown("unknown: no socket could be opened".to_owned());
    };
    let mut cookie = 0_u64;
    let mut len = size_of_val(&cookie) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `cookie`, and both live through the call.
    let result = unsafe {
        let value = (&raw mut cookie).cast();
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            value,
            &raw mut len,
        )
    };
    if result == 0 {
        Finding::Present(format!("this network namespace has cookie {cookie}"))
    } else {
        Finding::Absent(io::Error::last_os_error().to_string())
    }
}

/// Copies a descriptor of this very process.
pub(super) fn copy_descriptor() -> Finding {
    let copied = pidfd_open(getpid(), PidfdFlags::empty())
        .and_then(|this| pidfd_getfd(&this, this.as_raw_fd(), PidfdGetfdFlags::empty()));
    match copied {
        Ok(_) => Finding::Present("a descriptor was copied".to_owned()),
        Err(Errno::NOSYS) => Finding::Absent("the kernel does not have it".to_owned()),
        Err(Errno::PERM) => Finding::Absent("forbidden here, by seccomp or a security module".to_owned()),
        Err(error) => Finding::Unknown(format!("unknown: {error}")),
    }
}

/// Asks for the end of a socket that does not exist, in a namespace without any.
pub(super) fn sock_destroy() -> Finding {
    let tried = in_new_namespace(|| {
        let mut request = InetRequest {
            family: libc::AF_INET as u8,
            protocol: libc::IPPROTO_TCP as u8,
            extensions: ExtensionFlags::empty(),
            states: StateFlags::all(),
            socket_id: SocketId::new_v4(),
        };
        (request.socket_id.source_port, request.socket_id.destination_port) = (1, 1);
        match destroy(request) {
            Ok(()) => Ok(true),
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOENT) => Ok(true),
                Some(libc::EOPNOTSUPP) => Ok(false),
                _ => Err(error),
            },
        }
    });
    finding(
        tried.map_err(|error| error.to_string()),
        "sockets can be closed",
        "not in the kernel",
    )
}

fn destroy(request: InetRequest) -> io::Result<()> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_ACK;
    let mut message = NetlinkMessage::new(
        header,
        NetlinkPayload::InnerMessage(Destroy(SockDiagMessage::InetRequest(request))),
    );
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&bytes, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    match NetlinkMessage::<SockDiagMessage>::deserialize(&answer)
        .map_err(io::Error::other)?
        .payload
    {
        NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
        _ => Ok(()),
    }
}

/// The request as the crate has it, under the number that it has no message for.
#[derive(Debug)]
struct Destroy(SockDiagMessage);

impl NetlinkSerializable for Destroy {
    fn message_type(&self) -> u16 {
        SOCK_DESTROY
    }
    fn buffer_len(&self) -> usize {
        NetlinkSerializable::buffer_len(&self.0)
    }
    fn serialize(&self, buffer: &mut [u8]) {
        self.0.serialize(buffer);
    }
}

/// Runs a probe that needs bpf(), if that may be used at all.
fn with_bpf(probe: impl FnOnce() -> Result<bool, String>) -> Finding {
    if !effective_capabilities().intersects(CapabilitySet::BPF | CapabilitySet::SYS_ADMIN) {
        return needs_root();
    }
    finding(probe(), "works", "not in the kernel")
}

/// Runs a probe in an empty network namespace of its own.
fn in_new_namespace<T: Send>(probe: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    inside_new(probe).and_then(|result| result)
}

fn finding(result: Result<bool, String>, yes: &str, no: &str) -> Finding {
    match result {
        Ok(true) => Finding::Present(yes.to_owned()),
        Ok(false) => Finding::Absent(no.to_owned()),
        Err(_) if !rustix::process::geteuid().is_root() => needs_root(),
        Err(problem) => Finding::Unknown(format!("unknown: {problem}")),
    }
}

fn needs_root() -> Finding {
    Finding::Unknown("unknown: needs root".to_owned())
}

fn in_words(error: ProgramError) -> String {
    match error {
        ProgramError::SyscallError(error) => format!("{}: {}", error.call, error.io_error),
        other => other.to_string(),
    }
}
