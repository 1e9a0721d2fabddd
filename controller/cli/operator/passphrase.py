"""Passphrases of keys: asked for where somebody sits, read from a file for scripts.

Never an argument, which every process of the machine can read, nor a variable, which what
is started inherits. The variable names a file; `/dev/fd/3` is one, too.
"""

from __future__ import annotations

import getpass
import os
import stat
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from controller.authority.authority import load_key
from controller.authority.protected import (
    NONCE_BYTES,
    SALT_BYTES,
    WrongPassphraseError,
    is_protected,
    open_key,
    protect_key,
)
from controller.cli.output.emit import note
from protocol.errors import Code, InvalidError, SteadError
from protocol.tls import private_pem

ATTEMPTS = 3
LONGEST = 4096


class Whose(StrEnum):
    """The keys that a passphrase can protect."""

    OPERATOR = "operator"
    ROOT = "root"

    @property
    def variable(self) -> str:
        """Names the file with the passphrase."""
        return "STEAD_ROOT_PASSPHRASE_FILE" if self is Whose.ROOT else "STEAD_PASSPHRASE_FILE"

    @property
    def new_variable(self) -> str:
        """Names the file with the passphrase that is to protect it from now on."""
        return self.variable.replace("STEAD_", "STEAD_NEW_")


def load_own_key(path: Path, whose: Whose) -> ec.EllipticCurvePrivateKey:
    """A key, for which its passphrase is asked if it has one.

    Raises UNAUTHENTICATED for a wrong one, PRECONDITION where nobody can be asked, INVALID
    for a file that cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidError(f"{path} cannot be read: {error.strerror}") from error
    if not is_protected(data):
        return load_key(path)
    if named := os.environ.get(whose.variable):
        return _opened(path, data, read_passphrase(Path(named)))
    for left in reversed(range(ATTEMPTS)):
        try:
            return _opened(path, data, ask(f"Passphrase of the {whose} key {path}: ", whose))
        except WrongPassphraseError as error:
            if not left:
                raise
            note(str(error))
    raise AssertionError


def new_passphrase(whose: Whose) -> bytes:
    """The passphrase that is to protect a key: asked for twice, or read from its file."""
    if named := os.environ.get(whose.new_variable):
        return read_passphrase(Path(named))
    first = ask(f"New passphrase for the {whose} key: ", whose, variable=whose.new_variable)
    if ask("Once more: ", whose, variable=whose.new_variable) != first:
        raise InvalidError("the two are not the same; nothing was changed")
    return first


def kept_as(whose: Whose, *, protected: bool) -> Callable[[ec.EllipticCurvePrivateKey], bytes]:
    """How a new key is written down; asks for its passphrase now if it is to have one."""
    if not protected:
        return private_pem
    passphrase = new_passphrase(whose)
    return lambda key: sealed(key, passphrase)


def sealed(key: ec.EllipticCurvePrivateKey, passphrase: bytes) -> bytes:
    """A key's file behind a passphrase."""
    return protect_key(key, passphrase, salt=os.urandom(SALT_BYTES), nonce=os.urandom(NONCE_BYTES))


def read_passphrase(path: Path) -> bytes:
    """The first line of a file that nobody else may read; PRECONDITION for any other file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if stat.S_IMODE(found.st_mode) & 0o077 or found.st_uid not in {os.geteuid(), 0}:
                raise SteadError(
                    f"others may read the passphrase in {path}, or it is somebody else's; run "
                    f"`chmod 600 {path}` as its owner",
                    code=Code.PRECONDITION,
                )
            line = file.readline(LONGEST).rstrip(b"\r\n")
    except OSError as error:
        raise SteadError(
            f"the passphrase cannot be read from {path}: {error.strerror}",
            code=Code.PRECONDITION,
        ) from error
    if not line:
        raise SteadError(f"there is no passphrase in {path}", code=Code.PRECONDITION)
    return line


def ask(question: str, whose: Whose, *, variable: str = "") -> bytes:
    """Ask on the terminal, without showing what is typed; PRECONDITION where there is none."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        raise SteadError(
            f"the {whose} key is protected by a passphrase, and there is no terminal to ask on; "
            f"name a file that has it, of mode 0600, in {variable or whose.variable}",
            code=Code.PRECONDITION,
        ) from None
    try:
        return getpass.getpass(question).encode("utf-8", "surrogateescape")
    except EOFError:
        raise InvalidError("no passphrase was typed; nothing was done") from None


def _opened(path: Path, data: bytes, passphrase: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        return open_key(data, passphrase)
    except SteadError as error:
        raise type(error)(f"{path}: {error}") from None
