//! Reads what Kubernetes writes on a container.

use std::collections::BTreeMap;

/// A Kubernetes pod, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Its uid, of the cgroup's path.
    pub uid: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// The namespace that its name is in.
    pub namespace: Option<String>,
    /// The name, within the pod, of the container.
    pub container: Option<String>,
}

/// The letters that Kubernetes makes names of: no vowels, so that no word comes about
/// (`k8s.io/apimachinery/pkg/util/rand`).
const RANDOM: &str = "bcdfghjklmnpqrstvwxz2456789";

impl Pod {
    /// The pod with this uid in its container's cgroup and these labels on its container; `None` when neither tells of
    /// one.
    pub(super) fn of(uid: Option<&str>, labels: &BTreeMap<String, String>) -> Option<Self> {
        // The kubelet's own labels (`k8s.io/kubelet/pkg/types`), which Docker and CRI-O keep, then containerd's.
        let label = |keys: [&str; 2]| keys.iter().find_map(|key| labels.get(*key)).cloned();
        let pod = Self {
            uid: uid
                .map(str::to_owned)
                .or_else(|| label(["io.kubernetes.pod.uid", "io.kubernetes.cri.sandbox-uid"])),
            name: label(["io.kubernetes.pod.name", "io.kubernetes.cri.sandbox-name"]),
            namespace: label([
                "io.kubernetes.pod.namespace",
                "io.kubernetes.cri.sandbox-namespace",
            ]),
            container: label(["io.kubernetes.container.name", "io.kubernetes.cri.container-name"]),
        };
        (pod.uid.is_some() || pod.name.is_some()).then_some(pod)
    }
}

/// The name of what made a pod: what all of its replicas have in common.
///
/// `checkout-6d4cf56db6-x7k2p` is of a Deployment, `agent-x7k2p` of a DaemonSet or Job, `db-0` of a StatefulSet,
/// `backup-28473920-x7k2p` of a CronJob; any other name is its own.
pub(super) fn workload(pod: &str) -> &str {
    let Some((rest, last)) = pod.rsplit_once('-').filter(|(rest, _)| !rest.is_empty()) else {
        return pod;
    };
    if !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit()) && last.len() <= 4 {
        return rest;
    }
    if !is_random(last, 5..=5) {
        return pod;
    }
    match rest.rsplit_once('-') {
        Some((name, hash)) if !name.is_empty() && (is_random(hash, 6..=10) || is_minutes(hash)) => name,
        _ => rest,
    }
}

fn is_random(text: &str, lengths: std::ops::RangeInclusive<usize>) -> bool {
    lengths.contains(&text.len()) && text.chars().all(|c| RANDOM.contains(c))
}

/// Minutes since 1970, as a CronJob names its Jobs.
fn is_minutes(text: &str) -> bool {
    text.len() == 8 && text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_are_one_workload() {
        for (pod, expected) in [
            ("checkout-6d4cf56db6-x7k2p", "checkout"),
            ("checkout-v2-7c9d8b5f4-zzzzz", "checkout-v2"),
            ("fluent-bit-x7k2p", "fluent-bit"),
            ("db-0", "db"),
            ("cart-db-12", "cart-db"),
            ("backup-28473920-x7k2p", "backup"),
            ("redis-cache", "redis-cache"),
            ("kube-apiserver-node-one", "kube-apiserver-node-one"),
            ("web", "web"),
            ("x7k2p", "x7k2p"),
            ("-x7k2p", "-x7k2p"),
            ("-0", "-0"),
            ("-", "-"),
            ("", ""),
            ("report-20240102", "report-20240102"),
        ] {
            assert_eq!(workload(pod), expected, "{pod}");
        }
    }

    #[test]
    fn labels_of_each_engine_are_read() {
        let labels = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            let own = pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            own.collect()
        };
        assert_eq!(Pod::of(None, &labels(&[("team", "x")])), None);
        let uid_alone = Pod::of(Some("u"), &labels(&[])).unwrap();
        assert_eq!((uid_alone.uid.as_deref(), uid_alone.name), (Some("u"), None));
        for prefix in [
            [
                "io.kubernetes.pod.name",
                "io.kubernetes.pod.namespace",
                "io.kubernetes.container.name",
            ],
            [
                "io.kubernetes.cri.sandbox-name",
                "io.kubernetes.cri.sandbox-namespace",
                "io.kubernetes.cri.container-name",
            ],
        ] {
            let [name, namespace, container] = prefix;
            let pod = Pod::of(None, &labels(&[(name, "a"), (namespace, "b"), (container, "c")])).unwrap();
            let read = (
                pod.name.as_deref(),
                pod.namespace.as_deref(),
                pod.container.as_deref(),
            );
            assert_eq!(read, (Some("a"), Some("b"), Some("c")));
        }
    }
}
