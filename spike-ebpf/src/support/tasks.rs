//! The process that runs a hook.

use aya_ebpf::Global;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::{
    bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_task, bpf_get_current_uid_gid,
    bpf_probe_read_kernel, bpf_probe_read_kernel_str,
};
use spike_common::task::{COMM_LEN, EXECUTABLE_LEN, Task, comm_hash};

/// `task_struct.mm`: an offset in bytes from the kernel's BTF, set by the agent before loading; this and those below
/// are 0 when it could not be read.
#[unsafe(no_mangle)]
static OFFSET_TASK_MM: Global<u32> = Global::new(0);
/// `mm_struct.exe_file`.
#[unsafe(no_mangle)]
static OFFSET_MM_EXE_FILE: Global<u32> = Global::new(0);
/// `file.f_path.dentry`.
#[unsafe(no_mangle)]
static OFFSET_FILE_DENTRY: Global<u32> = Global::new(0);
/// `dentry.d_name.name`.
#[unsafe(no_mangle)]
static OFFSET_DENTRY_NAME: Global<u32> = Global::new(0);

/// `task_struct.group_leader`.
#[unsafe(no_mangle)]
static OFFSET_TASK_LEADER: Global<u32> = Global::new(0);
/// `task_struct.comm`.
#[unsafe(no_mangle)]
static OFFSET_TASK_COMM: Global<u32> = Global::new(0);

/// `task_struct.signal`.
#[unsafe(no_mangle)]
static OFFSET_TASK_SIGNAL: Global<u32> = Global::new(0);
/// `signal_struct.flags`.
#[unsafe(no_mangle)]
static OFFSET_SIGNAL_FLAGS: Global<u32> = Global::new(0);

/// `SIGNAL_GROUP_EXIT`: the whole process is to end. Set by kill(2) itself, long before the last descriptor is closed.
const ENDING: u32 = 4;

/// The current process's id in the initial pid namespace.
#[inline(always)]
pub(crate) fn tgid() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

/// Fills in the current process.
#[inline(always)]
pub(crate) fn fill(task: &mut Task) {
    task.tgid = tgid();
    // SAFETY: helpers without arguments.
    unsafe {
        task.uid = bpf_get_current_uid_gid() as u32;
        task.cgroup = bpf_get_current_cgroup_id();
    }
    task.executable = [0; EXECUTABLE_LEN];
    if fill_executable(&mut task.executable).is_none() {
        // SAFETY: the buffer is longer than the 16 bytes that the helper may write.
        unsafe { bpf_get_current_comm(task.executable.as_mut_ptr().cast(), 16) };
    }
}

/// Reads the base name of the process's executable: unlike the thread's name it cannot be set by the program.
#[inline(always)]
fn fill_executable(out: &mut [u8; EXECUTABLE_LEN]) -> Option<()> {
    if OFFSET_TASK_MM.load() == 0 {
        return None;
    }
    // SAFETY: a helper without arguments.
    let task = unsafe { bpf_get_current_task() };
    let mm = follow(task, OFFSET_TASK_MM.load())?;
    let file = follow(mm, OFFSET_MM_EXE_FILE.load())?;
    let dentry = follow(file, OFFSET_FILE_DENTRY.load())?;
    let name = follow(dentry, OFFSET_DENTRY_NAME.load())?;
    // SAFETY: the helper writes at most the given length and checks the source.
    let length = unsafe {
        bpf_probe_read_kernel_str(out.as_mut_ptr().cast(), EXECUTABLE_LEN as u32, name as *const _)
    };
    (length > 1).then_some(())
}

/// The hash of the current process's name: its first thread's, as others may have names of their own. 0 when it cannot
/// be read.
#[inline(always)]
pub(crate) fn comm() -> u64 {
    if OFFSET_TASK_LEADER.load() == 0 {
        return 0;
    }
    // SAFETY: a helper without arguments.
    let task = unsafe { bpf_get_current_task() };
    let Some(leader) = follow(task, OFFSET_TASK_LEADER.load()) else {
        return 0;
    };
    let mut name = [0_u8; COMM_LEN];
    // SAFETY: the helper writes at most the given length and checks the source.
    let length = unsafe {
        bpf_probe_read_kernel_str(
            name.as_mut_ptr().cast(),
            COMM_LEN as u32,
            (leader + u64::from(OFFSET_TASK_COMM.load())) as *const _,
        )
    };
    if length > 1 { comm_hash(&name) } else { 0 }
}

/// Where the kernel keeps the flags of the current process; none when that is unknown.
#[inline(always)]
pub(crate) fn flags_address() -> Option<u64> {
    if OFFSET_TASK_SIGNAL.load() == 0 {
        return None;
    }
    // SAFETY: a helper without arguments.
    let task = unsafe { bpf_get_current_task() };
    let signal = follow(task, OFFSET_TASK_SIGNAL.load())?;
    Some(signal + u64::from(OFFSET_SIGNAL_FLAGS.load()))
}

/// Whether the process whose flags are at `address` was told to end, and can do nothing any more. The address is good as
/// long as the process has descriptors, and so as long as the hooks are attached.
#[inline(always)]
pub(crate) fn is_ending(address: u64) -> bool {
    if OFFSET_TASK_SIGNAL.load() == 0 || address == 0 {
        return false;
    }
    let mut flags = 0_u32;
    // SAFETY: the helper writes 4 bytes into a local and checks the source.
    let result = unsafe { bpf_probe_read_kernel((&raw mut flags).cast(), 4, address as *const _) };
    result == 0 && flags & ENDING != 0
}

/// The pointer at `base + offset` in kernel memory; none when it is null or unreadable.
#[inline(always)]
fn follow(base: u64, offset: u32) -> Option<u64> {
    let mut pointer = 0_u64;
    // SAFETY: writes eight bytes to a local; the helper checks the source.
    let result = unsafe {
        bpf_probe_read_kernel(
            (&raw mut pointer).cast(),
            8,
            (base + u64::from(offset)) as *const _,
        )
    };
    (result == 0 && pointer != 0).then_some(pointer)
}
