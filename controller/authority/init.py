"""Make an installation: root, issuing authority, database, first administrator.

Nothing that exists is overwritten. The controller's settings are written last, so an
installation that has them is whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import Connection, insert

from controller.audit.log import INSTALLATION, append
from controller.authority.certificates import (
    Issuer,
    certify_operator,
    general_name,
    make_issuing,
    make_root,
)
from controller.authority.durable import make_directory, write_durably
from controller.authority.keys import new_key, new_serial
from controller.authority.operators import record
from controller.config import (
    ENROLLMENT_PORT,
    LINK_PORT,
    ControllerHome,
    OperatorHome,
    OperatorSettings,
    RootHome,
    Settings,
    render_settings,
)
from controller.db.database import Database
from controller.db.schema import installation
from protocol.errors import Code, InvalidError, SteadError
from protocol.identity import OperatorIdentity, Role, pin_of
from protocol.ids import check_name
from protocol.tls import chain_pem, private_pem

KeyFile = Callable[[ec.EllipticCurvePrivateKey], bytes]
"""What to write down of a private key."""


@dataclass(frozen=True, slots=True)
class Initialised:
    """What was made, and the hash by which tokens will know the root."""

    root: RootHome
    controller: ControllerHome
    operator: OperatorHome
    pin: bytes


def initialise(
    home: Path,
    *,
    names: Sequence[str],
    now: datetime,
    listen: str = f"0.0.0.0:{LINK_PORT}",
    enroll_listen: str = f"0.0.0.0:{ENROLLMENT_PORT}",
    admin: str = "admin",
    root_file: KeyFile = private_pem,
    admin_file: KeyFile = private_pem,
) -> Initialised:
    """Make an installation below `home`; blocks for its disk.

    `root_file` and `admin_file` say how these two keys are kept.

    Raises ALREADY_EXISTS where there is one, PRECONDITION where there are pieces of one,
    INVALID for a name that cannot be certified.
    """
    if not names:
        raise InvalidError("name the controller: --name HOST, as machines will reach it")
    for name in names:
        general_name(name)
    check_name(admin, what="operator's name")
    made = Initialised(
        RootHome(home / "root"),
        ControllerHome(home / "controller"),
        OperatorHome(home / "operator"),
        b"",
    )
    _refuse_what_exists(made)
    for folder in (made.root.path, made.controller.path, made.operator.path, made.operator.tenants):
        make_directory(folder)
    root = _make_root(made, now, root_file)
    operator = _make_operator(made, root, admin, _address(names[0], listen), now, admin_file)
    _make_database(made.controller, root.certificate, operator, now)
    settings = Settings(names=tuple(names), listen=listen, enroll_listen=enroll_listen)
    write_durably(made.controller.settings, render_settings(settings).encode())
    return Initialised(made.root, made.controller, made.operator, pin_of(root.certificate))


def _refuse_what_exists(made: Initialised) -> None:
    if made.controller.settings.exists():
        raise SteadError(
            f"there is a controller in {made.controller.path}; start it with `stead controller "
            "serve`, or name another directory with --home",
            code=Code.ALREADY_EXISTS,
        )
    files = (
        made.root.key,
        made.root.certificate,
        made.root.authorities,
        made.controller.root,
        made.controller.issuing,
        made.controller.issuing_key,
        made.controller.database,
        made.operator.key,
        made.operator.certificate,
        made.operator.root,
        made.operator.settings,
    )
    found = [str(file) for file in files if file.exists()]
    if found:
        raise SteadError(
            f"there are pieces of an installation: {', '.join(found)}. If an earlier `stead "
            "controller init` was interrupted, nothing was enrolled with them: remove them and "
            "run it again. Otherwise name another directory with --home",
            code=Code.PRECONDITION,
        )


def _make_root(made: Initialised, now: datetime, root_file: KeyFile) -> Issuer:
    key, issuing_key = new_key(), new_key()
    root = Issuer(make_root(key, serial=new_serial(), now=now), key)
    issuing = make_issuing(root, issuing_key.public_key(), serial=new_serial(), now=now)
    write_durably(made.root.key, root_file(key))
    write_durably(made.root.certificate, chain_pem([root.certificate]))
    write_durably(made.root.authorities, chain_pem([issuing]))
    write_durably(made.controller.issuing_key, private_pem(issuing_key))
    write_durably(made.controller.issuing, chain_pem([issuing]))
    write_durably(made.controller.root, chain_pem([root.certificate]))
    return root


def _make_operator(
    made: Initialised,
    root: Issuer,
    name: str,
    address: str,
    now: datetime,
    admin_file: KeyFile,
) -> x509.Certificate:
    key = new_key()
    identity = OperatorIdentity(name, Role.ADMIN, None)
    leaf = certify_operator(root, key.public_key(), identity, serial=new_serial(), now=now)
    write_durably(made.operator.key, admin_file(key))
    write_durably(made.operator.certificate, chain_pem([leaf]))
    write_durably(made.operator.root, chain_pem([root.certificate]))
    write_durably(
        made.operator.settings, render_settings(OperatorSettings(address=address)).encode()
    )
    return leaf


def _make_database(
    home: ControllerHome, root: x509.Certificate, operator: x509.Certificate, now: datetime
) -> None:
    def act(connection: Connection) -> None:
        connection.execute(
            insert(installation), {"key": "root", "value": root.public_bytes(Encoding.DER)}
        )
        body = {"root": pin_of(root).hex()}
        append(connection, INSTALLATION, "controller", "installation_made", body, now)
        record(connection, operator, root=root, actor="controller", now=now)

    database = Database.open(f"sqlite:///{home.database.absolute()}", create=True)
    try:
        database.write_now(act)
    finally:
        database.close_now()


def _address(name: str, listen: str) -> str:
    host = f"[{name}]" if ":" in name else name
    return f"{host}:{listen.rpartition(':')[2]}"
