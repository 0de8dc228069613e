//! What the map calls an end of a connection, and what that name was made of.

use std::{collections::BTreeMap, net::IpAddr};

use super::{
    engine::ContainerInfo,
    kubernetes::{Pod, workload},
    look::{Look, base},
    place::{Container, Place},
};
use crate::model::{ServiceKind, service_rule::Traits};

/// Digits of a container's id that are shown when it has no name, as Docker does.
const SHORT_ID: usize = 12;
/// Labels that name a container's part in an application better than its own name does, best first.
const PREFERRED: [&str; 3] = [
    "com.docker.compose.service",
    "io.podman.compose.service",
    "com.docker.swarm.service.name",
];

/// A named group of processes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// What it is called; empty when nothing at all is known.
    pub name: String,
    /// What the name is of.
    pub kind: ServiceKind,
    /// Path of the executable, or its bare name when the path is unknown.
    pub executable: String,
    /// The name that the executable was invoked by, when it is another one than the file's.
    pub invoked: Option<String>,
    /// Id of its container: 64 hexadecimal digits, but on ECS's Fargate.
    pub container_id: Option<String>,
    /// Name of its container, when known.
    pub container: Option<String>,
    /// Labels of its container, when known.
    pub labels: BTreeMap<String, String>,
    /// Its Kubernetes pod.
    pub pod: Option<Pod>,
    /// Full name of its systemd unit, such as `nginx.service`.
    pub unit: Option<String>,
}

impl Service {
    /// What is called by `name` on another host; by its address when there is no name.
    pub fn external(name: Option<&str>, address: IpAddr) -> Self {
        Self {
            name: name.map_or_else(|| address.to_canonical().to_string(), str::to_owned),
            kind: ServiceKind::External,
            ..Self::default()
        }
    }

    /// The service of a process in `place`, which the kernel calls `executable`.
    pub(super) fn of(
        executable: &str,
        place: &Place,
        look: Option<&Look>,
        info: Option<&ContainerInfo>,
    ) -> Self {
        let mut service = Self {
            executable: look.map_or(executable, |look| look.exe.as_str()).to_owned(),
            invoked: look.and_then(|look| look.invoked.clone()),
            unit: place.unit.clone(),
            ..Self::default()
        };
        match &place.container {
            Some(Container::Id(id)) => service.container_id = Some(id.clone()),
            Some(Container::Name(name)) => service.container = Some(name.clone()),
            None => {}
        }
        if let Some(info) = info {
            service.container = Some(info.name.clone()).filter(|name| !name.is_empty());
            service.labels = info.labels.clone();
        }
        service.pod = Pod::of(place.pod.as_deref(), &service.labels);
        let program = look.and_then(|look| look.program.as_deref());
        (service.kind, service.name) = service.own_name(program);
        service
    }

    /// The name without any rule.
    fn own_name(&self, program: Option<&str>) -> (ServiceKind, String) {
        let short_id = self
            .container_id
            .as_deref()
            .map(|id| id.get(..SHORT_ID).unwrap_or(id));
        if let Some(pod) = &self.pod {
            return (ServiceKind::Pod, pod_name(pod, short_id));
        }
        let preferred = PREFERRED.iter().find_map(|key| self.labels.get(*key));
        let container = preferred
            .map(String::as_str)
            .or(self.container.as_deref())
            .or(short_id);
        let unit = self.unit.as_deref().map(unit_stem);
        match (container, unit) {
            // One that runs a whole system has several services.
            (Some(container), Some(unit)) => (ServiceKind::Container, format!("{container}/{unit}")),
            (Some(container), None) => (ServiceKind::Container, container.to_owned()),
            (None, Some(unit)) => (ServiceKind::Unit, unit.to_owned()),
            (None, None) => {
                let name = program.or(self.invoked.as_deref());
                let name = name.unwrap_or_else(|| base(&self.executable));
                (ServiceKind::Executable, name.to_owned())
            }
        }
    }

    /// What rules look at.
    pub(super) fn traits<'a>(&'a self, cgroup: &'a str, ports: &'a [u16]) -> Traits<'a> {
        let pod_container = self.pod.as_ref().and_then(|pod| pod.container.as_deref());
        Traits {
            executable: &self.executable,
            invoked: self.invoked.as_deref(),
            unit: self.unit.as_deref(),
            container: pod_container.or(self.container.as_deref()),
            labels: Some(&self.labels),
            cgroup,
            ports,
        }
    }
}

/// The workload, and the container where that is called otherwise, as a sidecar is.
fn pod_name(pod: &Pod, short_id: Option<&str>) -> String {
    let Some(name) = &pod.name else {
        let uid = pod.uid.as_deref().unwrap_or_default();
        let uid = uid.get(..8).unwrap_or(uid);
        return short_id.map_or_else(|| format!("pod-{uid}"), |id| format!("pod-{uid}/{id}"));
    };
    let workload = workload(name);
    match &pod.container {
        Some(container) if container != workload => format!("{workload}/{container}"),
        _ => workload.to_owned(),
    }
}

/// A unit's name without its type.
fn unit_stem(unit: &str) -> &str {
    unit.rsplit_once('.').map_or(unit, |(stem, _)| stem)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4f797c539e6c745de61a93ca3ff892358ecbcaccd8414d5db545c38428142970";

    fn info(name: &str, labels: &[(&str, &str)]) -> ContainerInfo {
        ContainerInfo {
            name: name.to_owned(),
            labels: labels
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
        }
    }

    #[track_caller]
    fn check(path: &str, info: Option<&ContainerInfo>, kind: ServiceKind, name: &str) -> Service {
        let place = Place::of(&path.replace("{id}", ID));
        let service = Service::of("java", &place, None, info);
        assert_eq!((service.kind, service.name.as_str()), (kind, name), "{path}");
        service
    }

    #[test]
    fn the_most_telling_name_wins() {
        let pod_path = "/kubepods/burstable/pod74c13223-5a00-11e9-b385-42010a80018d/{id}";
        let pod = info(
            "k8s_server_checkout-6d4cf56db6-x7k2p_prod_74c13223_0",
            &[
                ("io.kubernetes.pod.name", "checkout-6d4cf56db6-x7k2p"),
                ("io.kubernetes.pod.namespace", "prod"),
                ("io.kubernetes.container.name", "server"),
            ],
        );
        let service = check(pod_path, Some(&pod), ServiceKind::Pod, "checkout/server");
        assert_eq!(service.pod.unwrap().namespace.as_deref(), Some("prod"));
        assert_eq!(service.container_id.as_deref(), Some(ID));
        check(pod_path, None, ServiceKind::Pod, "pod-74c13223/4f797c539e6c");
        let docker = "/system.slice/docker-{id}.scope";
        check(docker, None, ServiceKind::Container, "4f797c539e6c");
        check(
            docker,
            Some(&info("pay-db", &[])),
            ServiceKind::Container,
            "pay-db",
        );
        let compose = info(
            "shop-db-1",
            &[("com.docker.compose.service", "db"), ("team", "x")],
        );
        let service = check(docker, Some(&compose), ServiceKind::Container, "db");
        assert_eq!(service.container.as_deref(), Some("shop-db-1"));
        assert_eq!(service.labels["team"], "x");
        check(
            "/lxc.payload.web/system.slice/nginx.service",
            None,
            ServiceKind::Container,
            "web/nginx",
        );
        check("/system.slice/nginx.service", None, ServiceKind::Unit, "nginx");
        check(
            "/a/postgresql@15-main.service",
            None,
            ServiceKind::Unit,
            "postgresql@15-main",
        );
        check(
            "/user.slice/user-1000.slice/session-3.scope",
            None,
            ServiceKind::Executable,
            "java",
        );
        check("", None, ServiceKind::Executable, "java");
    }

    #[test]
    fn a_process_is_its_program_its_name_or_its_file() {
        let mut look = Look {
            started: 1,
            parent: 1,
            exe: "/usr/bin/redis-check-rdb".to_owned(),
            invoked: None,
            program: None,
        };
        let name = |look: &Look| Service::of("redis-check-rdb", &Place::default(), Some(look), None).name;
        assert_eq!(name(&look), "redis-check-rdb");
        look.invoked = Some("redis-server".to_owned());
        assert_eq!(name(&look), "redis-server");
        look.program = Some("shop".to_owned());
        assert_eq!(name(&look), "shop");
    }

    #[test]
    fn what_is_elsewhere_has_a_name_or_an_address() {
        let address = "::ffff:10.0.0.7".parse().unwrap();
        assert_eq!(Service::external(Some("db.example"), address).name, "db.example");
        let unnamed = Service::external(None, address);
        assert_eq!(
            (unnamed.name.as_str(), unnamed.kind),
            ("10.0.0.7", ServiceKind::External)
        );
    }
}
