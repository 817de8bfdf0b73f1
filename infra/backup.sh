#!/usr/bin/env bash
# A copy of the database and of the project folder, in a new folder of $TSDS_BACKUPS (or the one given):
#
#     infra/backup.sh [DIR]
#
# It runs in the container "code", while everything runs. The database is that of the variables of libpq (PGHOST, ...).
set -euo pipefail
fail() { echo "backup: $*" >&2; exit 1; }

project=${TSDS_PROJECT:?names the project folder}
base=${1:-${TSDS_BACKUPS:?names the folder of the backups}}
[ -d "$project" ] || fail "$project: no such folder"
target=$base/$(date -u +%Y%m%dT%H%M%SZ)
[ ! -e "$target" ] || fail "$target is there already"
mkdir -p "$target.partial" "$project/storage"
trap 'rm -rf "$target.partial"' EXIT

# The lock of a refresh: while we hold it, the automation starts nothing, and no refresh does. Files of runs that are
# under way appear whole, and what does not fit together after a restore is due, so it is made again.
exec 9>>"$project/storage/.lock"
flock --timeout 3600 9 || fail "a refresh has been under way for an hour: try again when it has ended"
echo $$ > "$project/storage/.lock"

pg_dump --format=custom --file="$target.partial/database.dump"
status=0
tar --create --file="$target.partial/project.tar.gz" --use-compress-program='gzip -1' --directory="$project" \
    --exclude=./storage/.lock --exclude=./.dagster --exclude=./.cache . || status=$?
# 1: a file changed or went while it was read.
[ "$status" -le 1 ] || fail "tar ended with status $status"
tsds --version > "$target.partial/version.txt"
(cd "$target.partial" && sha256sum database.dump project.tar.gz version.txt > SHA256SUMS)
mv "$target.partial" "$target"
echo "$target"
