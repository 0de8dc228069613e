#!/usr/bin/env bash
# Brings a fresh Debian 12/13 or Ubuntu 22.04+ to a working build of Spike. Safe to run again: what is there stays.
set -euo pipefail

least=1.95                 # rust-version of the workspace
bpf_linker_version=0.10.3
cargo_deny_version=0.20.2
mermaid_version=11
jsdom_version=29
opentelemetry_proto_version=1.45.2
# Reads HTTP archives.
haralyzer_version=2.4.0
psycopg2_version=2.9.13       # clients of the servers that recordings stand in for
redis_client_version=8.1.0
grpcio_version=1.85.3
har_schema_version=2.0.0      # HAR 1.2 as a JSON schema, and what judges by it
ajv_version=8
ajv_formats_version=3

usage() {
    cat <<'TEXT'
usage: scripts/setup.sh [--build] [--test] [--lint] [--vm]

  --build  what `cargo xtask build` needs (this is the default, and part of the others):
           a C compiler, Rust, a Rust compiler with core's source, bpf-linker
  --test   also the servers, clients and tools of `cargo xtask test`; none of them is started
  --lint   also what `cargo xtask lint` needs: rustfmt, clippy, cargo-deny
  --vm     also what `cargo xtask vm` needs: QEMU, and tools to make a disk for it
TEXT
}

want_test=no want_lint=no want_vm=no
for option in "$@"; do
    case $option in
        --build) ;;
        --test) want_test=yes ;;
        --lint) want_lint=yes ;;
        --vm) want_vm=yes ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; exit 2 ;;
    esac
done

cargo_bin=${CARGO_HOME:-$HOME/.cargo}/bin
given_path=$PATH
# rustup's Rust before an older one of the distribution.
PATH=$cargo_bin:$PATH:/usr/sbin:/sbin

step() { printf '==> %s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

if [ "$(id -u)" = 0 ]; then
    sudo=()
elif have sudo; then
    sudo=(sudo)
else
    fail "neither root nor sudo: run this as root"
fi
have apt-get || fail "no apt-get: this script knows Debian and Ubuntu; README.md lists what to install by hand"

# --- apt, without starting a service -------------------------------------------------------------------------------

guard=/usr/sbin/policy-rc.d
guard_is_ours=no
remove_guard() {
    if [ $guard_is_ours = yes ]; then
        "${sudo[@]}" rm -f $guard
        guard_is_ours=no
    fi
}
trap remove_guard EXIT

updated=no
apt_update() {
    [ $updated = no ] || return 0
    step "apt-get update"
    "${sudo[@]}" apt-get -o DPkg::Lock::Timeout=300 update -qq || step "apt-get update had errors; going on"
    updated=yes
}

candidate() { # the version that apt would install, or nothing
    apt-cache policy "$1" | sed -n 's/^  Candidate: //p' | grep -v '(none)' || true
}

apt_get() {
    # Nothing of the machine's owner is removed for Spike's sake.
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 \
        -o Dpkg::Use-Pty=0 install -y -qq --no-install-recommends --no-remove "$@" </dev/null
}

apt_install() {
    apt_update
    step "apt-get install $*"
    if [ ! -e $guard ]; then # packages of servers start them unless this says no
        printf '#!/bin/sh\nexit 101\n' | "${sudo[@]}" tee $guard >/dev/null
        guard_is_ours=yes
        "${sudo[@]}" chmod 755 $guard
    fi
    apt_get "$@"
    remove_guard
}

# From the backports of this release, with lists of its own: the machine's sources stay as they are.
apt_install_from_backports() {
    local suite mirror own
    suite=$(. /etc/os-release && echo "$VERSION_CODENAME-backports")
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' |
        head -n 1)
    [ -n "$mirror" ] || fail "$* is wanted from $suite, and apt's sources name no Debian mirror to get it from"
    own=$(mktemp -d)
    chmod 755 "$own" # apt reads it as a user of its own
    mkdir -p "$own/lists/partial"
    { cat /etc/apt/sources.list 2>/dev/null || true; echo "deb $mirror $suite main"; } >"$own/sources.list"
    apt_update
    step "apt-get install $* from $suite"
    local options=(-o "Dir::Etc::SourceList=$own/sources.list" -o "Dir::State::Lists=$own/lists")
    "${sudo[@]}" apt-get "${options[@]}" -o DPkg::Lock::Timeout=300 update -qq &&
        apt_get "${options[@]}" -t "$suite" "$@" ||
        fail "$* could not be installed from $suite"
    "${sudo[@]}" rm -rf "$own"
}

# --- Rust -----------------------------------------------------------------------------------------------------------

new_enough() { # version
    [ -n "$1" ] && [ "$(printf '%s\n%s\n' "$least" "$1" | sort -V | head -n 1)" = "$least" ]
}
release_of() { # rustc; the pre-release part is not compared
    "$1" -vV 2>/dev/null | sed -n 's/^release: \([0-9.]*\).*/\1/p' || true
}
has_source() { # rustc
    new_enough "$(release_of "$1")" && [ -e "$("$1" --print sysroot)/lib/rustlib/src/rust/library/core/src/lib.rs" ]
}

distribution_has_rust() { # the -web packages are the newer Rust that Debian keeps for browsers
    apt_update
    local version
    version=$(candidate rustc-web)
    new_enough "${version%%+*}"
}

install_rust() {
    if have rustup; then
        step "the active Rust is older than $least: updating rustup's stable toolchain"
        timeout 900 rustup toolchain install stable --profile minimal ||
            fail "rustup could not install a stable toolchain of $least or newer"
        rustup default >/dev/null 2>&1 || rustup default stable
    elif distribution_has_rust; then
        apt_install rustc-web cargo-web rust-web-src
    elif [ -n "$(candidate rustup)" ]; then
        apt_install rustup
        timeout 900 rustup toolchain install stable --profile minimal --component rust-src &&
            rustup default stable || fail "rustup could not install the stable toolchain"
    else
        apt_install curl ca-certificates
        step "rustup from sh.rustup.rs"
        timeout 900 sh -c 'curl --proto "=https" --tlsv1.2 -sSf https://sh.rustup.rs |
            sh -s -- -y --no-modify-path --profile minimal --component rust-src' ||
            fail "rustup could not be installed from sh.rustup.rs"
    fi
    hash -r
    new_enough "$(release_of rustc)" ||
        fail "rustc is $(release_of rustc), Spike needs $least: run 'rustup update stable', or 'rustup default stable'"
}

# The compiler that the build will take for the kernel programs: the active one, another of rustup's, the distribution's.
find_kernel_rustc() {
    local rustc
    for rustc in rustc "${RUSTUP_HOME:-$HOME/.rustup}"/toolchains/stable*/bin/rustc \
        "${RUSTUP_HOME:-$HOME/.rustup}"/toolchains/*/bin/rustc /usr/bin/rustc; do
        if have "$rustc" && has_source "$rustc"; then
            kernel_rustc=$rustc
            return 0
        fi
    done
    return 1
}

install_kernel_rustc() {
    if have rustup; then
        step "rustup component add rust-src (core's source, to build it for the kernel)"
        if timeout 120 rustup component add rust-src; then
            find_kernel_rustc && return 0
        fi
        step "rustup could not; asking the distribution"
    fi
    if distribution_has_rust; then
        apt_install rustc-web cargo-web rust-web-src
    fi
    find_kernel_rustc || fail "no Rust compiler of $least or newer with core's source:" \
        "neither 'rustup component add rust-src' nor apt's rustc-web, cargo-web, rust-web-src could be had"
}

# --- tools from crates.io -------------------------------------------------------------------------------------------

# Which LLVM an installed bpf-linker was built for; nothing if cargo does not know.
bpf_linker_features() {
    local record=${CARGO_HOME:-$HOME/.cargo}/.crates2.json
    [ ! -e "$record" ] || grep -o '"bpf-linker [^}]*' "$record" | grep -o '"features":\[[^]]*\]' || true
}

install_bpf_linker() {
    local major feature features
    major=$("$kernel_rustc" -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
    case $major in
        20 | 21 | 22) feature=rust-llvm-$major ;;
        # It loads LLVM at run time by its stable C interface; what it knows of 22 drives 23 as well (tried).
        23) feature=rust-llvm-22 ;;
        *) fail "bpf-linker $bpf_linker_version works with LLVM 20 to 23, $kernel_rustc has $major:" \
            "run 'rustup override set $least' here, then this again" ;;
    esac
    features=$(bpf_linker_features)
    if have bpf-linker && bpf-linker --version >/dev/null 2>&1; then
        case $features in
            '' | *"\"$feature\""*) step "bpf-linker: $(command -v bpf-linker), $(bpf-linker --version)"; return 0 ;;
            *) step "bpf-linker was built for another LLVM than $major ($features)" ;;
        esac
    fi
    step "cargo install bpf-linker $bpf_linker_version for LLVM $major"
    # Outside the workspace, so that its configuration does not apply; --force replaces one for another LLVM.
    (cd / && cargo install bpf-linker --version "$bpf_linker_version" --locked --force \
        --no-default-features --features $feature)
    hash -r
    bpf-linker --version >/dev/null || fail "bpf-linker was installed but does not run"
}

install_lint_tools() {
    local tool
    for tool in fmt clippy; do
        have "cargo-$tool" && cargo "$tool" --version >/dev/null 2>&1 && continue
        if have rustup; then
            step "rustup component add for cargo $tool"
            timeout 300 rustup component add "${tool/fmt/rustfmt}" || fail "rustup could not add cargo $tool"
        else
            if [ $tool = fmt ]; then apt_install rustfmt-web; else apt_install rust-web-clippy; fi
        fi
    done
    # Clippy for the kernel programs has to be their compiler's own.
    if [ "$("$kernel_rustc" --print sysroot)" = /usr ] && [ ! -e /usr/bin/clippy-driver ]; then
        apt_install rust-web-clippy
    fi
    have git || apt_install git # cargo-deny clones the advisory database
    if have cargo-deny; then
        step "cargo-deny: $(cargo-deny --version)"
    else
        step "cargo install cargo-deny $cargo_deny_version (takes a few minutes)"
        # Unoptimised builds in half the time and still checks in seconds.
        (cd / && cargo install cargo-deny --version "$cargo_deny_version" --locked --debug)
    fi
}

# --- programs of the system tests -----------------------------------------------------------------------------------

find_postgres() { # Debian keeps the server's programs off the PATH
    ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1
}

install_test_programs() {
    local pair program package wanted=()
    # program:package, and the package's other name where distributions differ
    for pair in nginx:nginx-light:nginx redis-server:redis-server curl:curl iperf3:iperf3 tshark:tshark \
        capinfos:wireshark-common editcap:wireshark-common mergecap:wireshark-common openssl:openssl \
        bpftool:bpftool:linux-tools-generic wrk:wrk ip:iproute2 \
        h2load:nghttp2-client dnsmasq:dnsmasq-base prometheus:prometheus nft:nftables podman:podman \
        python3:python3 node:nodejs perl:perl setpriv:util-linux \
        dot:graphviz rsvg-convert:librsvg2-bin tmux:tmux \
        tcpdump:tcpdump jq:jq strace:strace socat:socat nc:netcat-openbsd; do
        IFS=: read -r program package other <<<"$pair"
        have "$program" && continue
        apt_update
        if [ -z "$(candidate "$package")" ] && [ -n "$other" ]; then
            package=$other
        fi
        wanted+=("$package")
    done
    # The distribution's own Python reads GraphML with it.
    if ! /usr/bin/python3 -c 'import networkx' 2>/dev/null; then
        apt_update
        wanted+=(python3-networkx)
    fi
    have postgres || [ -n "$(find_postgres)" ] || wanted+=(postgresql)
    if [ ${#wanted[@]} = 0 ]; then
        step "test programs: all there"
        return 0
    fi
    if ! have tshark; then # else wireshark-common asks whether users other than root may capture
        apt_install debconf
        echo 'wireshark-common wireshark-common/install-setuid boolean false' |
            "${sudo[@]}" debconf-set-selections
    fi
    apt_install "${wanted[@]}"
}

# Clients of Toxiproxy's API, at the versions that the tests know, into target/toxiproxy-clients.
install_toxiproxy_clients() {
    local dir crate program missing=()
    dir=$(cd "$(dirname "$0")/.." && pwd)/target/toxiproxy-clients
    mkdir -p "$dir"
    if [ ! -d "$dir/python/toxiproxy" ]; then
        have python3 || missing+=(python3)
        python3 -m pip --version >/dev/null 2>&1 || missing+=(python3-pip)
        [ ${#missing[@]} = 0 ] || apt_install "${missing[@]}"
        step "toxiproxy-python 0.1.1"
        python3 -m pip install --quiet --target "$dir/python" toxiproxy-python==0.1.1
    fi
    if [ ! -d "$dir/node/node_modules/toxiproxy-node-client" ]; then
        have npm || apt_install nodejs npm
        step "toxiproxy-node-client 4.1.0"
        npm install --silent --prefix "$dir/node" toxiproxy-node-client@4.1.0
    fi
    if [ ! -e "$dir/rust/toxiproxy_rust_tests" ]; then
        have pkg-config && pkg-config --exists openssl || apt_install pkg-config libssl-dev
        step "toxiproxy_rust 0.1.6 and its tests"
        crate=$(mktemp -d)
        # The crate as it was published has its tests with it; cargo finds out where it keeps it.
        printf '[package]\nname = "fetch"\nversion = "0.1.0"\nedition = "2021"\n[lib]\npath = "lib.rs"\n[dependencies]\ntoxiproxy_rust = "=0.1.6"\n[workspace]\n' \
            >"$crate/Cargo.toml"
        touch "$crate/lib.rs"
        program=$(cargo metadata --manifest-path "$crate/Cargo.toml" --format-version 1 |
            tr ',' '\n' | sed -n 's/.*"manifest_path":"\(.*toxiproxy_rust-0.1.6\)\/Cargo.toml".*/\1/p' | head -n 1)
        [ -n "$program" ] || fail "cargo does not say where it keeps toxiproxy_rust"
        mkdir -p "$dir/rust"
        cp -r "$program" "$crate/toxiproxy_rust"
        grep -q '^\[workspace\]' "$crate/toxiproxy_rust/Cargo.toml" ||
            printf '\n[workspace]\n' >>"$crate/toxiproxy_rust/Cargo.toml"
        # Its own lints are not ours.
        (cd "$crate/toxiproxy_rust" && RUSTFLAGS=--cap-lints=warn cargo test --quiet --no-run --test toxiproxy_rust \
            --target-dir "$crate/target")
        program=$(find "$crate/target/debug/deps" -maxdepth 1 -name 'toxiproxy_rust-*' -type f -perm -100 | head -n 1)
        cp "$program" "$dir/rust/toxiproxy_rust_tests"
        rm -rf "$crate"
    fi
    step "Toxiproxy's clients: $dir"
}

# Mermaid's own parser judges the map's flowcharts; without npm a stricter reading of our own alone does.
install_mermaid() {
    local dir
    dir=$(cd "$(dirname "$0")/.." && pwd)/target/mermaid
    [ ! -d "$dir/node_modules/mermaid" ] || return 0
    have npm || { step "no npm: Mermaid's parser is done without"; return 0; }
    step "npm install mermaid, jsdom in target/mermaid"
    mkdir -p "$dir"
    timeout 300 npm install --prefix "$dir" --no-audit --no-fund --ignore-scripts --silent \
        "mermaid@$mermaid_version" "jsdom@$jsdom_version" ||
        { step "npm could not: Mermaid's parser is done without"; rm -rf "$dir"; }
}

# The schema of HTTP archives, and a validator, in the build's directory.
install_har_schema() {
    local dir
    dir=$(cd "$(dirname "$0")/.." && pwd)/target/test-tools/node
    [ ! -d "$dir/node_modules/har-schema" ] || return 0
    have npm || { step "no npm: HTTP archives are not checked by their schema"; return 0; }
    step "npm install har-schema, ajv, ajv-formats in target/test-tools/node"
    mkdir -p "$dir"
    timeout 300 npm install --prefix "$dir" --no-audit --no-fund --ignore-scripts --silent \
        "har-schema@$har_schema_version" "ajv@$ajv_version" "ajv-formats@$ajv_formats_version" ||
        { step "npm could not: HTTP archives are not checked by their schema"; rm -rf "$dir"; }
}

# Packages that the tests' own programs import, in the build's directory: the machine's Python stays as it is.
install_test_packages() {
    local tools
    tools=$(cd "$(dirname "$0")/.." && pwd)/target/test-tools/python
    if PYTHONPATH=$tools python3 -c 'import opentelemetry.proto.collector.trace.v1.trace_service_pb2, haralyzer' 2>/dev/null &&
        PYTHONPATH=$tools python3 -c 'import psycopg2, redis, grpc' 2>/dev/null; then
        step "packages of the tests: all there"
        return 0
    fi
    python3 -m pip --version >/dev/null 2>&1 || apt_install python3-pip
    step "pip install opentelemetry-proto, haralyzer, psycopg2-binary, redis, grpcio into $tools"
    PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1 timeout 300 \
        python3 -m pip install -q --target "$tools" "opentelemetry-proto==$opentelemetry_proto_version" \
        "haralyzer==$haralyzer_version" "psycopg2-binary==$psycopg2_version" "redis==$redis_client_version" \
        "grpcio==$grpcio_version"
}

# --- what boots other kernels ---------------------------------------------------------------------------------------

install_vm_tools() {
    local pair program package tools wanted=()
    for pair in mke2fs:e2fsprogs depmod:kmod xz:xz-utils strip:binutils; do
        IFS=: read -r program package <<<"$pair"
        have "$program" || wanted+=("$package")
    done
    [ ${#wanted[@]} = 0 ] || apt_install "${wanted[@]}"
    if ! have qemu-system-x86_64; then
        # All of QEMU's packages are of one version: with tools from backports the emulator comes from there, too.
        apt_update
        tools=$(dpkg-query -W -f '${Version}' qemu-utils 2>/dev/null || true)
        case $tools in
            *~bpo*) apt_install_from_backports qemu-system-x86 ;;
            *) apt_install qemu-system-x86 ;;
        esac
    fi
    step "QEMU: $(qemu-system-x86_64 --version | head -n 1)"
}

# --- what is done ---------------------------------------------------------------------------------------------------

missing=()
have cc || missing+=(gcc libc6-dev)
have make || missing+=(make)
[ -e /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)
[ ${#missing[@]} = 0 ] || apt_install "${missing[@]}"
step "C compiler: $(command -v cc)"

new_enough "$(release_of rustc)" && have cargo || install_rust
step "Rust: $(rustc --version) in $(rustc --print sysroot)"

find_kernel_rustc || install_kernel_rustc
step "compiler of the kernel programs: $("$kernel_rustc" --version) in $("$kernel_rustc" --print sysroot)"

install_bpf_linker
if [ $want_test = yes ]; then
    install_test_programs
    install_toxiproxy_clients
    install_test_packages
    install_mermaid
    install_har_schema
fi
if [ $want_lint = yes ]; then install_lint_tools; fi
if [ $want_vm = yes ]; then install_vm_tools; fi

case :$given_path: in
    *:"$cargo_bin":*) ;;
    *) [ "$(command -v cargo)" != "$cargo_bin/cargo" ] || step "add $cargo_bin to PATH to have cargo" ;;
esac
step "ready: cargo xtask build"
