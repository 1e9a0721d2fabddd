"""`stead operator key`: how the keys here are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click
from cryptography.hazmat.primitives.asymmetric import ec

from controller.authority.authority import load_certificate
from controller.authority.durable import replace_durably
from controller.authority.protected import is_protected
from controller.authority.ssh_wire import HeldKey, blob_of
from controller.cli.app import App
from controller.cli.operator.passphrase import Whose, load_own_key, new_passphrase, sealed
from controller.cli.options.usual import yes_option
from controller.cli.output.asking import ask
from controller.cli.output.emit import emit, note, output_option
from controller.config import RootHome
from protocol.errors import Code, InvalidError, SteadError
from protocol.identity import key_hash
from protocol.tls import private_pem

NOTHING = "nothing"
CONNECTING = "connecting"

whose_argument = click.argument(
    "whose", type=click.Choice([one.value for one in Whose]), default=Whose.OPERATOR.value
)
root_option = click.option(
    "--root",
    "root",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory of the root key, where it was moved. Default: `root` in the home directory.",
)


@click.group(epilog="Example: stead operator key show")
def key() -> None:
    """How the operator's key and the root's are kept here."""


@key.command(epilog="Example: stead operator key show --root /media/safe/root")
@root_option
@output_option
@click.pass_obj
def show(app: App, root: Path | None, output: str) -> None:
    """Show the keys that are here, what protects each, and when its certificate ends."""
    home = app.root if root is None else RootHome(root)
    operator = app.operator
    places = [
        (Whose.OPERATOR.value, operator.key, operator.certificate),
        (CONNECTING, operator.connect_key, operator.connect_certificate),
        (Whose.ROOT.value, home.key, home.certificate),
    ]
    rows = [_row(whose, file, shown) for whose, file, shown in places if file.exists()]
    if operator.held_by_agent:
        rows.insert(0, {**_row(Whose.OPERATOR.value, None, operator.certificate)})
    if not rows:
        operator.load_settings()
    emit(rows, output, columns=("key", "protected_by", "ends_at", "file"))
    for row in rows:
        if row["protected_by"] == NOTHING:
            which = (Whose.ROOT if row["key"] == Whose.ROOT else Whose.OPERATOR).value
            note(
                f"Whoever can read {row['file']} has the {row['key']} key: "
                f"`stead operator key protect {which}` asks for a passphrase."
            )


@key.command(epilog="Example: stead operator key protect")
@whose_argument
@root_option
@click.pass_obj
def protect(app: App, whose: str, root: Path | None) -> None:
    """Put a key behind a passphrase, or behind another one.

    Scripts name a file with the new passphrase in STEAD_NEW_PASSPHRASE_FILE, for the root's
    key in STEAD_NEW_ROOT_PASSPHRASE_FILE.
    """
    which = Whose(whose)
    file = _file(app, which, root)
    own = load_own_key(file, which)
    was = is_protected(file.read_bytes())
    replace_durably(file, sealed(own, new_passphrase(which)))
    note(f"{file} is behind {'another' if was else 'a'} passphrase now. Nobody can reset it.")
    if not was:
        note(
            "Copies that were made before, in backups as well, open without it: where there may "
            "be any, make a new key instead."
        )


@key.command(epilog="Example: stead operator key unprotect")
@whose_argument
@root_option
@yes_option
@click.pass_obj
def unprotect(app: App, whose: str, root: Path | None, *, yes: bool) -> None:
    """Take the passphrase off a key again."""
    which = Whose(whose)
    file = _file(app, which, root)
    if not is_protected(file.read_bytes()):
        raise SteadError(f"{file} has no passphrase", code=Code.PRECONDITION)
    own = load_own_key(file, which)
    ask(f"Whoever can read {file} has the key then. Go on?", yes=yes)
    replace_durably(file, private_pem(own))
    note(f"{file} opens without a passphrase now.")


def _file(app: App, whose: Whose, root: Path | None) -> Path:
    if whose is Whose.OPERATOR:
        app.operator.load_settings()
        file, more = app.operator.key_here, ""
    else:
        file = (app.root if root is None else RootHome(root)).key
        more = "; bring it back for the moment, or name its directory with --root"
    if not file.exists():
        raise SteadError(f"{file} is not there{more}", code=Code.PRECONDITION)
    return file


def _row(whose: str, file: Path | None, shown: Path) -> dict[str, Any]:
    """A key as a record; no file is one that an ssh-agent holds."""
    certificate = load_certificate(shown)
    public = certificate.public_key()
    if not isinstance(public, ec.EllipticCurvePublicKey):
        raise InvalidError(f"{shown} is not the certificate of a P-256 key")
    kept = "ssh-agent"
    if file is not None:
        kept = "passphrase" if is_protected(file.read_bytes()) else NOTHING
    return {
        "key": whose,
        "protected_by": kept,
        "ends_at": certificate.not_valid_after_utc,
        "file": None if file is None else str(file),
        "key_hash": key_hash(public).hex(),
        "ssh_fingerprint": HeldKey(blob_of(public), "").fingerprint,
    }
