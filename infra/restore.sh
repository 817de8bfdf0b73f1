#!/usr/bin/env bash
# What backup.sh made, into a new database ($PGDATABASE) and a project folder without results ($TSDS_PROJECT), or one of
# the two. It overwrites nothing:
#
#     infra/restore.sh BACKUP [database|project]
set -euo pipefail
fail() { echo "restore: $*" >&2; exit 1; }

backup=${1:?names the folder of the backup}
only=${2:-both}
case $only in both | database | project) ;; *) fail "$only: database or project, or nothing for both" ;; esac
project=${TSDS_PROJECT:?names the project folder}
database=${PGDATABASE:?names the database}
(cd "$backup" && sha256sum --check --quiet SHA256SUMS) || fail "$backup is not as backup.sh left it"

ask() { psql --no-psqlrc --tuples-only --no-align --set=ON_ERROR_STOP=1 --set=name="$database" "$@"; }
# Everything is looked at before anything is written.
if [ "$only" != project ]; then
    there=$(ask --dbname=postgres <<< "SELECT count(*) FROM pg_database WHERE datname = :'name'")
    if [ "$there" = 1 ]; then
        tables=$(ask <<< "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'")
        [ "$tables" = 0 ] || fail "the database $database has tables: let PGDATABASE name a new one"
    fi
fi
if [ "$only" != database ] && [ -n "$(ls -A "$project" 2> /dev/null)" ]; then
    fail "$project is not empty: let TSDS_PROJECT name a new folder, or restore only the database"
fi

if [ "$only" != project ]; then
    [ "$there" = 1 ] || createdb "$database"
    pg_restore --dbname="$database" --exit-on-error --single-transaction --no-owner "$backup/database.dump"
    echo "database $database: $(ask <<< 'SELECT count(*) FROM runs') runs"
fi
if [ "$only" != database ]; then
    mkdir -p "$project"
    tar --extract --file="$backup/project.tar.gz" --directory="$project"
    echo "project $project: $(find "$project" -type f | wc -l) files"
fi
