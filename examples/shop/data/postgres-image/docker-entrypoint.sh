#!/bin/sh
# Creates the database on the first start, then becomes the server. Arguments go to the server.
set -eu
umask 077
: "${POSTGRES_USER:=postgres}" "${POSTGRES_DB:=$POSTGRES_USER}"
[ "${1:-}" != postgres ] || shift

create() {
    if [ -z "${POSTGRES_PASSWORD:-}" ]; then
        echo 'POSTGRES_PASSWORD is not set: the superuser needs one' >&2
        exit 1
    fi
    if ! mkdir -p "$(dirname "$PGDATA")" || [ ! -w "$(dirname "$PGDATA")" ]; then
        echo "user $(id -u) cannot write to $(dirname "$PGDATA"): PGDATA has to be a folder inside the volume" >&2
        ls -ld "$(dirname "$PGDATA")" >&2
        exit 1
    fi
    # made beside its place: a start that is cut off is followed by one that begins anew, not by half a database
    new="$PGDATA.new"
    rm -rf "$new"
    # the password goes through a file that only we can read, not through arguments
    printf '%s' "$POSTGRES_PASSWORD" > /tmp/password
    # options are meant to be split into words
    # shellcheck disable=SC2086
    initdb --pgdata="$new" --username="$POSTGRES_USER" --pwfile=/tmp/password --encoding=UTF8 \
        --auth-local=trust --auth-host=scram-sha-256 ${POSTGRES_INITDB_ARGS:-}
    rm /tmp/password
    echo 'host all all all scram-sha-256' >> "$new/pg_hba.conf"

    # reachable by its socket only, until it is complete
    pg_ctl --pgdata="$new" --wait --silent --options="-c listen_addresses='' -c fsync=off" start
    if [ "$POSTGRES_DB" != postgres ]; then
        createdb --username="$POSTGRES_USER" --maintenance-db=postgres "$POSTGRES_DB"
    fi
    for script in /docker-entrypoint-initdb.d/*; do
        case "$script" in
            *.sh) echo "running $script"; sh -eu "$script" ;;
            *.sql) echo "running $script"
                psql -v ON_ERROR_STOP=1 --quiet --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" --file="$script" ;;
        esac
    done
    pg_ctl --pgdata="$new" --wait --silent --mode=fast stop
    rm -rf "$PGDATA"
    mv "$new" "$PGDATA"
}

[ -s "$PGDATA/PG_VERSION" ] || create
exec postgres -D "$PGDATA" "$@"
