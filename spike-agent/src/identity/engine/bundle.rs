//! Reads what CRI runtimes write beside a container: containerd's own API is gRPC, its files are the OCI's.
//!
//! Each container has a bundle with a `config.json` (OCI runtime specification), whose annotations name the pod:
//! `io.kubernetes.cri.*` by containerd, and CRI-O's labels as JSON within `io.kubernetes.cri-o.Labels`.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{ContainerInfo, EnginePlaces};

/// Longest file in bytes that is read.
const MAX_FILE: u64 = 1 << 20;
/// Namespaces of containerd that are looked into; there are two or three.
const MAX_NAMESPACES: usize = 64;
/// Annotations that hold a container's name, best first.
const NAMES: [&str; 3] = [
    "io.kubernetes.cri.container-name",
    "io.kubernetes.container.name",
    "nerdctl/name",
];
/// CRI-O's annotation with the labels of the container.
const CRIO_LABELS: &str = "io.kubernetes.cri-o.Labels";

#[derive(Deserialize)]
struct Spec {
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// What the bundle of a container tells; `None` when there is none or it does not name it.
pub(super) async fn find(places: &EnginePlaces, id: &str) -> Option<ContainerInfo> {
    let (places, id) = (places.clone(), id.to_owned());
    let read = tokio::task::spawn_blocking(move || candidates(&places, &id).find_map(|path| read(&path)));
    read.await.ok().flatten()
}

fn candidates(places: &EnginePlaces, id: &str) -> impl Iterator<Item = PathBuf> {
    let in_crio = places
        .crio
        .join("overlay-containers")
        .join(id)
        .join("userdata/config.json");
    let mut paths = vec![in_crio];
    for state in &places.containerd {
        let tasks = state.join("io.containerd.runtime.v2.task");
        let namespaces = fs::read_dir(tasks)
            .into_iter()
            .flatten()
            .flatten()
            .take(MAX_NAMESPACES);
        paths.extend(namespaces.map(|namespace| namespace.path().join(id).join("config.json")));
    }
    paths.into_iter()
}

fn read(path: &Path) -> Option<ContainerInfo> {
    let mut bytes = Vec::new();
    File::open(path)
        .ok()?
        .take(MAX_FILE)
        .read_to_end(&mut bytes)
        .ok()?;
    parse(&bytes)
}

fn parse(config: &[u8]) -> Option<ContainerInfo> {
    let mut labels = serde_json::from_slice::<Spec>(config).ok()?.annotations;
    if let Some(own) = labels.remove(CRIO_LABELS)
        && let Ok(own) = serde_json::from_str::<BTreeMap<String, String>>(&own)
    {
        labels.extend(own);
    }
    let name = NAMES.iter().find_map(|key| labels.get(*key))?.clone();
    // The rest of what runtimes note there is for themselves.
    let is_told = |key: &str| !key.starts_with("io.kubernetes.cri-o.");
    Some(ContainerInfo::new(
        &name,
        labels.into_iter().filter(|(key, _)| is_told(key)),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containerd_and_crio_name_the_pod() {
        let containerd = br#"{"ociVersion": "1.2.0", "process": {"env": ["PASSWORD=x"]}, "annotations": {
            "io.kubernetes.cri.container-name": "server",
            "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.sandbox-name": "checkout-6d4cf56db6-x7k2p",
            "io.kubernetes.cri.sandbox-namespace": "prod"}}"#;
        let info = parse(containerd).unwrap();
        assert_eq!(info.name, "server");
        assert_eq!(info.labels["io.kubernetes.cri.sandbox-namespace"], "prod");
        let crio = br#"{"annotations": {
            "io.kubernetes.cri-o.Labels": "{\"io.kubernetes.container.name\":\"server\",\"io.kubernetes.pod.name\":\"db-0\"}",
            "io.kubernetes.cri-o.LogPath": "/var/log/x"}}"#;
        let info = parse(crio).unwrap();
        assert_eq!(info.name, "server");
        assert_eq!(
            info.labels.keys().collect::<Vec<_>>(),
            ["io.kubernetes.container.name", "io.kubernetes.pod.name"]
        );
    }

    #[test]
    fn what_names_nothing_is_nothing() {
        for config in [
            "",
            "{}",
            "[]",
            "{\"annotations\": 1}",
            "{\"annotations\": {\"a\": \"b\"}}",
        ] {
            assert_eq!(parse(config.as_bytes()), None, "{config}");
        }
    }
}
