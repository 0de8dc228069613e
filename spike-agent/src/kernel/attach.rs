//! Loads each program through the verifier and attaches it; a failure half-way leaves nothing behind.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use aya::Ebpf;
use aya::programs::{
    CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, CgroupSock, CgroupSockAddr, Program, ProgramError,
    SchedClassifier, SockOps, TestRun as _, TestRunOptions,
};

/// They only take notes.
const BINDS: [&str; 2] = ["spike_post_bind4", "spike_post_bind6"];

/// The connect hooks last: nothing may be redirected before the rest can follow it.
const REST: [&str; 11] = [
    "spike_egress",
    "spike_ingress",
    "spike_sock_ops",
    "spike_getpeername4",
    "spike_getpeername6",
    "spike_recvmsg4",
    "spike_recvmsg6",
    "spike_sendmsg4",
    "spike_sendmsg6",
    "spike_connect4",
    "spike_connect6",
];

/// Attaches the bind hooks to the cgroup. Returns their names. On an error the caller drops `programs`, which detaches
/// what was attached; so it is with [`attach`].
pub(super) fn binds(programs: &mut Ebpf, cgroup: &Path) -> Result<Vec<String>> {
    attach_all(programs, cgroup, &BINDS, 0)
}

/// Attaches the other hooks to the cgroup. Returns their names.
pub(super) fn attach(programs: &mut Ebpf, cgroup: &Path) -> Result<Vec<String>> {
    attach_all(programs, cgroup, &REST, BINDS.len())
}

/// A program for packets of an interface, loaded. The verifier takes longer for these than for all the hooks together,
/// so they wait for the first capture or packet fault.
pub(super) fn classifier<'a>(programs: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier> {
    let Some(Program::SchedClassifier(program)) = programs.program_mut(name) else {
        return Err(anyhow!("kernel object has no program {name}"));
    };
    if program.fd().is_err() {
        load(SchedClassifier::load(program)).with_context(|| format!("load {name}"))?;
    }
    Ok(program)
}

/// Runs the program that notes which process the agent is.
pub(super) fn show_agent(programs: &mut Ebpf) -> Result<()> {
    let name = "spike_task_of_agent";
    let Some(Program::CgroupSkb(program)) = programs.program_mut(name) else {
        return Err(anyhow!("kernel object has no program {name}"));
    };
    load(CgroupSkb::load(program)).with_context(|| format!("load {name}"))?;
    // It reads none of it, but the kernel wants a packet with an Ethernet header.
    let options = TestRunOptions {
        data_in: Some(&[0; 64]),
        ..TestRunOptions::new()
    };
    program.test_run(options).with_context(|| format!("run {name}"))?;
    program.unload().with_context(|| format!("unload {name}"))?;
    Ok(())
}

fn attach_all(programs: &mut Ebpf, cgroup: &Path, names: &[&str], first: usize) -> Result<Vec<String>> {
    let folder = File::open(cgroup).with_context(|| format!("open cgroup {}", cgroup.display()))?;
    let mut hooks = Vec::new();
    for (step, name) in (first..).zip(names) {
        fail_here(step)?;
        attach_one(programs, name, &folder).with_context(|| {
            format!(
                "attach {name} to cgroup {}; `spike doctor` tells what is missing",
                cgroup.display()
            )
        })?;
        hooks.push(name.trim_start_matches("spike_").to_owned());
    }
    Ok(hooks)
}

/// `SPIKE_FAIL_ATTACH=N` fails step N, so that a test can see the roll-back.
fn fail_here(step: usize) -> Result<()> {
    match std::env::var("SPIKE_FAIL_ATTACH") {
        Ok(wanted) if wanted == step.to_string() => {
            Err(anyhow!("attach step {step} failed as SPIKE_FAIL_ATTACH asked"))
        }
        _ => Ok(()),
    }
}

fn attach_one(programs: &mut Ebpf, name: &str, cgroup: &File) -> Result<()> {
    let program = programs
        .program_mut(name)
        .ok_or_else(|| anyhow!("kernel object has no program {name}"))?;
    let mode = CgroupAttachMode::Single;
    match program {
        Program::CgroupSkb(program) => {
            let direction = if name == "spike_egress" {
                CgroupSkbAttachType::Egress
            } else {
                CgroupSkbAttachType::Ingress
            };
            load(CgroupSkb::load(program))?;
            program.attach(cgroup, direction, mode)?;
        }
        Program::SockOps(program) => {
            load(SockOps::load(program))?;
            program.attach(cgroup, mode)?;
        }
        Program::CgroupSock(program) => {
            load(CgroupSock::load(program))?;
            program.attach(cgroup, mode)?;
        }
        Program::CgroupSockAddr(program) => {
            load(CgroupSockAddr::load(program))?;
            program.attach(cgroup, mode)?;
        }
        _ => {
            return Err(anyhow!(
                "program {name} is of a kind that is not attached to cgroups"
            ));
        }
    }
    Ok(())
}

/// Keeps the end of the verifier's log, which holds the reason; the whole of it is thousands of lines.
fn load(result: Result<(), ProgramError>) -> Result<()> {
    match result {
        Err(ProgramError::LoadError {
            io_error,
            verifier_log,
        }) => {
            let log = verifier_log.to_string();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(12)..].join("\n");
            Err(anyhow!("the kernel refused the program: {io_error}\n{tail}"))
        }
        other => Ok(other?),
    }
}
