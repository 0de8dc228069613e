#!/usr/bin/env bash
# Runs Spike's tests in the VM from start to end on a machine without KVM, Vagrant boxes or systemd: tests/vm/README.md.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: tests/vm/try.sh FILE.box [COMMAND]

vagrant up, COMMAND in the VM, vagrant destroy; exits with COMMAND's status.
COMMAND is `cd spike && cargo xtask test` unless given; FILE.box comes from tests/vm/box.sh --ready.

Needs root; vagrant, vagrant-libvirt, libvirt-daemon-system, qemu-system-x86 and rsync. libvirt, the VM and its network
live in namespaces of their own, with state in a folder below ${TMPDIR:-/var/tmp}, and are gone at the end.
TEXT
}

case ${1-} in
    -h | --help) usage; exit 0 ;;
    '' | -*) usage >&2; exit 2 ;;
esac

step() { printf '==> %s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || fail "not root"
PATH=$PATH:/usr/sbin:/sbin
for program in vagrant libvirtd virtlogd dnsmasq qemu-system-x86_64 rsync; do
    command -v $program >/dev/null ||
        fail "no $program: apt-get install vagrant vagrant-libvirt libvirt-daemon-system qemu-system-x86 rsync"
done
# Whatever happens, the processes end with the first one of their namespace, mounts and interfaces with the last.
[ -n "${SPIKE_TRY_UNSHARED-}" ] ||
    SPIKE_TRY_UNSHARED=yes exec unshare --mount --net --pid --fork --kill-child --mount-proc "$0" "$@"

box=$(realpath "$1")
command=${2-cd spike && cargo xtask test}
here=$(cd "$(dirname "$0")" && pwd)
state=$(mktemp -d "${TMPDIR:-/var/tmp}/spike-try-XXXXXX")
trap 'rm -rf --one-file-system "$state"' EXIT

# --- libvirt, to itself ---------------------------------------------------------------------------------------------

ip link set lo up

# A /dev without kvm: libvirt takes minutes to find out that one does not work.
mkdir "$state/dev"
mount -t tmpfs -o mode=755 tmpfs "$state/dev"
mkdir "$state"/dev/{net,pts,shm}
for node in null zero full random urandom tty; do
    cp -a /dev/$node "$state/dev/$node"
done
mknod -m 666 "$state/dev/net/tun" c 10 200
ln -s /proc/self/fd "$state/dev/fd"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$state/dev/pts"
ln -s pts/ptmx "$state/dev/ptmx"
mount -t tmpfs tmpfs "$state/dev/shm"
mount --move "$state/dev" /dev

for dir in /etc/libvirt /run/libvirt /var/lib/libvirt /var/cache/libvirt /var/log/libvirt; do
    mkdir -p $dir "$state$dir"
    mount --bind "$state$dir" $dir
done
mkdir -p /var/lib/libvirt/images
cat >/etc/libvirt/qemu.conf <<'TEXT'
user = "root"
group = "root"
security_driver = "none"
namespaces = []
cgroup_controllers = []
TEXT
virtlogd --daemon
libvirtd --daemon

# --- the VM ---------------------------------------------------------------------------------------------------------

export VAGRANT_HOME=$state/vagrant VAGRANT_DOTFILE_PATH=$state/dotfiles VAGRANT_CWD=$here
export VAGRANT_CHECKPOINT_DISABLE=1 VAGRANT_DEFAULT_PROVIDER=libvirt SPIKE_VM_BOX=spike-try
unset SSH_AUTH_SOCK

vagrant box add --name "$SPIKE_VM_BOX" "$box"
start=$SECONDS
# A machine under load may take the 2 s to find the VM's address after which the plugin gives up.
vagrant up || { step "vagrant up, again"; vagrant destroy --force; vagrant up; }
step "up after $((SECONDS - start)) s"

# What follows is worth nothing if a failure in the VM does not come out.
status=0
vagrant ssh -c 'exit 7' || status=$?
[ $status = 7 ] || fail "vagrant ssh -c 'exit 7' gave $status"

start=$SECONDS status=0
vagrant ssh -c "$command" || status=$?
step "'$command' gave $status after $((SECONDS - start)) s"

vagrant destroy --force
exit $status
