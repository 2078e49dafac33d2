#!/bin/sh
# Installs the servers and the browser that the tests start, where that may be done: on Debian and its kin, by root.
# Elsewhere it names what is missing; the tests that need it are then skipped, or fail in CI.
set -eu

if [ "$(id -u)" = 0 ] && command -v flock >/dev/null; then  # whoever comes second waits until all is there
  exec 9>"${TMPDIR:-/tmp}/storeroom-tests-install.lock"
  flock 9
fi

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
  apt-get -qq update 9>&-  # what a package starts must not hold the lock
  # shellcheck disable=SC2086 -- a list of words
  apt-get -qq install -y --no-install-recommends $missing >/dev/null 9>&-
else
  echo "not installed, so that their tests are left out:" $missing >&2
fi
