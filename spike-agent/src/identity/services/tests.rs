//! Real processes and directories that stand for cgroups.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::{MetadataExt, symlink},
    path::Path,
    process::{Child, Command, Stdio},
};

use spike_common::{address::Endpoint, task::padded};

use super::*;
use crate::identity::{EnginePlaces, look::wait_for_arguments};
use crate::model::service_rule::RawServiceRule;

const POD: &str = "kubepods/burstable/pod74c13223-5a00-11e9-b385-42010a80018d\
    /4f797c539e6c745de61a93ca3ff892358ecbcaccd8414d5db545c38428142970";

struct Host {
    dir: tempfile::TempDir,
    children: Vec<Child>,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let children = Vec::new();
        Self { dir, children }
    }

    fn services(&self, rules: &str) -> Services {
        #[derive(serde::Deserialize)]
        struct File {
            #[serde(default)]
            service: Vec<RawServiceRule>,
        }
        let file: File = toml::from_str(rules).unwrap();
        let rules = file
            .service
            .into_iter()
            .map(|raw| ServiceRule::try_from(raw).unwrap());
        let cgroups = Arc::new(Cgroups::new(self.dir.path().join("cgroup")));
        Services::new(cgroups, rules.collect(), Engine::absent())
    }

    /// Starts cat by a symlink of the name `invoked`, as if in `cgroup`.
    fn start(&mut self, invoked: &str, cgroup: &str) -> Task {
        let cat = fs::canonicalize("/bin/cat").unwrap();
        let link = self.dir.path().join(invoked);
        _ = symlink(&cat, &link);
        let child = Command::new(link).stdin(Stdio::piped()).spawn().unwrap();
        wait_for_arguments(child.id());
        let task = self.task(child.id(), cat.file_name().unwrap().to_str().unwrap(), cgroup);
        self.children.push(child);
        task
    }

    fn task(&self, tgid: u32, executable: &str, cgroup: &str) -> Task {
        let path = self.dir.path().join("cgroup").join(cgroup);
        fs::create_dir_all(&path).unwrap();
        Task {
            tgid,
            executable: padded(executable).unwrap(),
            cgroup: fs::metadata(&path).unwrap().ino(),
            uid: 0,
        }
    }

    fn end_all(&mut self) {
        for mut child in self.children.drain(..) {
            _ = child.kill();
            _ = child.wait();
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.end_all();
    }
}

/// As if a second had passed for all that was seen.
fn age(services: &Services) {
    for (_, seen) in lock(&services.seen).iter_mut() {
        seen.at = seen.at.checked_sub(FRESH).unwrap();
    }
}

fn listens(task: &Task, at: &str) -> (ServiceKey, Task) {
    let endpoint = Endpoint::from(at.parse::<SocketAddr>().unwrap());
    (ServiceKey::new(0, endpoint), *task)
}

#[test]
fn a_name_outlives_its_process_and_cgroup() {
    let mut host = Host::new();
    let services = host.services("");
    let task = host.start("redis-server", "user.slice/session-3.scope");
    let service = services.of(&task);
    assert_eq!(
        (service.name.as_str(), service.kind),
        ("redis-server", ServiceKind::Executable)
    );
    assert_eq!(
        Path::new(&service.executable),
        fs::canonicalize("/bin/cat").unwrap()
    );
    host.end_all();
    fs::remove_dir_all(host.dir.path().join("cgroup")).unwrap();
    age(&services);
    assert_eq!(services.of(&task).name, "redis-server");
}

#[test]
fn a_process_that_was_never_seen_has_its_cgroup_and_the_kernels_name() {
    let host = Host::new();
    let services = host.services("");
    // Larger than any process id.
    let gone = u32::MAX;
    let name = |executable: &str, cgroup: &str| {
        let service = services.of(&host.task(gone, executable, cgroup));
        (service.kind, service.name.clone())
    };
    assert_eq!(name("curl", "a"), (ServiceKind::Executable, "curl".to_owned()));
    assert_eq!(
        name("nginx", "system.slice/web.service"),
        (ServiceKind::Unit, "web".to_owned())
    );
    assert_eq!(
        name("java", POD),
        (ServiceKind::Pod, "pod-74c13223/4f797c539e6c".to_owned())
    );
    let nobody = services.of(&Task::default());
    assert_eq!((nobody.name.as_str(), nobody.kind), ("", ServiceKind::Executable));
}

#[test]
fn an_id_that_went_to_another_process_is_looked_up_again() {
    let mut host = Host::new();
    let services = host.services("");
    let task = host.start("first", "a");
    assert_eq!(services.of(&task).name, "first");
    // The id stays and the process changes: as if this had been looked at before.
    for (_, seen) in lock(&services.seen).iter_mut() {
        let mut look = Look::clone(seen.look.as_ref().unwrap());
        look.started -= 1;
        seen.look = Some(Arc::new(look));
        seen.service = Arc::new(Service::default());
    }
    assert_eq!(services.of(&task).name, "", "believed for a second");
    age(&services);
    assert_eq!(services.of(&task).name, "first");
}

#[test]
fn the_first_rule_that_matches_names_it() {
    let mut host = Host::new();
    let services = host.services(
        "
        [[service]]
        name = 'elsewhere'
        executable = 'redis-server'
        cgroup = '/elsewhere/**'
        [[service]]
        name = 'cache'
        executable = 'redis-server'
        [[service]]
        name = 'cats'
        executable = 'cat'
        [[service]]
        name = 'web'
        unit = 'nginx*'
        [[service]]
        name = 'pods'
        cgroup = '/kubepods/**'",
    );
    let name = |task: &Task| {
        let service = services.of(task);
        (service.kind, service.name.clone())
    };
    let rule = |name: &str| (ServiceKind::Rule, name.to_owned());
    assert_eq!(name(&host.start("redis-server", "a")), rule("cache"));
    assert_eq!(name(&host.start("kitten", "a")), rule("cats"));
    assert_eq!(
        name(&host.task(0, "x", "system.slice/nginx@a.service")),
        rule("web")
    );
    assert_eq!(name(&host.task(0, "x", POD)), rule("pods"));
    assert_eq!(
        name(&host.task(0, "x", "a")),
        (ServiceKind::Executable, "x".to_owned())
    );
}

#[test]
fn a_port_names_who_listens_there_and_its_workers() {
    let mut host = Host::new();
    let services = host.services("[[service]]\nname = 'pay'\nport = '8000-8100'");
    let task = host.start("java", "a");
    let other = host.start("python", "b");
    assert_eq!(services.of(&task).name, "java");
    services.learn_listeners(&[listens(&task, "10.0.0.1:8080"), listens(&other, "10.0.0.1:80")]);
    let service = services.of(&task);
    assert_eq!((service.name.as_str(), service.kind), ("pay", ServiceKind::Rule));
    assert_eq!(services.of(&other).name, "python");
    // This process is the parent of both: one that runs the same program and listens is a worker's master.
    let master = Task {
        tgid: std::process::id(),
        ..other
    };
    services.learn_listeners(&[listens(&master, "[::]:8081")]);
    assert_eq!(services.of(&other).name, "pay");
    for n in 0..MAX_PORTS * 2 {
        services.learn_listeners(&[listens(&task, &format!("10.0.0.1:{}", 9000 + n))]);
    }
    assert_eq!(
        lock(&services.listening).peek(&task.tgid).unwrap().1.len(),
        MAX_PORTS
    );
}

#[tokio::test]
async fn a_containers_name_comes_when_its_engine_has_answered() {
    let host = Host::new();
    let state = host.dir.path().join("containerd");
    let id = POD.rsplit('/').next().unwrap();
    let bundle = state.join("io.containerd.runtime.v2.task/k8s.io").join(id);
    fs::create_dir_all(&bundle).unwrap();
    let config = r#"{"annotations": {"io.kubernetes.cri.container-name": "cart",
        "io.kubernetes.cri.sandbox-name": "cart-6d4cf56db6-x7k2p", "io.kubernetes.cri.sandbox-namespace": "shop"}}"#;
    fs::write(bundle.join("config.json"), config).unwrap();
    let places = EnginePlaces {
        sockets: Vec::new(),
        users: host.dir.path().join("none"),
        containerd: vec![state],
        crio: host.dir.path().join("none"),
    };
    let cgroups = Arc::new(Cgroups::new(host.dir.path().join("cgroup")));
    let services = Services::new(cgroups, Vec::new(), Engine::start(places));
    let task = host.task(0, "java", POD);
    assert_eq!(services.of(&task).name, "pod-74c13223/4f797c539e6c");
    let named = async {
        while services.of(&task).name != "cart" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), named)
        .await
        .unwrap();
    let pod = services.of(&task).pod.clone().unwrap();
    assert_eq!(pod.name.as_deref(), Some("cart-6d4cf56db6-x7k2p"));
    assert_eq!(pod.namespace.as_deref(), Some("shop"));
}
