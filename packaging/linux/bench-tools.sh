#!/usr/bin/env bash
# Installs the programs that `make bench` compares with, where they are missing.
set -eu
missing=()
for pair in restic:restic borgbackup:borg zstd:zstd e2fsprogs:mke2fs git:git; do
    command -v "${pair#*:}" >/dev/null || missing+=("${pair%%:*}")
done
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" -ne 0 ]; then
    echo "make bench needs ${missing[*]}: install them with apt-get as root" >&2
    exit 1
fi
apt-get update -qq
apt-get install -qq --yes --no-install-recommends "${missing[@]}"
