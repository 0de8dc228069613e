#!/usr/bin/env bash
# Makes a VM of Vagrant ready for `cargo xtask test`; runs in it as the user vagrant.
set -euo pipefail

# `vagrant ssh -c` starts a login shell, which reads this file.
line='PATH="$HOME/.cargo/bin:$PATH"'
grep -qxF "$line" ~/.profile 2>/dev/null || echo "$line" >>~/.profile

cd ~/spike
exec scripts/setup.sh --test
