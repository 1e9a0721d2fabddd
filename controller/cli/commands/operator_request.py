"""`stead operator request`, `certify`, `accept`: a key that never leaves where it was made."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import rich_click as click
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from controller import clock
from controller.authority.authority import load_certificate
from controller.authority.certificates import OPERATOR_LIFETIME, Issuer, certify_operator
from controller.authority.durable import make_directory, replace_durably, write_durably
from controller.authority.keys import new_key, new_serial
from controller.authority.requests import (
    MAX_BYTES,
    Granted,
    make_granted,
    make_request,
    read_granted,
    read_request,
    short_hash,
)
from controller.cli.app import App
from controller.cli.commands.operator_key import root_option
from controller.cli.operator.choice import tenant_names
from controller.cli.operator.connection import Connection
from controller.cli.operator.making import (
    identity_for,
    issuer_of,
    known_operator,
    operator_row,
    refuse_taken,
)
from controller.cli.operator.passphrase import Whose, kept_as
from controller.cli.options.usual import yes_option
from controller.cli.output.asking import ask
from controller.cli.output.emit import emit_one, note, output_option
from controller.config import OperatorHome, OperatorSettings, render_settings
from protocol.address import split_address
from protocol.errors import Code, InvalidError, SteadError
from protocol.identity import IdentityError, OperatorIdentity, Role, believe, pin_of
from protocol.ids import check_name
from protocol.tls import chain_pem
from protocol.v1.operator_pb2 import AddOperatorRequest


@click.command(epilog="Example: stead operator request eve --passphrase --to eve.request")
@click.argument("name", default="")
@click.option(
    "--renew",
    is_flag=True,
    help="Ask for a new certificate for the keys of this profile, when the present one ends.",
)
@click.option(
    "--ssh-agent",
    "by_agent",
    is_flag=True,
    help="Sign with a P-256 key that your ssh-agent holds; only a key for connecting is made here.",
)
@click.option(
    "--key",
    "named",
    default="",
    metavar="KEY",
    help="Which key of the ssh-agent: its fingerprint or comment, as `ssh-add -l` shows them.",
)
@click.option(
    "--passphrase",
    "protected",
    is_flag=True,
    help="Ask for a passphrase that protects the key that is made here.",
)
@click.option(
    "--to",
    "target",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to write the request. Default: NAME.request.",
)
@click.pass_obj
def request(
    app: App,
    name: str,
    named: str,
    target: Path | None,
    *,
    renew: bool,
    by_agent: bool,
    protected: bool,
) -> None:
    """Make a key here, or take one from your ssh-agent, and ask for its certificate.

    Whoever has the root's key answers with `stead operator certify`; take the answer with
    `stead operator accept`. The key itself goes nowhere.
    """
    if named and not by_agent:
        raise InvalidError("--key chooses a key of the ssh-agent: add --ssh-agent")
    if renew:
        if by_agent or protected:
            raise InvalidError("--renew asks for the keys that are here: add nothing to it")
        _request_again(app, name, target)
        return
    check_name(name, what="operator's name")
    home, file = app.operator, target or Path(f"{name}.request")
    if home.path.exists():
        raise SteadError(
            f"{home.path} is there already; name another directory with --home",
            code=Code.ALREADY_EXISTS,
        )
    key = new_key()
    kept = kept_as(Whose.OPERATOR, protected=protected)(key)
    if by_agent:
        from controller.cli.operator.ssh_agent import choose_key, sign_by_agent

        public = choose_key(named).public_key()
        data = make_request(name, public, key, lambda said: sign_by_agent(public, said))
    else:
        public = key.public_key()
        data = make_request(name, public, None, lambda said: key.sign(said, ec.ECDSA(SHA256())))
    for folder in (home.path, home.tenants):
        make_directory(folder)
    write_durably(home.connect_key if by_agent else home.key, kept)
    write_durably(home.request, data)
    write_durably(file, data, mode=0o644)
    _say_next(file, public)


def _request_again(app: App, name: str, target: Path | None) -> None:
    """Ask for a new certificate for the keys of a profile; also of one that has ended."""
    home = app.operator
    home.load_settings()
    # Not by `app.connection`, which refuses a certificate that has ended.
    connection = Connection(home, app.address_now)
    own = connection.operator.name
    if name not in {"", own}:
        raise InvalidError(f"the profile in {home.path} is {own}'s; leave the name out")
    public = connection.certificate.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    connect = connection.key_here if home.held_by_agent else None
    data = make_request(own, public, connect, connection.sign)
    file = target or Path(f"{own}.request")
    write_durably(file, data, mode=0o644)
    replace_durably(home.request, data)
    _say_next(file, public)


def _say_next(file: Path, public: ec.EllipticCurvePublicKey) -> None:
    note(
        f"Send {file} to whoever has the root's key, and tell them this hash by another way:\n"
        f"  {short_hash(public)}\n"
        "Then: stead operator accept FILE, with what they answer."
    )


@click.command(epilog="Example: stead operator certify eve.request --role technician --tenant acme")
@click.argument("file", type=click.File("rb"))
@click.option(
    "--role",
    type=click.Choice([r.value for r in Role]),
    help="What they may do; see docs/guide/operating.md.",
)
@click.option(
    "--tenant", "tenants", multiple=True, help="Only this tenant; may be repeated. Default: all."
)
@click.option(
    "--renew",
    is_flag=True,
    help="Of an operator whom there is, for the same key: role and tenants stay.",
)
@root_option
@click.option(
    "--days",
    type=click.IntRange(1, OPERATOR_LIFETIME.days),
    default=OPERATOR_LIFETIME.days,
    show_default=True,
    help="How long the certificate is good for.",
)
@click.option(
    "--to",
    "target",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to write the answer. Default: NAME.granted.",
)
@yes_option
@output_option
@click.pass_obj
def certify(
    app: App,
    file: Any,
    role: str | None,
    tenants: tuple[str, ...],
    root: Path | None,
    days: int,
    target: Path | None,
    output: str,
    *,
    renew: bool,
    yes: bool,
) -> None:
    """Make an operator of a request, signed by the root's key. FILE may be -.

    Compare the hash with what the person tells you by another way: who exchanged the file on
    its way would be that operator.
    """
    asked, key, connect = read_request(file.read(MAX_BYTES + 1))
    connection = app.connection
    if renew:
        if role or tenants:
            raise InvalidError("--renew leaves role and tenants as they are")
        identity = known_operator(connection, asked.name, key)
    else:
        if role is None:
            raise InvalidError("say what they may do with --role")
        refuse_taken(connection, asked.name)
        identity = identity_for(connection, asked.name, role, tenants)
    answer = target or Path(f"{asked.name}.granted")
    if answer.exists():
        raise SteadError(
            f"{answer} is there already; name another with --to", code=Code.ALREADY_EXISTS
        )
    held = "in an ssh-agent" if connect is not None else "in a file of theirs"
    names = tenant_names(app.connection)
    # By their ids too: which tenant has a name is the controller's word.
    scope = sorted(f"{names.get(t, 'unknown')} ({t})" for t in identity.tenants or ())
    where = ", ".join(scope) or "all tenants"
    what = f"{'again ' if renew else ''}to be {identity.role} in {where}"
    note(f"{asked.name} asks {what}, with a key {held}:\n  {short_hash(key)}")
    ask("Is this what they told you by another way?", yes=yes)
    issuer = issuer_of(app, root)
    lifetime = timedelta(days=days)
    leaf = _certified(issuer, key, identity, lifetime)
    other = None
    if connect is not None:
        only = OperatorIdentity(identity.name, identity.role, identity.tenants, connects_only=True)
        other = _certified(issuer, connect, only, lifetime)
    recorded = connection.operators.AddOperator(
        AddOperatorRequest(certificate=leaf.public_bytes(Encoding.DER))
    ).operator
    data = make_granted(asked.name, issuer.certificate, leaf, other, app.address_now)
    write_durably(answer, data, mode=0o644)
    emit_one({**operator_row(recorded, names), "answer": str(answer)}, output)
    note(f"Send {answer} back; it holds nothing secret. They run: stead operator accept {answer}")


@click.command(epilog="Example: stead operator accept eve.granted")
@click.argument("file", type=click.File("rb"))
@output_option
@click.pass_obj
def accept(app: App, file: Any, output: str) -> None:
    """Take the answer to a request: the profile is ready then. FILE may be -."""
    home = app.operator
    if not home.request.exists():
        raise SteadError(
            f"nothing was asked for in {home.path}; begin with `stead operator request`, or name "
            "its directory with --home",
            code=Code.PRECONDITION,
        )
    asked, key, connect = read_request(home.request.read_bytes())
    granted = read_granted(file.read(MAX_BYTES + 1))
    if granted.name != asked.name:
        raise InvalidError(f"this answers a request of {granted.name[:80]!r}, not {asked.name}'s")
    split_address(granted.address)
    root = _certificate(granted.root)
    if home.root.exists() and load_certificate(home.root) != root:
        raise SteadError(
            "this answers for another installation than the profile's", code=Code.WRONG_PIN
        )
    leaf = _checked(granted.certificate, root, asked.name, key, connecting=False)
    if connect is not None:
        only = _checked(granted.connect, root, asked.name, connect, connecting=True)
        replace_durably(home.connect_certificate, chain_pem([only]))
    _write(home, granted, root, leaf)
    emit_one(
        {
            "name": asked.name,
            "root": pin_of(root).hex(),
            "ends_at": leaf.not_valid_after_utc,
            "profile": str(home.path),
            "controller": granted.address,
        },
        output,
    )
    note("Compare the root with what the others have (`stead controller init` showed it).")


def _write(
    home: OperatorHome, granted: Granted, root: x509.Certificate, leaf: x509.Certificate
) -> None:
    replace_durably(home.certificate, chain_pem([leaf]))
    if not home.root.exists():
        write_durably(home.root, chain_pem([root]))
    if not home.settings.exists():
        settings = OperatorSettings(address=granted.address)
        write_durably(home.settings, render_settings(settings).encode())
    home.request.unlink()


def _certified(
    issuer: Issuer,
    key: ec.EllipticCurvePublicKey,
    identity: OperatorIdentity,
    lifetime: timedelta,
) -> x509.Certificate:
    return certify_operator(
        issuer, key, identity, serial=new_serial(), now=clock.now(), lifetime=lifetime
    )


def _certificate(pem: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem.encode())
    except ValueError as error:
        raise InvalidError(f"the answer has a certificate that cannot be read: {error}") from error


def _checked(
    pem: str,
    root: x509.Certificate,
    name: str,
    key: ec.EllipticCurvePublicKey,
    *,
    connecting: bool,
) -> x509.Certificate:
    leaf = _certificate(pem)
    identity = believe(leaf, root=root, issuing=(), now=clock.now(), connecting=True)
    if not isinstance(identity, OperatorIdentity) or identity.name != name:
        raise IdentityError(f"the answer's certificate is not one of the operator {name}")
    if leaf.public_key() != key or identity.connects_only is not connecting:
        raise InvalidError("the answer's certificate is for another key than was asked for")
    return leaf
