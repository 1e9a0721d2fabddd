"""`stead controller authorities` and `distrust-authority`: whose certificates count."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import rich_click as click
from cryptography import x509

from controller import clock
from controller.cli.app import App
from controller.cli.commands.operator_key import root_option
from controller.cli.operator.connection import Connection
from controller.cli.operator.making import issuer_of, root_of
from controller.cli.operator.revoking import keep_list, newest_list, next_list, read_of
from controller.cli.operator.rotating import signed_before
from controller.cli.options.usual import yes_option
from controller.cli.output.asking import ask
from controller.cli.output.emit import emit, note, output_option
from protocol.errors import Code, InvalidError, NotFoundError, SteadError
from protocol.identity import believe_authority, key_hash, public_key_of, read_certificate
from protocol.revocation import DistrustedAuthority, Revocations, plan_distrust
from protocol.v1.operator_pb2 import DistrustAuthoritiesRequest, ListAuthoritiesRequest

LISTED = ("authority", "state", "begins_at", "ends_at", "distrusted_at")


@click.command("authorities", epilog="Example: stead controller authorities")
@output_option
@click.pass_obj
def authorities(app: App, output: str) -> None:
    """List the issuing authorities that the controller has and had, the present one first."""
    connection = app.connection
    listed = read_of(newest_list(connection), connection.root)
    emit(_rows(_known(connection), listed), output, columns=LISTED)


@click.command(
    "distrust-authority",
    epilog="Example: stead controller distrust-authority --former --root /media/safe/root",
)
@click.argument("names", metavar="[AUTHORITY]...", nargs=-1)
@click.option("--former", is_flag=True, help="All but the one that certifies now.")
@root_option
@click.option("--dry-run", is_flag=True, help="Show the list that would be signed; sign nothing.")
@yes_option
@output_option
@click.pass_obj
def distrust_authority(
    app: App,
    names: tuple[str, ...],
    root: Path | None,
    *,
    former: bool,
    dry_run: bool,
    yes: bool,
    output: str,
) -> None:
    """Have nobody believed any more whom an issuing authority certified: its key was stolen.

    First replace it with `stead controller rotate-authority`. Then this signs the list of who
    is not believed with the root's key. Machines that the authority certified renew their
    certificates by themselves, with the keys that they have.
    """
    if bool(names) is former:
        raise click.UsageError(
            "name an authority as `stead controller authorities` does, or give --former"
        )
    connection, now = app.connection, clock.now()
    home, issuer = root_of(app, root), issuer_of(app, root)
    known = _known(connection)
    # A controller may not name them all; the root knows what it signed.
    known += [one for one in signed_before(home) if one not in known]
    gone = known[1:] if former else [_named(known, name) for name in names]
    if known[0] in gone:
        raise SteadError(
            f"{_name(known[0])} is the authority that certifies now: nobody would be believed; "
            "run `stead controller rotate-authority` first",
            code=Code.PRECONDITION,
        )
    newest = newest_list(connection)
    before = read_of(newest, connection.root).distrusted
    entries = [one for one in (_entry(one, now) for one in gone) if one.key_hash not in before]
    if not entries:
        note("No authority is left to distrust.")
        return
    listed, data = next_list(
        newest, home, issuer, lambda present: plan_distrust(present, entries, now=now)
    )
    if dry_run:
        emit(_rows(known, listed), output, columns=LISTED)
        return
    what = ", ".join(one.name for one in entries)
    question = f"Believe nobody any more whom {what} certified?"
    ask(question, yes=yes, first="look with --dry-run")
    # Before anybody is asked: a controller that refuses it cannot keep it from orders.
    keep_list(home, connection.home.revocations, data)
    connection.controllers.DistrustAuthorities(DistrustAuthoritiesRequest(revocations=data))
    note(
        f"distrusted: {what}; version {listed.version} of the list goes to the machines, which "
        "renew their certificates."
    )


def _known(connection: Connection) -> list[x509.Certificate]:
    """The present authority, then those before it."""
    answer = connection.controllers.ListAuthorities(ListAuthoritiesRequest())
    found = [read_certificate(der) for der in answer.certificates]
    if not found:
        raise InvalidError("the controller names no authority")
    for one in found:
        believe_authority(one, root=connection.root, now=one.not_valid_before_utc)
    return found


def _name(certificate: x509.Certificate) -> str:
    """An authority's name: the last word of what its certificate is called."""
    return certificate.subject.rfc4514_string().rpartition(" ")[2]


def _named(known: Sequence[x509.Certificate], name: str) -> x509.Certificate:
    for one in known:
        if _name(one) == name:
            return one
    raise NotFoundError(
        f"there is no authority {name[:80]!r}; `stead controller authorities` lists them"
    )


def _entry(certificate: x509.Certificate, now: datetime) -> DistrustedAuthority:
    return DistrustedAuthority(key_hash(public_key_of(certificate)), _name(certificate), now)


def _rows(known: Sequence[x509.Certificate], listed: Revocations) -> list[dict[str, Any]]:
    since = {one.key_hash: one.distrusted_at for one in listed.authorities}
    rows = []
    for number, one in enumerate(known):
        at = since.get(key_hash(public_key_of(one)))
        rows.append(
            {
                "authority": _name(one),
                "state": "distrusted" if at else "former" if number else "present",
                "begins_at": one.not_valid_before_utc,
                "ends_at": one.not_valid_after_utc,
                "distrusted_at": at,
                "key": key_hash(public_key_of(one)).hex(),
            }
        )
    return rows
