#!/bin/sh
# Builds a build directory, setting it up first if it is new: scripts/build.sh DIR [TARGET...] [-- MESON-OPTION...]
set -eu
dir=$1
shift
targets=
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  targets="$targets $1"
  shift
done
[ $# -gt 0 ] && shift

cd "$(dirname "$0")/.."
# Lets ccache (which Meson uses where it is installed) share objects between checkouts.
export CCACHE_NOHASHDIR=1 CCACHE_BASEDIR="$PWD"
if [ ! -f "$dir/build.ninja" ]; then
  meson setup "$dir" "$@"
fi
exec ninja -C "$dir" $targets
