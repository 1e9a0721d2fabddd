"""Where the agent keeps what it knows, and what its administrator may set.

Everything is under one directory: the folder `agent` in `$STEAD_HOME` when that variable is
set, in the system's own place for the service (`/var/lib/stead`, `%ProgramData%\\Stead`,
`/Library/Application Support/Stead`), and in a folder of the person's own otherwise.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from protocol.address import split_address
from protocol.errors import Code, InvalidError, SteadError
from protocol.proxy import Proxy, proxy_for
from protocol.toml import read_toml


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`agent.toml`. `deny` names actions that this machine never executes.

    `read_only`: orders that do more than look are refused.
    `watch`: backups go by what was watched, where that can be shown to miss nothing.
    `limit_upload`: backups send no more than so many bytes a second, whoever asks for more.
    `limit_download`: restores fetch no more.
    `cpu_limit`: backups and restores use no more percent of one processor.
    `proxy`: the HTTP proxy on the way to the controller; see `protocol.proxy.proxy_for`.
    """

    link_address: str
    enrollment_address: str
    deny: tuple[str, ...] = ()
    read_only: bool = False
    watch: bool = True
    limit_upload: Annotated[int, msgspec.Meta(ge=0)] = 0
    limit_download: Annotated[int, msgspec.Meta(ge=0)] = 0
    cpu_limit: Annotated[int, msgspec.Meta(ge=0)] = 0
    proxy: str = ""

    def proxy_for(self, address: str) -> Proxy | None:
        """The proxy on the way to `host:port`, by this and by the environment. Raises INVALID."""
        return proxy_for(split_address(address)[0], self.proxy, os.environ)


def render_settings(settings: Settings) -> bytes:
    """`Settings` as TOML, whose basic strings are those of JSON but for U+007F."""

    def quoted(text: str) -> str:
        return msgspec.json.encode(text).decode().replace("\x7f", "\\u007f")

    deny = ", ".join(quoted(name) for name in settings.deny)
    return (
        f"link_address = {quoted(settings.link_address)}\n"
        f"enrollment_address = {quoted(settings.enrollment_address)}\n"
        "# Actions that this machine never executes, whoever orders them.\n"
        f"deny = [{deny}]\n"
        "# Whether orders that do more than look are refused. A backup set goes on.\n"
        f"read_only = {str(settings.read_only).lower()}\n"
        "# Whether the directories of the backup set are watched between backups.\n"
        f"watch = {str(settings.watch).lower()}\n"
        "# Bytes a second that backups send at most; 0 is no limit. Orders can only lower it.\n"
        f"limit_upload = {settings.limit_upload}\n"
        "# The same of what restores fetch.\n"
        f"limit_download = {settings.limit_download}\n"
        "# Percent of one processor that backups and restores use at most; 0 is no limit.\n"
        f"cpu_limit = {settings.cpu_limit}\n"
        "# The HTTP proxy on the way to the controller, http://[user:password@]host:port; empty\n"
        '# is that of the environment (https_proxy), "none" is none.\n'
        f"proxy = {quoted(settings.proxy)}\n"
    ).encode()


def default_home() -> Path:
    """The directory of both programs' state for whoever runs this."""
    if home := os.environ.get("STEAD_HOME"):
        return Path(home)
    if sys.platform == "win32":
        from ctypes import windll

        return windows_home(os.environ, service=bool(windll.shell32.IsUserAnAdmin()))
    if sys.platform == "darwin":
        top = Path("/") if os.geteuid() == 0 else Path.home()
        return top / "Library" / "Application Support" / "Stead"
    if os.geteuid() == 0:
        return Path("/var/lib/stead")
    return Path.home() / ".local" / "share" / "stead"


def windows_home(environment: Mapping[str, str], *, service: bool) -> Path:
    """Where Windows wants state: that of the machine for administrators and services, that of
    a person otherwise.
    """
    name, otherwise = ("ProgramData", "C:\\ProgramData") if service else ("LOCALAPPDATA", "")
    folder = environment.get(name, otherwise)
    if not folder:
        raise SteadError(f"{name} is not set; say --home", code=Code.PRECONDITION)
    return Path(folder) / "Stead"


@dataclass(frozen=True, slots=True)
class AgentHome:
    """The agent's directory, file by file."""

    path: Path

    @property
    def settings(self) -> Path:
        """`Settings`, as TOML."""
        return self.path / "agent.toml"

    @property
    def key(self) -> Path:
        """The machine's P-256 key, PEM, mode 0600; it never leaves the machine."""
        return self.path / "machine.key"

    @property
    def chain(self) -> Path:
        """The machine's certificate and the issuing authority's, PEM."""
        return self.path / "machine.pem"

    @property
    def root(self) -> Path:
        """The installation's root certificate, PEM."""
        return self.path / "root.pem"

    @property
    def sealing_key(self) -> Path:
        """The machine's X25519 key for restore orders, 32 raw bytes, mode 0600."""
        return self.path / "sealing.key"

    @property
    def vault_secret(self) -> Path:
        """The tenant's vault secret as `protocol.vault.keys` encodes it, mode 0600."""
        return self.path / "vault.secret"

    @property
    def vault_order(self) -> Path:
        """Which order brought the vault secret; missing when enrollment did."""
        return self.path / "vault.order"

    @property
    def journal(self) -> Path:
        """The journal of orders and outcomes."""
        return self.path / "journal.db"

    @property
    def rehoming(self) -> Path:
        """To which controller this machine was ordered last; see `agent.link.rehome`."""
        return self.path / "rehoming"

    @property
    def first_token(self) -> Path:
        """The token with which a copied image enrolls itself, mode 0600; see `agent.link.first`."""
        return self.path / "first.token"

    @property
    def ratchet(self) -> Path:
        """The token that the agent shows at its next Hello; see `agent.link.ratchet`."""
        return self.path / "ratchet"

    @property
    def revocations(self) -> Path:
        """The newest list of revoked operators, as the root signed it."""
        return self.path / "revocations"

    @property
    def policy(self) -> Path:
        """The newest policy of the machine's tenant, as the root signed it."""
        return self.path / "policy"

    @property
    def witness(self) -> Path:
        """The checkpoints of audit logs that this machine keeps; see `agent.witness.keep`."""
        return self.path / "witness"

    @property
    def enrolling(self) -> Path:
        """What a new enrollment has so far; see `agent.link.enroll`."""
        return self.path / "enrolling"

    @property
    def former(self) -> Path:
        """Identities that this machine had, a folder for each; see `agent.link.former`."""
        return self.path / "former"

    @property
    def output(self) -> Path:
        """What running tasks printed, until the controller has it."""
        return self.path / "output"

    @property
    def backup_set(self) -> Path:
        """The machine's backup set with the standing order behind it."""
        return self.path / "backup.set"

    @property
    def standing(self) -> Path:
        """The standing orders in force, a file for each; see `agent.tasks.in_force`."""
        return self.path / "standing"

    @property
    def watch_off(self) -> Path:
        """On which file systems watching was found wanting."""
        return self.path / "watch.off"

    @property
    def backup_runs(self) -> Path:
        """Which run of the backup set was the last."""
        return self.path / "backup.runs"

    @property
    def backup_wish(self) -> Path:
        """Whether backups are paused or cancelled; see `agent.backup.send.control`."""
        return self.path / "backup.wish"

    @property
    def backup_working(self) -> Path:
        """Locked while a backup runs."""
        return self.cache / "backup.working"

    @property
    def under_way(self) -> Path:
        """What runs, a file for each task; see `agent.tasks.under_way`."""
        return self.cache / "under-way"

    @property
    def scripts(self) -> Path:
        """The scripts that run now, a private file for each."""
        return self.path / "scripts"

    @property
    def power(self) -> Path:
        """Restarts that were ordered, a file for each task; see `agent.power.record`."""
        return self.path / "power"

    @property
    def drill_runs(self) -> Path:
        """Which drill by itself was the last."""
        return self.path / "drill.runs"

    @property
    def status(self) -> Path:
        """How the running agent is; written by it alone."""
        return self.path / "status.json"

    @property
    def log(self) -> Path:
        """The log, where the service manager keeps none."""
        return self.path / "log" / "agent.log"

    @property
    def lock(self) -> Path:
        """Held by the running agent, which is named in it."""
        return self.path / "agent.lock"

    @property
    def cache(self) -> Path:
        """What may be deleted at any time: it is made again."""
        return self.path / "cache"

    def load_settings(self) -> Settings:
        """Read `agent.toml`; the error says to enroll when there is none."""
        try:
            data = self.settings.read_bytes()
        except FileNotFoundError:
            raise SteadError(
                f"this machine is not enrolled: {self.settings} is not there; run "
                "`stead-agent enroll`",
                code=Code.PRECONDITION,
            ) from None
        except OSError as error:
            raise SteadError(
                f"{self.settings} cannot be read: {error.strerror}; run this as the user who "
                "enrolled the machine",
                code=Code.PRECONDITION,
            ) from error
        try:
            return read_toml(data, Settings)
        except InvalidError as error:
            raise InvalidError(f"{self.settings}: {error}") from error
