#!/bin/sh
# Unpacks Debian's Exim, Postfix and OpenSMTPD, as partners of tests and benchmarks, without installing them (which would
# start or replace this machine's mail server, and only one of them may be installed): scripts/peers.sh DIR
#
# DIR/exim/usr, DIR/postfix/usr ... are laid over /usr in a private mount namespace by tests/e2e/peers.py. Libraries that
# this machine does not have are unpacked beside them.
set -eu
dir=$1
exim='exim4-daemon-heavy exim4-base exim4-config'
postfix='postfix'
opensmtpd='opensmtpd'

complete() {
  [ -f "$dir/exim.complete" ] && [ -f "$dir/postfix.complete" ] && [ -f "$dir/opensmtpd.complete" ]
}

complete && exit 0
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
# Several test runners may come at once.
exec 9>"$dir/lock"
flock 9
# A directory that was filled before there was a mark for each of them.
[ -f "$dir/complete" ] && [ ! -f "$dir/exim.complete" ] && touch "$dir/exim.complete" "$dir/postfix.complete"
complete && exit 0
mkdir -p "$dir/deb"

# What an installation would bring besides, of shared libraries (simulated; nothing is installed).
libraries() {
  apt-get -s install --no-install-recommends "$1" 2>/dev/null | sed -n 's/^Inst \(lib[^ ]*\) .*/\1/p'
}

fetch() {
  name=$1
  shift
  [ -f "$dir/$name.complete" ] && return
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
  touch "$dir/$name.complete"
}

all() {
  fetch exim $exim $(libraries exim4-daemon-heavy) && fetch postfix $postfix $(libraries postfix) &&
    fetch opensmtpd $opensmtpd $(libraries opensmtpd)
}

echo "Fetching Debian's Exim, Postfix and OpenSMTPD as partners for the tests (unpacked under $dir, not installed)"
if ! all 2>/dev/null; then
  if [ "$(id -u)" = 0 ]; then
    apt-get update </dev/null >/dev/null 2>&1 || true
  fi
  all || { echo "peers.sh: could not fetch the partners' packages" >&2; exit 1; }
fi
rm -rf "$dir/deb"
