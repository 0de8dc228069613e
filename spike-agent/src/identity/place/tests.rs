//! Paths as they are on real hosts.

use super::*;

const ID: &str = "4f797c539e6c745de61a93ca3ff892358ecbcaccd8414d5db545c38428142970";
const OTHER: &str = "9ec39b91f3d70e1beff50a308f77067065ea6be0d91a3378375056cd4422cf3d";
const UID: &str = "74c13223-5a00-11e9-b385-42010a80018d";

/// `{id}`, `{other}`, `{uid}` and `{uid_}` stand for the above.
fn at(path: &str) -> Place {
    Place::of(
        &path
            .replace("{id}", ID)
            .replace("{other}", OTHER)
            .replace("{uid}", UID)
            .replace("{uid_}", &UID.replace('-', "_")),
    )
}

#[test]
fn pods_of_every_driver_and_runtime() {
    for path in [
        // cgroupfs driver: guaranteed, burstable, best effort; what systemd inside may add.
        "/kubepods/pod{uid}/{id}",
        "/kubepods/burstable/pod{uid}/{id}",
        "/kubepods/besteffort/pod{uid}/{id}",
        "/kubepods/besteffort/pod{uid}/{id}/init.scope",
        // systemd driver: containerd, CRI-O (with crun's own cgroup below), cri-dockerd.
        "/kubepods.slice/kubepods-pod{uid_}.slice/cri-containerd-{id}.scope",
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid_}.slice/cri-containerd-{id}.scope",
        "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{uid_}.slice/crio-{id}.scope",
        "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{uid_}.slice/crio-{id}.scope/container",
        "/kubepods.slice/kubepods-pod{uid_}.slice/docker-{id}.scope",
        // CRI-O with the cgroupfs driver.
        "/kubepods/burstable/pod{uid}/crio-{id}",
        // Paths for systemd's driver that reached a runtime without it.
        "/system.slice/containerd.service/kubepods-burstable-pod{uid_}.slice:cri-containerd:{id}",
        "/kubepods-besteffort-pod{uid_}.slice:cri-containerd:{id}",
        // k3s as a service, and rootless.
        "/system.slice/k3s.service/kubepods/burstable/pod{uid}/{id}",
        "/user.slice/user-1000.slice/user@1000.service/k3s-rootless.service/k8s.io/kubepods/burstable/pod{uid}/{id}",
        // kind: a node is a Docker container; old and new layout.
        "/docker/{other}/kubelet/kubepods/besteffort/pod{uid}/{id}",
        "/system.slice/docker-{other}.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod{uid_}.slice/cri-containerd-{id}.scope",
    ] {
        let place = at(path);
        assert_eq!(place.pod.as_deref(), Some(UID), "{path}");
        assert_eq!(place.container, Some(Container::Id(ID.to_owned())), "{path}");
        assert_eq!(place.unit, None, "{path}");
    }
    let fixed = at("/kubepods/burstable/podb7a3f2c81f5d4a7e9c1d2b3a4f5e6d7c/{id}");
    assert_eq!(fixed.pod.as_deref(), Some("b7a3f2c81f5d4a7e9c1d2b3a4f5e6d7c"));
    let no_container = at("/kubepods/burstable/pod{uid}");
    assert_eq!(
        (no_container.pod.as_deref(), no_container.container),
        (Some(UID), None)
    );
}

#[test]
fn containers_of_every_engine() {
    for path in [
        "/docker/{id}",
        "/system.slice/docker-{id}.scope",
        "/system.slice/docker.service/docker/{id}",
        "/system.slice/nerdctl-{id}.scope",
        "/default/{id}",
        // Podman as root: systemd's and its own driver, in a pod, with crun's cgroup below.
        "/machine.slice/libpod-{id}.scope",
        "/machine.slice/libpod-{id}.scope/container",
        "/libpod_parent/libpod-{id}",
        "/machine.slice/machine-libpod_pod_{other}.slice/libpod-{id}.scope/container",
        // Docker in Docker.
        "/docker/{other}/docker/{id}",
        "/ecs/89d5f9d86a4c4bd1a6ba4b9a1c0c6a0f/{id}",
    ] {
        let place = at(path);
        assert_eq!(place.container, Some(Container::Id(ID.to_owned())), "{path}");
        assert_eq!((place.pod, place.unit, place.user), (None, None, None), "{path}");
    }
    let fargate = at("/ecs/89d5f9d86a4c4bd1a6ba4b9a1c0c6a0f/89d5f9d86a4c4bd1a6ba4b9a1c0c6a0f-2532839951");
    let id = "89d5f9d86a4c4bd1a6ba4b9a1c0c6a0f-2532839951".to_owned();
    assert_eq!(fargate.container, Some(Container::Id(id)));
}

#[test]
fn a_rootless_container_is_its_users() {
    for path in [
        "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{id}.scope/container",
        "/user.slice/user-1000.slice/user@1000.service/user.slice/user-libpod_pod_{other}.slice/libpod-{id}.scope",
        "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{id}.scope",
        // Quadlet: the unit is around the container, and its name is the container's anyway.
        "/user.slice/user-1000.slice/user@1000.service/app.slice/web.service/libpod-payload-{id}",
    ] {
        let place = at(path);
        assert_eq!(place.container, Some(Container::Id(ID.to_owned())), "{path}");
        assert_eq!((place.user, place.unit), (Some(1000), None), "{path}");
    }
}

#[test]
fn system_containers_have_names_and_units() {
    for (path, name, unit) in [
        ("/lxc.payload.web", "web", None),
        ("/lxc.payload.web/init.scope", "web", None),
        (
            "/lxc.payload.shop_web/system.slice/nginx.service",
            "shop_web",
            Some("nginx.service"),
        ),
        (
            "/lxc/web/system.slice/nginx.service",
            "web",
            Some("nginx.service"),
        ),
        ("/lxc.payload/web", "web", None),
        (
            "/machine.slice/systemd-nspawn@web.service/payload/system.slice/nginx.service",
            "web",
            Some("nginx.service"),
        ),
        ("/machine.slice/machine-my\\x2dweb.scope", "my-web", None),
    ] {
        let place = at(path);
        assert_eq!(place.container, Some(Container::Name(name.to_owned())), "{path}");
        assert_eq!(place.unit.as_deref(), unit, "{path}");
    }
    let node = at("/docker/{id}/system.slice/containerd.service");
    assert_eq!(node.container, Some(Container::Id(ID.to_owned())));
    assert_eq!(node.unit.as_deref(), Some("containerd.service"));
}

#[test]
fn units_are_what_someone_named() {
    for (path, unit) in [
        ("/system.slice/nginx.service", Some("nginx.service")),
        (
            "/system.slice/system-postgresql.slice/postgresql@15-main.service",
            Some("postgresql@15-main.service"),
        ),
        (
            "/system.slice/system-getty.slice/getty@tty1.service",
            Some("getty@tty1.service"),
        ),
        ("/system.slice/my\\x2dapp.service", Some("my-app.service")),
        ("/system.slice/_cpu.service", Some("cpu.service")),
        ("/system.slice/caf\\xc3\\xa9.service", Some("café.service")),
        ("/system.slice/odd\\x.service", Some("odd\\x.service")),
        ("/system.slice/odd\\xé.service", Some("odd\\xé.service")),
        ("/system.slice/bad\\xff.service", Some("bad\\xff.service")),
        // What a service makes below itself is still it.
        ("/system.slice/agent.service/workers/7", Some("agent.service")),
        (
            "/machine.slice/machine-qemu\\x2d1\\x2dvm.scope",
            Some("machine-qemu-1-vm.scope"),
        ),
        ("/system.slice/backup.scope", Some("backup.scope")),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/syncthing.service",
            Some("syncthing.service"),
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/run-away.service",
            Some("run-away.service"),
        ),
        ("/", None),
        ("", None),
        ("/init.scope", None),
        ("/system.slice", None),
        ("/user.slice/user-1000.slice/session-3.scope", None),
        ("/user.slice/user-1000.slice/session-c2.scope", None),
        ("/user.slice/user-1000.slice/user@1000.service/init.scope", None),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/app-gnome-firefox-4242.scope",
            None,
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/app-org.gnome.Terminal.slice/vte-spawn-3a2cbb2b-1c9a-4d4b-8a94-0f1c3ad7ee0b.scope",
            None,
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/tmux-spawn-0aa1f7c2-8c9a-4f63-8f0a-6b7c1f6b2d54.scope",
            None,
        ),
        ("/system.slice/run-u12.service", None),
        ("/system.slice/run-r4b1bfca6d7b34d1f9bb2f5d3b5f0a1c2.scope", None),
        ("/system.slice/run-p1234-i5678.scope", None),
        // Those who look after containers are none.
        ("/machine.slice/libpod-conmon-{id}.scope", None),
        ("/kubepods.slice/crio-conmon-{id}.scope", None),
        ("/lxc.monitor.web", None),
    ] {
        let place = at(path);
        assert_eq!(place.unit.as_deref(), unit, "{path}");
        assert_eq!((place.pod, place.container), (None, None), "{path}");
    }
}

#[test]
fn what_only_looks_like_a_pod_or_container_is_neither() {
    for path in [
        "/podman.slice",
        "/system.slice/podinfo",
        "/kubepods/pod123",
        "/kubepods/podzzzzzzzz-5a00-11e9-b385-42010a80018d",
        "/docker/4f797c539e6c",
        "/docker/buildx",
        "/pod/-pod/:/.slice:/\\x",
    ] {
        assert_eq!(at(path), Place::default(), "{path}");
    }
}

proptest::proptest! {
    #[test]
    fn any_path_can_be_read(path in "[/.:@_a-f0-9\\\\x-]{0,80}|\\PC{0,80}") {
        Place::of(&path);
    }
}
