#!/bin/sh
# Installs the servers and the browser that the tests start, where that may be done: on Debian and its kin, by root.
# Elsewhere it names what is missing; the tests that need it are then skipped, or fail in CI.
set -eu

# program, Debian's package
servers='
redis-server redis-server
memcached memcached
mariadbd mariadb-server
pg_ctlcluster postgresql
pgbouncer pgbouncer
prometheus prometheus
chromium chromium
chromedriver chromium-driver
'

missing=$(echo "$servers" | while read -r program package; do
  [ -z "$program" ] || command -v "$program" >/dev/null || echo "$package"
done)
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "installing for the tests:" $missing
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq -o DPkg::Lock::Timeout=300 update
  # shellcheck disable=SC2086 -- a list of words
  apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends $missing >/dev/null
else
  echo "not installed, so that their tests are left out:" $missing >&2
fi
