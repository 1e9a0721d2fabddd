#!/usr/bin/env bash
# Installs the programs that the tests use, and only those that are missing.
# What cannot be installed is named; the tests that need it then say "not run".
set -eu

# One `package:command` a line; just `package` where both have the same name.
TOOLS='
acl:getfacl
apt-utils:apt-ftparchive
attr:setfattr
binutils:objcopy
dpkg:dpkg-deb
e2fsprogs:mkfs.ext4
faketime
fuse3:fusermount3
gnupg:gpg
ntfs-3g:mkntfs
openssh-client:ssh-agent
openssl
patchelf
rsync
strace
util-linux:mount
'

# An ordinary user's path often lacks the folders where mkfs.ext4 and others lie.
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

missing() {
    local tool
    for tool in $TOOLS; do
        command -v "${tool#*:}" >/dev/null || printf '%s\n' "${tool%%:*}"
    done | sort -u
}

give_up() {
    echo "not installed: $(missing | tr '\n' ' ')($1); the tests that need it will say not run"
    exit 0
}

wanted="$(missing)"
test -n "$wanted" || exit 0
command -v apt-get >/dev/null || give_up "no apt-get here"
test "$(id -u)" -eq 0 || give_up "needs root"

export DEBIAN_FRONTEND=noninteractive
install() {
    # shellcheck disable=SC2086  # one argument per package is meant
    apt-get install --yes --no-install-recommends --quiet $wanted
}
apt-get update --quiet || echo "test-tools: package lists are not fresh; trying with the old ones" >&2
install || give_up "apt-get failed"
test -z "$(missing)" || give_up "still missing after apt-get"
