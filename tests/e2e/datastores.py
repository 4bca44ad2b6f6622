"""Pods of real databases and caches, of images of Debian's packages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from sandbox.cluster.providers import ClusterInfo
from sandbox.model.objects import Manifest

_MAKE = Path(__file__).parents[2] / "examples" / "shop" / "make-base-image"
PASSWORD = "only-for-tests-7c1f"

# As the official image does it: made on the first start, trusted on the socket only.
_POSTGRES = """
set -eu
d=/var/lib/postgresql/data; b=$(echo /usr/lib/postgresql/*/bin); export LANG=C.UTF-8
install -d -o postgres -g postgres -m 700 "$d" && install -d -o postgres -g postgres /var/run/postgresql
run() { setpriv --reuid=postgres --regid=postgres --init-groups "$@"; }
printf '%s' "$POSTGRES_PASSWORD" > /tmp/password; chown postgres /tmp/password
[ -s "$d/PG_VERSION" ] || run "$b/initdb" -D "$d" -U postgres -N --pwfile=/tmp/password --encoding=UTF8 \\
  --auth-local=trust --auth-host=scram-sha-256 >/dev/null
grep -q "^host all all all" "$d/pg_hba.conf" || echo "host all all all scram-sha-256" >> "$d/pg_hba.conf"
exec setpriv --reuid=postgres --regid=postgres --init-groups "$b/postgres" -D "$d" -c listen_addresses='*' -c jit=off \\
  -c fsync=off -c shared_buffers=64MB -c max_wal_size=4GB "$@"
"""
# Replicas, which snapshots are sent to as well, are waited for no five seconds.
_REDIS = """
exec redis-server - "$@" <<CONFIG
requirepass $REDIS_PASSWORD
save ""
dir /tmp
repl-diskless-sync-delay 0
CONFIG
"""
# As the official image does it: made on the first start, with a password for root from everywhere.
_MARIADB = """
set -eu
d=/var/lib/mysql; install -d "$d" /run/mysqld
mariadb-install-db --no-defaults --user=root --datadir="$d" --auth-root-authentication-method=normal \
  --skip-test-db >/dev/null
printf "ALTER USER root@localhost IDENTIFIED BY '%s';" "$MARIADB_ROOT_PASSWORD" > /tmp/init
exec mariadbd --no-defaults --user=root --datadir="$d" --init-file=/tmp/init --innodb-flush-log-at-trx-commit=0 "$@"
"""


def base_image(cluster: ClusterInfo) -> str:
    """The shop's base image in the cluster's registry: Debian with PostgreSQL and Redis."""
    return _image(cluster)


def mariadb_image(cluster: ClusterInfo) -> str:
    """Debian with MariaDB, in the cluster's registry."""
    return _image(cluster, "--name", "test-mariadb", "--package", "mariadb-server-core", "--package", "mariadb-client")


def _image(cluster: ClusterInfo, *options: str) -> str:
    assert cluster.registry is not None
    command = [sys.executable, str(_MAKE), cluster.registry, *options]
    made = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert made.returncode == 0, made.stderr
    return str(made.stdout).strip()


def postgres(name: str, image: str, *arguments: str, **more: Any) -> Manifest:
    """A PostgreSQL server; its superuser postgres has PASSWORD."""
    # A process each second for as long as it runs would be most of what it costs; that it is up says the first.
    up = {"exec": {"command": ["pg_isready", "-q", "-h", "127.0.0.1"]}, "periodSeconds": 1, "failureThreshold": 300}
    ready = {"tcpSocket": {"port": 5432}, "periodSeconds": 1}
    environment = [{"name": "POSTGRES_PASSWORD", "value": PASSWORD}]
    return _pod(name, image, _POSTGRES, arguments, 5432, ready, environment, startupProbe=up, **more)


def redis(name: str, image: str, *arguments: str, **more: Any) -> Manifest:
    """A Redis server that asks for PASSWORD."""
    ready = {"tcpSocket": {"port": 6379}, "periodSeconds": 1}
    environment = [{"name": "REDIS_PASSWORD", "value": PASSWORD}]
    return _pod(name, image, _REDIS, arguments, 6379, ready, environment, **more)


def mariadb(name: str, image: str, *arguments: str, **more: Any) -> Manifest:
    """A MariaDB server whose root has PASSWORD."""
    up = {"tcpSocket": {"port": 3306}, "periodSeconds": 1, "failureThreshold": 300}
    environment = [{"name": "MARIADB_ROOT_PASSWORD", "value": PASSWORD}]
    return _pod(name, image, _MARIADB, arguments, 3306, up, environment, **more)


def _pod(
    name: str,
    image: str,
    script: str,
    arguments: tuple[str, ...],
    port: int,
    ready: Manifest,
    environment: list[Manifest],
    **more: Any,
) -> Manifest:
    container = {
        "name": "main",
        "image": image,
        "command": ["sh", "-c", script, "sh", *arguments],
        "ports": [{"containerPort": port}],
        "env": environment,
        "readinessProbe": ready,
        **more,
    }
    label = {5432: "postgresql", 6379: "redis", 3306: "mariadb"}[port]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/name": label}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
    }
