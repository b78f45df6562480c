#!/bin/sh
# Installs the Debian packages that Martlet's build and its tests need, if any is missing.
#
#   scripts/deps.sh build            what `make` and `make run` need
#   scripts/deps.sh build test       and what `make check` and `make bench` need
#   scripts/deps.sh build fuzz       what `make fuzz` needs
#   scripts/deps.sh --list build     only print the names
#
# Asks nothing of the network when all are there. As root it installs with apt-get; else through sudo, if that works;
# else it names the command to run as root and fails.
set -u

build='build-essential meson ninja-build pkg-config libevent-dev libssl-dev libc-ares-dev libpcre2-dev liblmdb-dev
  libidn2-dev libsqlite3-dev zlib1g-dev libcrypt-dev libcmocka-dev libdb-dev libjansson-dev libpsl-dev libpq-dev libldap-dev
  libunbound-dev libcurl4-openssl-dev
  libmariadb-dev libseccomp-dev libpam0g-dev libgsasl-dev libsasl2-dev heimdal-multidev python3 netbase'
test='python3-pytest python3-pytest-xdist python3-pytest-timeout swaks openssl perl util-linux sqlite3 curl gnutls-bin nmap
  redis-tools postgresql mariadb-server-core mariadb-client-core db-util libnet-ssleay-perl lmdb-utils slapd freeradius haproxy nsd unbound ldnsutils hash-slinger
  clamav-daemon spamd rspamd
  python3-spf python3-yaml python3-dkim python3-nacl python3-cryptography opendkim-tools microsocks nginx libnginx-mod-mail libnginx-mod-stream dovecot-core dovecot-imapd dovecot-lmtpd dovecot-sieve
  libmail-srs-perl libmail-dkim-perl opendmarc spfquery python3-authheaders libopendkim-dev libspf2-dev libdbd-mysql-perl libswitch-perl libjson-perl
  gsasl sasl2-bin libsasl2-modules heimdal-kdc heimdal-clients'

fuzz='clang'

list_only=
[ "${1-}" = --list ] && list_only=1 && shift
want=
for set_name in "${@:-build}"; do
  case $set_name in
  build) want="$want $build" ;;
  test) want="$want $test" ;;
  fuzz) want="$want $fuzz" ;;
  *) echo "deps.sh: no set of packages is called '$set_name' (build, test, fuzz)" >&2; exit 2 ;;
  esac
done
want=$(echo $want)
if [ -n "$list_only" ]; then
  echo "$want"
  exit 0
fi

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  echo "deps.sh: this is no Debian system; these packages' contents must be there: $want" >&2
  exit 0
fi

missing() {
  for p in $want; do
    case $(dpkg-query -W -f '${Status}' "$p" 2>/dev/null) in
    *' ok installed') ;;
    *) printf '%s ' "$p" ;;
    esac
  done
}

lack=$(missing)
[ -z "$lack" ] && exit 0

as_root=
if [ "$(id -u)" != 0 ]; then
  if command -v sudo >/dev/null && { sudo -n true 2>/dev/null || { [ -t 0 ] && [ -t 2 ]; }; }; then
    as_root=sudo
  else
    cat >&2 <<MSG
Martlet needs these Debian packages, which are not installed:
  $lack
They can only be installed as root. Run as root:
  apt-get update && apt-get install -y --no-install-recommends $lack
then call make again.
MSG
    exit 1
  fi
fi

# The tests start the servers themselves, on ports of their own: the packages' services are not to be started.
policy=/usr/sbin/policy-rc.d
quiet() {
  [ -e $policy ] && return
  trap '$as_root rm -f $policy' EXIT
  printf '#!/bin/sh\nexit 101\n' | $as_root tee $policy >/dev/null && $as_root chmod 755 $policy
}

install() {
  $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $lack </dev/null
}

echo "Installing Debian packages: $lack"
quiet
# A new machine has no package lists yet, an old one has outdated ones: both are mended by an update.
if ! install >/dev/null 2>&1; then
  $as_root apt-get update </dev/null || echo "deps.sh: apt-get update failed; trying all the same" >&2
  install || { echo "deps.sh: apt-get could not install: $lack" >&2; exit 1; }
fi
lack=$(missing)
[ -z "$lack" ] || { echo "deps.sh: still not installed: $lack" >&2; exit 1; }
