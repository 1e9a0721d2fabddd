"""Where the controller and its operators keep what they have, and what may be set.

Everything is under one directory, the same that the agent takes: `$STEAD_HOME` when
that variable is set, `/var/lib/stead` for the service, and a folder of the person's
own otherwise. Below it, `root` is meant to be moved to a safe place, `controller` is
the controller's, and `operator` is one person's.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from protocol.errors import Code, InvalidError, SteadError
from protocol.toml import read_toml

LINK_PORT = 7443
ENROLLMENT_PORT = 7444

S = TypeVar("S", bound=msgspec.Struct)


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The controller's `config.toml`.

    `names` are the DNS names and IP addresses by which it is reached, the first one
    being the one that machines are told. `listen` and `enroll_listen` are "host:port".
    An empty `database` or `objects` means the files beside the configuration;
    `link_address` and `enrollment_address` are for a controller behind a forwarder.
    """

    names: tuple[str, ...]
    listen: str = f"0.0.0.0:{LINK_PORT}"
    enroll_listen: str = f"0.0.0.0:{ENROLLMENT_PORT}"
    link_address: str = ""
    enrollment_address: str = ""
    database: str = ""
    objects: str = ""


class OperatorSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An operator's `config.toml`: "host:port" of the controller's link port."""

    address: str


def default_home() -> Path:
    """The directory of both programs' state for whoever runs this."""
    if home := os.environ.get("STEAD_HOME"):
        return Path(home)
    if os.name == "posix" and os.geteuid() == 0:
        return Path("/var/lib/stead")
    return Path.home() / ".local" / "share" / "stead"


@dataclass(frozen=True, slots=True)
class RootHome:
    """The root's directory: needed to make operators, and for nothing from day to day."""

    path: Path

    @property
    def certificate(self) -> Path:
        """The root certificate, PEM."""
        return self.path / "root.pem"

    @property
    def key(self) -> Path:
        """The root's key, PEM, mode 0600."""
        return self.path / "root.key"

    @property
    def revocations(self) -> Path:
        """The newest list of who is not believed that this key signed."""
        return self.path / "revocations"

    @property
    def authorities(self) -> Path:
        """The issuing authorities that this key signed, PEM, the first one first.

        It was not kept by the first releases: what is missing here a controller may know.
        """
        return self.path / "authorities.pem"

    @property
    def policies(self) -> Path:
        """The newest policies that this key signed, a file `TENANT` each."""
        return self.path / "policies"


@dataclass(frozen=True, slots=True)
class ControllerHome:
    """The controller's directory, file by file."""

    path: Path

    @property
    def settings(self) -> Path:
        """`Settings`, as TOML. Written last: an installation without it is not finished."""
        return self.path / "config.toml"

    @property
    def root(self) -> Path:
        """The installation's root certificate, PEM."""
        return self.path / "root.pem"

    @property
    def issuing(self) -> Path:
        """The issuing authority's certificate, PEM."""
        return self.path / "issuing.pem"

    @property
    def issuing_key(self) -> Path:
        """The issuing authority's key, PEM, mode 0600."""
        return self.path / "issuing.key"

    @property
    def former_issuing(self) -> Path:
        """Certificates of the authorities before the present one, PEM; missing before any."""
        return self.path / "issuing.former.pem"

    @property
    def next_issuing_key(self) -> Path:
        """The key of the authority to come; see `controller.authority.rotation`."""
        return self.path / "issuing.next.key"

    @property
    def next_issuing(self) -> Path:
        """The certificate of the authority to come, for a moment."""
        return self.path / "issuing.next.pem"

    @property
    def database(self) -> Path:
        """The database, unless the settings name another."""
        return self.path / "stead.db"

    @property
    def objects(self) -> Path:
        """The object store, unless the settings name another."""
        return self.path / "objects"

    def load_settings(self) -> Settings:
        """Read `config.toml`; the error says to initialise when there is none."""
        missing = (
            f"there is no controller in {self.path}: {self.settings.name} is not there; run "
            "`stead controller init`, or name its directory with --home"
        )
        return _load(self.settings, Settings, missing)

    def database_url(self, settings: Settings) -> str:
        """The database's URL."""
        return settings.database or f"sqlite:///{self.database.absolute()}"


@dataclass(frozen=True, slots=True)
class OperatorHome:
    """One operator's directory, file by file."""

    path: Path

    @property
    def settings(self) -> Path:
        """`OperatorSettings`, as TOML."""
        return self.path / "config.toml"

    @property
    def root(self) -> Path:
        """The installation's root certificate, PEM."""
        return self.path / "root.pem"

    @property
    def certificate(self) -> Path:
        """The operator's certificate, PEM."""
        return self.path / "operator.pem"

    @property
    def key(self) -> Path:
        """The operator's key, PEM, mode 0600."""
        return self.path / "operator.key"

    @property
    def connect_certificate(self) -> Path:
        """The certificate for connecting alone, where an ssh-agent holds the operator's key."""
        return self.path / "connect.pem"

    @property
    def connect_key(self) -> Path:
        """The key of that one, PEM, mode 0600."""
        return self.path / "connect.key"

    @property
    def request(self) -> Path:
        """What was asked for and is not answered yet; see `controller.authority.requests`."""
        return self.path / "request"

    @property
    def key_here(self) -> Path:
        """The one key that is in this profile: the operator's, or that for connecting."""
        return self.connect_key if self.held_by_agent else self.key

    @property
    def held_by_agent(self) -> bool:
        """Whether an ssh-agent holds the operator's key."""
        return self.connect_key.exists()

    @property
    def revocations(self) -> Path:
        """The newest list of revoked operators that was seen with this profile."""
        return self.path / "revocations"

    @property
    def policies(self) -> Path:
        """The newest policies that were seen with this profile, a file `TENANT` each."""
        return self.path / "policies"

    @property
    def names(self) -> Path:
        """Which machines names meant when orders were given; see `recognising`."""
        return self.path / "names"

    @property
    def tenants(self) -> Path:
        """The tenants' keys, a file `TENANT.key` each."""
        return self.path / "tenants"

    @property
    def gets(self) -> Path:
        """Files that are being got; see `controller.cli.files.begun`."""
        return self.path / "gets"

    def load_settings(self) -> OperatorSettings:
        """Read `config.toml`; the error says where a profile comes from when there is none."""
        missing = (
            f"there is no operator's profile in {self.path}; ask an administrator for one "
            "(`stead operator add`), or name its directory with --home"
        )
        if self.request.exists():
            missing = (
                f"the request in {self.path} is not answered yet: take the answer of whoever has "
                "the root's key with `stead operator accept`"
            )
        return _load(self.settings, OperatorSettings, missing)


def render_settings(settings: msgspec.Struct) -> str:
    """Settings as TOML. Values are text and lists of text."""
    # JSON's strings and arrays of strings are TOML's as well, but for one character.
    lines = [
        f"{name} = {msgspec.json.encode(value).decode()}".replace("\x7f", "\\u007f")
        for name, value in msgspec.structs.asdict(settings).items()
        if value
    ]
    return "\n".join(lines) + "\n"


def _load(path: Path, kind: type[S], missing: str) -> S:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise SteadError(missing, code=Code.PRECONDITION) from None
    except OSError as error:
        raise InvalidError(f"{path} cannot be read: {error}") from error
    try:
        return read_toml(data, kind)
    except InvalidError as error:
        raise InvalidError(f"{path}: {error}") from error
