"""Look for what keeps this machine from working: one check after another, each with a next step."""

from __future__ import annotations

import shutil
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta

import msgspec

from agent.config import AgentHome
from agent.host import clock
from agent.host.lock import holder_of
from agent.link.former import MOST, former_identities
from agent.link.identity import Credentials, load_identity, load_sealing
from agent.link.renew import is_expired
from agent.link.stay import LinkState
from agent.presence import is_stale, load_status
from agent.tasks.damage import find_damage
from agent.tasks.verify import Believed, check_deny_list
from agent.witness.keep import load_watched, render_alarm
from protocol.address import split_address
from protocol.errors import Code, SteadError
from protocol.identity import pin_of
from protocol.tls import find_root, open_connection

NEXT_STEPS: Mapping[str, str] = {
    Code.CLOCK_SKEW: "set the clock, and let it be kept by NTP",
    Code.REVOKED: "ask an operator why; to let it in again, `stead-agent enroll --force` with "
    "a new token",
    Code.UNKNOWN_MACHINE: "`stead-agent enroll --force` with a new token",
    Code.EXPIRED: "`stead-agent enroll --force` with a new token",
    Code.DISTRUSTED: "what answers there may be an impostor; ask whoever runs the installation",
    Code.UPGRADE_REQUIRED: "install a newer stead-agent",
    Code.LOCKED: "another agent has this machine's identity: is this disk a copy of another "
    "one? Then `stead-agent enroll --force` with a new token",
}
LEAST_FREE_BYTES = 64 * 1024 * 1024
CONNECT_S = 5.0


class Finding(msgspec.Struct, frozen=True):
    """What a check found."""

    check: str
    good: bool
    said: str
    next_step: str = ""


def examine(home: AgentHome) -> list[Finding]:
    """Run every check that can be run."""
    try:
        known = load_identity(home)
        load_sealing(home)
    except SteadError as error:
        step = "enroll it, or put right what is named"
        return [Finding("identity", good=False, said=str(error), next_step=step)]
    identity = known.identity
    findings = [Finding("identity", good=True, said=f"{identity.machine} of {identity.tenant}")]
    checks: list[Callable[[], Finding]] = [
        lambda: _certificate(known),
        lambda: _clock(known),
        lambda: _former(home),
        lambda: _agent(home),
        lambda: _settings(known),
        lambda: _journal(home),
        lambda: _permissions(home),
        lambda: _space(home),
        lambda: _audit(home),
    ]
    findings += [check() for check in checks]
    findings += _network("link", known.settings.link_address, known)
    findings += _network("enrollment", known.settings.enrollment_address, known)
    return findings


def _certificate(known: Credentials) -> Finding:
    until = f"good until {known.leaf.not_valid_after_utc:%Y-%m-%d %H:%M}Z"
    if known.is_distrusted():
        return Finding(
            "certificate",
            good=False,
            said="it is of an issuing authority that the root says is not to be believed any more",
            next_step="start the agent: it renews the certificate by itself",
        )
    if is_expired(known.leaf, clock.now()):
        step = "start the agent: it renews the certificate by itself, within 400 days"
        return Finding("certificate", good=False, said=f"it was {until}", next_step=step)
    return Finding("certificate", good=True, said=until)


def _former(home: AgentHome) -> Finding:
    """Which identities this machine gave up since its controller called it a copy."""
    try:
        kept = former_identities(home)
    except (OSError, SteadError) as error:
        return Finding("former", good=False, said=str(error), next_step=f"look at {home.former}")
    said = ", ".join(f"{one.machine} until {one.since:%Y-%m-%d %H:%M}Z" for one in kept)
    step = "if it is no copy, `stead-agent identity back`; else `stead-agent identity forget`"
    if len(kept) >= MOST:
        said = f"it takes no other identity after {said}"
        return Finding("former", good=False, said=said, next_step=step)
    return Finding("former", good=True, said=f"it was {said}" if kept else "it was never a copy")


def _clock(known: Credentials) -> Finding:
    now, made = clock.now(), known.leaf.not_valid_before_utc
    said = f"it says {now:%Y-%m-%d %H:%M:%S}Z"
    if now < made - timedelta(minutes=5):
        return Finding(
            "clock",
            good=False,
            said=f"{said}, before this machine's certificate was made ({made:%Y-%m-%d %H:%M}Z)",
            next_step="set the clock, and let it be kept by NTP",
        )
    return Finding("clock", good=True, said=said)


def _agent(home: AgentHome) -> Finding:
    """What the running agent itself says of its link: a refusal is seen nowhere else."""
    process = holder_of(home.lock)
    if process is None:
        by_system = "systemctl start stead-agent"
        if sys.platform != "linux":
            by_system = "`stead-agent service install`"
        step = f"{by_system}, or `stead-agent run`"
        return Finding("agent", good=False, said="no agent is running", next_step=step)
    try:
        status = load_status(home)
    except SteadError as error:
        return Finding("agent", good=False, said=str(error), next_step="restart the agent")
    if status is None or is_stale(status, clock.now()):
        said = f"process {process} is there and does nothing"
        return Finding("agent", good=False, said=said, next_step="look at its log, restart it")
    if status.replaced:
        return Finding(
            "agent",
            good=False,
            said=f"process {process} is of release {status.version}, and its files were replaced",
            next_step="it begins anew when nothing runs any more, or restart it",
        )
    if status.link is LinkState.CONNECTED:
        return Finding("agent", good=True, said=f"process {process}, connected")
    step = NEXT_STEPS.get(status.code, "see what else is found here, and the agent's log")
    said = f"process {process}, {status.link}: {status.reason or 'it has just begun'}"
    return Finding("agent", good=False, said=said, next_step=step)


def _settings(known: Credentials) -> Finding:
    try:
        check_deny_list(Believed(known.root, known.identity, known.settings.deny))
    except SteadError as error:
        return Finding("settings", good=False, said=str(error), next_step="correct agent.toml")
    denied = ", ".join(known.settings.deny)
    return Finding("settings", good=True, said=f"deny {denied}" if denied else "deny nothing")


def _journal(home: AgentHome) -> Finding:
    damage = find_damage(home.journal)
    if damage is None:
        return Finding("journal", good=True, said="whole")
    return Finding(
        "journal",
        good=False,
        said=f"{damage}; nothing is executed, since nobody can tell what was",
        next_step="keep a copy, then `stead-agent enroll --force` with a new token",
    )


def _audit(home: AgentHome) -> Finding:
    """What this machine, as a witness, found wrong with the audit logs."""
    try:
        watched = load_watched(home)
    except SteadError as error:
        return Finding("audit", good=False, said=str(error), next_step="look at the file")
    if watched.alarms:
        said = "; ".join(render_alarm(log, alarm) for log, alarm in watched.each_alarm())
        step = (
            "tell whoever runs the installation, and keep the file `witness` as evidence; "
            "`stead audit witness` shows more"
        )
        return Finding("audit", good=False, said=said, next_step=step)
    return Finding("audit", good=True, said=f"{len(watched.kept)} logs are watched")


def _permissions(home: AgentHome) -> Finding:
    paths = (home.path, home.key, home.sealing_key, home.vault_secret)
    if sys.platform == "win32":
        from agent.host.access_list import others_at

        open_to_others = [
            f"{path.name} ({', '.join(others)})" for path in paths if (others := others_at(path))
        ]
        step = (
            f"icacls {home.path} /inheritance:r /grant:r *S-1-5-18:(OI)(CI)F "
            f"*S-1-5-32-544:(OI)(CI)F, then icacls {home.path}\\* /reset /T"
        )
    else:
        open_to_others = [path.name for path in paths if path.stat().st_mode & 0o077]
        step = f"chmod -R go-rwx {home.path}"
    if open_to_others:
        return Finding(
            "permissions",
            good=False,
            said=f"others may read {', '.join(open_to_others)}",
            next_step=step,
        )
    return Finding("permissions", good=True, said="only the owner can read the keys")


def _space(home: AgentHome) -> Finding:
    free = shutil.disk_usage(home.path).free
    said = f"{free // (1024 * 1024)} MiB free in {home.path}"
    if free < LEAST_FREE_BYTES:
        return Finding("space", good=False, said=said, next_step="free some space")
    return Finding("space", good=True, said=said)


def _network(name: str, address: str, known: Credentials) -> Iterator[Finding]:
    try:
        proxy = known.settings.proxy_for(address)
    except SteadError as error:
        step = "correct `proxy` in agent.toml, or https_proxy of the environment"
        yield Finding(f"{name} proxy", good=False, said=str(error), next_step=step)
        return
    host, port = (proxy.host, proxy.port) if proxy else split_address(address)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        said = f"{host} is not known: {error.strerror or error}"
        yield Finding(f"{name} DNS", good=False, said=said, next_step="look at the resolver")
        return
    yield Finding(f"{name} DNS", good=True, said=f"{host} is {found[0][4][0]}")
    check = f"{name} proxy" if proxy else f"{name} TCP"
    try:
        open_connection(address, proxy, timeout=CONNECT_S).close()
    except SteadError as error:
        said, _, step = str(error).partition("; ")
        yield Finding(check, good=False, said=said, next_step=step)
        return
    through = f" through {proxy}" if proxy else ""
    yield Finding(check, good=True, said=f"connected to {address}{through}")
    try:
        find_root(address, pin_of(known.root), proxy=proxy, timeout=CONNECT_S)
        known.anchor(address, clock.now())
    except SteadError as error:
        step = "is something in between that opens TLS?" if error.code is Code.WRONG_PIN else ""
        step = step or NEXT_STEPS.get(error.code, "")
        yield Finding(f"{name} TLS", good=False, said=str(error), next_step=step)
        return
    yield Finding(f"{name} TLS", good=True, said="it is this installation's controller")
