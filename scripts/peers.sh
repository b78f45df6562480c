#!/bin/sh
# Unpacks Debian's Exim and Postfix, as partners of tests and benchmarks, without installing them (which would start
# or replace this machine's mail server): scripts/peers.sh DIR
#
# DIR/exim/usr, DIR/postfix/usr ... are laid over /usr in a private mount namespace by tests/e2e/peers.py. Libraries that
# this machine does not have are unpacked beside them.
set -eu
dir=$1
exim='exim4-daemon-heavy exim4-base exim4-config'
postfix='postfix'

[ -f "$dir/complete" ] && exit 0
mkdir -p "$dir/deb"
dir=$(cd "$dir" && pwd)

# What an installation would bring besides, of shared libraries (simulated; nothing is installed).
libraries() {
  apt-get -s install --no-install-recommends "$1" 2>/dev/null | sed -n 's/^Inst \(lib[^ ]*\) .*/\1/p'
}

fetch() {
  name=$1
  shift
  rm -rf "$dir/deb/$name" "$dir/$name"
  mkdir -p "$dir/deb/$name" "$dir/$name/usr/lib" "$dir/$name/usr/sbin"
  # So that older packages' /lib lands where this system has it.
  ln -s usr/lib "$dir/$name/lib"
  (cd "$dir/deb/$name" && apt-get download "$@") >"$dir/deb/$name.log" 2>&1 || {
    cat "$dir/deb/$name.log" >&2
    return 1
  }
  for deb in "$dir/deb/$name"/*.deb; do
    dpkg-deb --fsys-tarfile "$deb" | tar -x -p --keep-directory-symlink -C "$dir/$name"
  done
}

all() {
  fetch exim $exim $(libraries exim4-daemon-heavy) && fetch postfix $postfix $(libraries postfix)
}

echo "Fetching Debian's Exim and Postfix as partners for the tests (unpacked under $dir, not installed)"
if ! all 2>/dev/null; then
  if [ "$(id -u)" = 0 ]; then
    apt-get update </dev/null >/dev/null 2>&1 || true
  fi
  all || { echo "peers.sh: could not fetch the partners' packages" >&2; exit 1; }
fi
rm -rf "$dir/deb"
touch "$dir/complete"
