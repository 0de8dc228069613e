#!/usr/bin/env bash
# Makes a Vagrant box of Debian 12 from Debian's packages, for QEMU under libvirt: where no box can be downloaded.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: tests/vm/box.sh [--ready] FILE.box

  --ready  put into the box what scripts/setup.sh --test installs, and the tests as they are built of this tree: the VM
           then needs no network, and compiles only what is changed later. Good where the VM is emulated, and slow.

Needs root; mmdebstrap, e2fsprogs, qemu-utils and rsync; and vagrant, for the public key that its boxes begin with.
Packages come from where this machine's apt gets its own if it is a Debian 12, else from where mmdebstrap says.
The system is built below ${TMPDIR:-/var/tmp}, which needs 4 GB, or 12 GB with --ready.
TEXT
}

ready=no box=
for argument in "$@"; do
    case $argument in
        --ready) ready=yes ;;
        -h | --help) usage; exit 0 ;;
        -*) usage >&2; exit 2 ;;
        *) [ -z "$box" ] || { usage >&2; exit 2; }; box=$argument ;;
    esac
done
[ -n "$box" ] || { usage >&2; exit 2; }

step() { printf '==> %s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || fail "not root"
PATH=$PATH:/usr/sbin:/sbin
for program in mmdebstrap mke2fs qemu-img rsync; do
    command -v $program >/dev/null || fail "no $program: apt-get install mmdebstrap e2fsprogs qemu-utils rsync"
done
public_key=$(dpkg -L vagrant 2>/dev/null | grep '/keys/vagrant\.pub$' || true)
[ -e "$public_key" ] || fail "no public key of vagrant's: apt-get install vagrant"

# Mounts and the host name are those of this script and its children alone, and end with them.
[ -n "${SPIKE_BOX_UNSHARED-}" ] || SPIKE_BOX_UNSHARED=yes exec unshare --mount --uts "$0" "$@"

source=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d "${TMPDIR:-/var/tmp}/spike-box-XXXXXX")
trap 'umount -R "$root"/{proc,sys,dev} 2>/dev/null || true; rm -rf --one-file-system "$work"' EXIT
root=$work/root
# The path means nothing within.
unset TMPDIR

# --- the system -----------------------------------------------------------------------------------------------------

packages=(
    linux-image-amd64 initramfs-tools systemd-sysv dbus udev kmod procps
    ifupdown isc-dhcp-client iproute2 openssh-server ca-certificates
    sudo rsync less
)
# How this machine's apt gets through to its packages: a proxy, a mirror that is behind.
apt-config dump | grep -E '^Acquire::(https?|Check-)' >"$work/apt.conf" || true
mirror=()
if grep -qx 'VERSION_CODENAME=bookworm' /etc/os-release; then
    # A file each: two styles do not go into one.
    for list in /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources; do
        if [ -s $list ]; then mirror+=("$list"); fi
    done
fi

step "Debian 12 (mmdebstrap)"
mmdebstrap --quiet --variant=minbase --include="$(IFS=,; echo "${packages[*]}")" --aptopt="$work/apt.conf" \
    bookworm "$root" "${mirror[@]}"

chroot "$root" useradd --create-home --shell /bin/bash vagrant
echo 'vagrant ALL=(ALL) NOPASSWD: ALL' >"$root/etc/sudoers.d/vagrant"
install -d -m 700 -o 1000 -g 1000 "$root/home/vagrant/.ssh"
install -m 600 -o 1000 -g 1000 "$public_key" "$root/home/vagrant/.ssh/authorized_keys"
echo 'UseDNS no' >"$root/etc/ssh/sshd_config.d/vagrant.conf"
echo spike >"$root/etc/hostname"
printf '127.0.0.1 localhost spike\n::1 localhost\n' >"$root/etc/hosts"
printf 'auto lo eth0\niface lo inet loopback\niface eth0 inet dhcp\n' >"$root/etc/network/interfaces"
echo '/dev/vda / ext4 errors=remount-ro 0 1' >"$root/etc/fstab"
# Timers that would disturb a measurement.
chroot "$root" systemctl --quiet mask apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer fstrim.timer

# --- what the tests need --------------------------------------------------------------------------------------------

as_vagrant() { # command line for a login shell in the new system
    chroot "$root" sudo --login --user vagrant bash -lc "$1"
}

if [ $ready = yes ]; then
    step "scripts/setup.sh --test, in the box"
    # sudo looks its own host up.
    hostname spike
    for dir in proc sys dev; do mount --rbind /$dir "$root/$dir"; done
    cp --dereference --remove-destination /etc/resolv.conf "$root/etc/resolv.conf"
    # Authorities that this machine trusts beside Debian's, as behind a company's proxy.
    find /usr/local/share/ca-certificates -name '*.crt' -exec cp {} "$root/usr/local/share/ca-certificates/" \;
    chroot "$root" update-ca-certificates >/dev/null
    # Where `vagrant up` will put it, since cargo's records hold paths; with the times of the files, as it will.
    rsync --archive --chown=1000:1000 --exclude-from=<(printf '/target\n/.git\n*.pcapng\n') \
        "$source/" "$root/home/vagrant/spike/"
    as_vagrant 'spike/tests/vm/provision.sh'
    step "cargo xtask test --no-run, in the box"
    as_vagrant 'cd spike && cargo xtask test --no-run'
    umount -R "$root"/{proc,sys,dev}
    : >"$root/etc/resolv.conf"
fi
chroot "$root" apt-get clean
rm -rf "$root"/var/lib/apt/lists/*

# --- the box --------------------------------------------------------------------------------------------------------

step "disk image"
content=$work/content
mkdir "$content"
kernel=$(basename "$(readlink "$root/vmlinuz")")
cp --dereference "$root/vmlinuz" "$content/vmlinuz"
cp --dereference "$root/initrd.img" "$content/initrd.img"
mke2fs -q -t ext4 -m 0 -d "$root" "$work/disk.raw" 16G
rm -rf --one-file-system "$root"
qemu-img convert -O qcow2 "$work/disk.raw" "$content/box.img"
rm "$work/disk.raw"
echo '{"provider": "libvirt", "format": "qcow2", "virtual_size": 16}' >"$content/metadata.json"
cat >"$content/Vagrantfile" <<'TEXT'
Vagrant.configure("2") do |config|
  config.ssh.insert_key = false
  config.vm.provider "libvirt" do |libvirt|
    # The image has no boot loader.
    libvirt.machine_type = "q35"
    libvirt.kernel = File.expand_path("vmlinuz", __dir__)
    libvirt.initrd = File.expand_path("initrd.img", __dir__)
    libvirt.cmd_line = "root=/dev/vda rw net.ifnames=0 console=ttyS0 mitigations=off quiet"
  end
end
TEXT
tar --create --sparse --file "$box" --directory "$content" metadata.json Vagrantfile vmlinuz initrd.img box.img
step "$box: $(du -h "$box" | cut -f1), $kernel"
