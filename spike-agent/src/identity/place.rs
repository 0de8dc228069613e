//! Reads from a cgroup's path which pod, container and systemd unit a process belongs to.
//!
//! The path is all that is left of a process that has ended. Its forms are conventions of those who make cgroups:
//! the kubelet (`pod<uid>` below a QoS level), the container runtimes (`<runtime>-<id>.scope` with systemd's driver,
//! the bare id with the cgroupfs driver), LXC (`lxc.payload.<name>`), and systemd (`systemd.slice(5)`, `cgroups(7)`).

/// Where a process runs; what a path does not tell is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// The uid of its Kubernetes pod, with dashes where it is a UUID.
    pub(super) pod: Option<String>,
    /// Its innermost container.
    pub(super) container: Option<Container>,
    /// The systemd unit, full name without escapes; inside of the container when there is one.
    pub(super) unit: Option<String>,
    /// The user whose systemd manager runs it.
    pub(super) user: Option<u32>,
}

/// What a path calls a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Container {
    /// 64 hexadecimal digits, for which an engine has a name (other forms of Amazon's ECS).
    Id(String),
    /// A name, as of LXC's and systemd-nspawn's.
    Name(String),
}

impl Place {
    /// Reads the path of a cgroup.
    pub(super) fn of(path: &str) -> Self {
        let mut place = Self::default();
        let mut outer = "";
        for step in path.split('/').filter(|step| !step.is_empty()) {
            // runc with systemd's driver switched off, given a path meant for it: `<slice>:cri-containerd:<id>`.
            let (slice, id) = match step.split_once(".slice:") {
                Some((slice, rest)) => (slice, container_id(rest, outer)),
                None => (step.trim_end_matches(".slice"), container_id(step, outer)),
            };
            let name = unescaped(step);
            if let Some(uid) = pod_uid(slice) {
                // What is around a pod, such as the container that is a node, is not where its processes belong.
                place = Self {
                    pod: Some(uid),
                    ..Self::default()
                };
            }
            if let Some(id) = id {
                place.enter(Container::Id(id));
            } else if let Some(name) = system_container(step, &name, outer) {
                place.enter(Container::Name(name));
            } else if is_monitor(step) {
                place.container = None;
                place.unit = None;
            } else if let Some(user) = manager_of(&name) {
                place.user = Some(user);
                place.unit = None;
            } else if name.ends_with(".service") || name.ends_with(".scope") {
                place.unit = is_service(&name).then_some(name);
            }
            outer = step;
        }
        place
    }

    /// What was outside of a container does not name what runs in it; but the user whose engine knows it.
    fn enter(&mut self, container: Container) {
        self.container = Some(container);
        self.unit = None;
    }
}

/// A name as it was before systemd made it fit for a file: `\x2d` is a byte, and a leading `_` keeps it apart from the
/// kernel's own files.
fn unescaped(step: &str) -> String {
    let step = step.strip_prefix('_').unwrap_or(step);
    let mut bytes = Vec::with_capacity(step.len());
    let mut rest = step;
    while let Some((before, after)) = rest.split_once("\\x") {
        bytes.extend_from_slice(before.as_bytes());
        let byte = after.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match byte {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(b"\\x"),
        }
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).unwrap_or_else(|_| step.to_owned())
}

/// The uid in `pod<uid>` or `kubepods-burstable-pod<uid>`: a UUID, whose dashes systemd's driver writes as `_`, or the
/// 32 digits of the hash that stands for one in a static pod.
fn pod_uid(slice: &str) -> Option<String> {
    let uid = match slice.rsplit_once("-pod") {
        Some((_, uid)) => uid,
        None => slice.strip_prefix("pod")?,
    };
    let uid = uid.replace('_', "-");
    let lengths: Vec<usize> = uid.split('-').map(str::len).collect();
    let is_uid = matches!(lengths[..], [8, 4, 4, 4, 12] | [32]) && uid.split('-').all(is_hex);
    is_uid.then_some(uid)
}

/// The id in `<id>`, `docker-<id>.scope`, `cri-containerd-<id>.scope`, `crio-<id>`, `cri-containerd:<id>` and the like.
fn container_id(step: &str, outer: &str) -> Option<String> {
    if is_monitor(step) {
        return None;
    }
    let step = step.trim_end_matches(".scope");
    let id = step.rsplit(['-', ':']).next().unwrap_or(step);
    if id.len() == 64 && is_hex(id) {
        return Some(id.to_owned());
    }
    // On ECS's Fargate: the task's id and a number, in a cgroup of the task.
    let (task, number) = step.split_once('-')?;
    let is_fargate = task == outer && task.len() == 32 && is_hex(task);
    (is_fargate && number.bytes().all(|b| b.is_ascii_digit())).then(|| step.to_owned())
}

fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The name of a container that runs a whole system: LXC, LXD, Incus, systemd-nspawn.
fn system_container(step: &str, name: &str, outer: &str) -> Option<String> {
    let named = |name: &str| (!name.is_empty()).then(|| name.to_owned());
    if let Some(name) = step.strip_prefix("lxc.payload.") {
        return named(name);
    }
    if matches!(outer, "lxc" | "lxc.payload") {
        return named(step);
    }
    if step == "payload" {
        let unit = unescaped(outer);
        let instance = unit
            .strip_prefix("systemd-nspawn@")
            .and_then(|rest| rest.strip_suffix(".service"));
        return instance.and_then(named);
    }
    let machine = name
        .strip_prefix("machine-")
        .and_then(|rest| rest.strip_suffix(".scope"))
        .filter(|_| outer == "machine.slice")?;
    // libvirt's virtual machines: their processes are the hypervisor's.
    (!machine.starts_with("qemu-")).then(|| machine.to_owned())
}

/// What looks after a container from outside.
fn is_monitor(step: &str) -> bool {
    step.contains("-conmon-") || step.starts_with("lxc.monitor")
}

/// The user in `user@1000.service`.
fn manager_of(name: &str) -> Option<u32> {
    name.strip_prefix("user@")?.strip_suffix(".service")?.parse().ok()
}

/// Is it a unit that someone named, rather than a login, a manager of units, a desktop's or terminal's window, or what
/// systemd-run made up?
fn is_service(unit: &str) -> bool {
    let is_window = unit.ends_with(".scope")
        && ["session-", "app-", "vte-spawn-", "tmux-spawn-"]
            .iter()
            .any(|start| unit.starts_with(start));
    // `run-u12.service`, `run-r<hex>.scope`, `run-p12-i34.scope`.
    let is_made_up = unit.strip_prefix("run-").is_some_and(|rest| {
        let stem = rest.rsplit_once('.').map_or(rest, |(stem, _)| stem);
        let (first, number) = stem.split_at_checked(1).unwrap_or_default();
        matches!(first, "u" | "r" | "p") && number.split('-').all(|part| is_hex(part.trim_start_matches('i')))
    });
    unit != "init.scope" && !is_window && !is_made_up
}

#[cfg(test)]
mod tests;
