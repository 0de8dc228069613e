//! Filters packets by tcpdump's expressions, with libpcap's own compiler and filter machine.
//!
//! The library is loaded when the first filter is asked for: Spike neither needs it to be built nor to run without filters.
//! A filter runs in the agent, on the packet as it would be written, before anything of it is; what it looks at of a
//! packet is copied whole by the kernel side, however little is kept.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::ptr::NonNull;
use std::sync::OnceLock;

use libloading::Library;

use super::record::LinkType;

/// The library's names, by distribution.
const NAMES: [&str; 3] = ["libpcap.so.1", "libpcap.so.0.8", "libpcap.so"];
/// `DLT_EN10MB`, `DLT_RAW`.
const DLT_ETHERNET: c_int = 1;
const DLT_RAW: c_int = 12;
/// Longest packet.
const SNAPLEN: c_int = 262_144;
/// `PCAP_NETMASK_UNKNOWN`
const NO_NETMASK: c_uint = u32::MAX;
/// The longest IP header: what the machine's index register holds at most when it was loaded from one.
const IP_HEADER: u32 = 60;

/// `struct bpf_insn`
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    code: u16,
    jt: u8,
    jf: u8,
    k: u32,
}

/// `struct bpf_program`
#[repr(C)]
struct Program {
    length: c_uint,
    instructions: *mut Instruction,
}

/// What is used of the library.
struct Pcap {
    open_dead: unsafe extern "C" fn(c_int, c_int) -> *mut c_void,
    close: unsafe extern "C" fn(*mut c_void),
    compile: unsafe extern "C" fn(*mut c_void, *mut Program, *const c_char, c_int, c_uint) -> c_int,
    free: unsafe extern "C" fn(*mut Program),
    error: unsafe extern "C" fn(*mut c_void) -> *const c_char,
    run: unsafe extern "C" fn(*const Instruction, *const u8, c_uint, c_uint) -> c_uint,
    /// Unloaded never: it lives in a static.
    _library: Library,
}

/// A compiled expression.
#[derive(Clone, Debug)]
pub struct Filter {
    ethernet: Vec<Instruction>,
    raw: Vec<Instruction>,
}

impl Filter {
    /// Compiles an expression for every kind of link.
    ///
    /// # Errors
    /// What libpcap says of it, or that there is no libpcap.
    pub fn compile(expression: &str) -> Result<Self, String> {
        let pcap = library()?;
        Ok(Self {
            ethernet: pcap.compile(expression, DLT_ETHERNET)?,
            raw: pcap.compile(expression, DLT_RAW)?,
        })
    }

    /// Whether a packet passes. `length` is the one on the wire.
    pub fn passes(&self, link_type: LinkType, length: u32, data: &[u8]) -> bool {
        let Ok(pcap) = library() else { return true };
        let program = self.program(link_type);
        let captured = c_uint::try_from(data.len()).unwrap_or(c_uint::MAX);
        // SAFETY: libpcap's compiler made the program; it reads `captured` bytes at most.
        unsafe { (pcap.run)(program.as_ptr(), data.as_ptr(), length, captured) != 0 }
    }

    /// How many bytes of a packet have to be there for a right answer.
    pub fn looks_at(&self) -> u32 {
        reach(&self.ethernet).max(reach(&self.raw))
    }

    fn program(&self, link_type: LinkType) -> &[Instruction] {
        match link_type {
            LinkType::Ethernet => &self.ethernet,
            LinkType::Raw => &self.raw,
        }
    }
}

/// The end of the furthest byte that a program can load.
fn reach(program: &[Instruction]) -> u32 {
    const LD: u16 = 0;
    const LDX: u16 = 1;
    const TAX: u16 = 7;
    let mut furthest = 0;
    for Instruction { code, k, .. } in program {
        let size = match code & 0x18 {
            0 => 4,
            8 => 2,
            _ => 1,
        };
        let end = match (code & 0x07, code & 0xe0) {
            (LD, 0x20) => k.saturating_add(size),
            (LD, 0x40) => k.saturating_add(size + IP_HEADER),
            (LDX, 0xa0) => k.saturating_add(1),
            // The index register holds what was computed: it may be anything.
            (LDX, 0x60) => SNAPLEN.cast_unsigned(),
            (TAX, 0) if *code == TAX => SNAPLEN.cast_unsigned(),
            _ => 0,
        };
        furthest = furthest.max(end);
    }
    furthest.min(SNAPLEN.cast_unsigned())
}

fn library() -> Result<&'static Pcap, String> {
    static LOADED: OnceLock<Result<Pcap, String>> = OnceLock::new();
    LOADED.get_or_init(load).as_ref().map_err(Clone::clone)
}

fn load() -> Result<Pcap, String> {
    let missing = "filters need libpcap, which is not here: install the package libpcap0.8 (libpcap on others than Debian), or leave the filter out";
    // SAFETY: libpcap's initialisers have no side effects.
    let library = NAMES.iter().find_map(|name| unsafe { Library::new(*name) }.ok());
    let library = library.ok_or(missing)?;
    let lacks = |error| format!("libpcap is not as expected: {error}");
    // SAFETY: the functions have these types since libpcap 1.0, and live as long as the library, which is never unloaded.
    unsafe {
        Ok(Pcap {
            open_dead: *library.get(b"pcap_open_dead\0").map_err(lacks)?,
            close: *library.get(b"pcap_close\0").map_err(lacks)?,
            compile: *library.get(b"pcap_compile\0").map_err(lacks)?,
            free: *library.get(b"pcap_freecode\0").map_err(lacks)?,
            error: *library.get(b"pcap_geterr\0").map_err(lacks)?,
            run: *library.get(b"bpf_filter\0").map_err(lacks)?,
            _library: library,
        })
    }
}

impl Pcap {
    fn compile(&self, expression: &str, link: c_int) -> Result<Vec<Instruction>, String> {
        let text = CString::new(expression).map_err(|_| "must not contain a zero byte".to_owned())?;
        // SAFETY: takes numbers alone.
        let handle = unsafe { (self.open_dead)(link, SNAPLEN) };
        let handle = NonNull::new(handle).ok_or("libpcap has no memory")?;
        let mut program = Program {
            length: 0,
            instructions: std::ptr::null_mut(),
        };
        // SAFETY: a live handle, a program to fill in, a terminated string; what is filled in is copied before it is freed.
        unsafe {
            let failed = (self.compile)(handle.as_ptr(), &raw mut program, text.as_ptr(), 1, NO_NETMASK) != 0;
            let result = if failed {
                let reason = CStr::from_ptr((self.error)(handle.as_ptr())).to_string_lossy();
                Err(format!(
                    "`{expression}` is no filter expression: {reason}; see pcap-filter(7)"
                ))
            } else {
                let length = program.length as usize;
                let instructions = std::slice::from_raw_parts(program.instructions, length).to_vec();
                (self.free)(&raw mut program);
                Ok(instructions)
            };
            (self.close)(handle.as_ptr());
            result
        }
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    fn tcp(port: u16) -> Vec<u8> {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([0; 6], [1; 6])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .tcp(40_000, port, 0, 0)
            .write(&mut frame, b"GET / HTTP/1.1")
            .unwrap();
        frame
    }

    /// None where there is no libpcap, which is an error of its own kind.
    fn compile(expression: &str) -> Option<Filter> {
        match Filter::compile(expression) {
            Err(error) if error.contains("install") => None,
            other => Some(other.unwrap()),
        }
    }

    #[test]
    fn expressions_mean_what_they_mean_to_tcpdump() {
        let Some(filter) = compile("tcp port 80") else {
            return;
        };
        let passes = |filter: &Filter, port| {
            let frame = tcp(port);
            let whole = filter.passes(LinkType::Ethernet, frame.len() as u32, &frame);
            assert_eq!(
                whole,
                filter.passes(LinkType::Raw, frame.len() as u32 - 14, &frame[14..])
            );
            whole
        };
        assert!(passes(&filter, 80) && !passes(&filter, 81));
        let get = compile("tcp[((tcp[12:1] & 0xf0) >> 2):4] = 0x47455420").unwrap();
        assert!(passes(&get, 80));
        let length = compile("greater 1000").unwrap();
        assert!(!passes(&length, 80));
        assert!(length.passes(LinkType::Ethernet, 1500, &tcp(80)));
    }

    #[test]
    fn what_it_looks_at_is_known() {
        let Some(filter) = compile("tcp port 80 and host 10.0.0.1") else {
            return;
        };
        assert!((54..=200).contains(&filter.looks_at()), "{}", filter.looks_at());
        let payload = compile("tcp[((tcp[12:1] & 0xf0) >> 2):4] = 0x47455420").unwrap();
        assert_eq!(payload.looks_at(), 262_144);
    }

    #[test]
    fn a_wrong_expression_is_told() {
        if compile("tcp").is_none() {
            return;
        }
        let error = Filter::compile("tcp prt 80").unwrap_err();
        assert!(
            error.contains("syntax error") && error.contains("pcap-filter"),
            "{error}"
        );
    }
}
