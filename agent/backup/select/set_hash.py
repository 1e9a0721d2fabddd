"""Name what a backup looks at by one hash, as the record of its restore point has it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from blake3 import blake3

from agent.backup.select.choose import hash_of
from agent.backup.select.commands import hash_of_streams
from agent.backup.select.places import rules_hash
from protocol.selection import CommandStream, Rules
from protocol.vault.keys import VaultSecret


def set_hash(
    paths: Iterable[bytes],
    rules: Rules,
    streams: Mapping[bytes, CommandStream],
    secret: VaultSecret,
) -> bytes:
    """32 bytes for normalised paths, what is left out below them, streams, and the keys."""
    scope = blake3(secret.convergence, key=secret.fingerprint_key).digest()
    return rules_hash(paths, scope + hash_of(rules) + hash_of_streams(streams))
