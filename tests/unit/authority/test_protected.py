from __future__ import annotations

import base64
import shutil
import subprocess
from pathlib import Path

import pytest

from controller.authority.authority import load_key
from controller.authority.keys import new_key
from controller.authority.protected import (
    COST,
    WrongPassphraseError,
    is_protected,
    open_key,
    protect_key,
)
from protocol.errors import Code, InvalidError, SteadError
from protocol.tls import private_pem

SALT, NONCE = bytes(range(16)), bytes(range(16, 32))
PASSPHRASE = b"correct horse battery"


def protected(passphrase: bytes = PASSPHRASE) -> bytes:
    return protect_key(new_key(), passphrase, salt=SALT, nonce=NONCE)


def test_a_protected_key_opens_with_its_passphrase_and_with_no_other() -> None:
    key = new_key()
    data = protect_key(key, PASSPHRASE, salt=SALT, nonce=NONCE)
    assert is_protected(data)
    assert not is_protected(private_pem(key))
    assert open_key(data, PASSPHRASE).private_numbers() == key.private_numbers()
    for wrong in (b"correct horse batterz", b"x", PASSPHRASE + b"\n"):
        with pytest.raises(WrongPassphraseError) as caught:
            open_key(data, wrong)
        assert caught.value.code is Code.UNAUTHENTICATED


def test_the_file_says_how_much_work_a_guess_is() -> None:
    der = b"".join(protected().split(b"\n")[1:-2])
    assert COST.to_bytes(2, "big") in base64.b64decode(der)


def test_what_is_damaged_opens_with_no_passphrase() -> None:
    lines = protected().split(b"\n")
    lines[3] = lines[3][::-1]
    with pytest.raises(WrongPassphraseError, match="damaged"):
        open_key(b"\n".join(lines), PASSPHRASE)


def test_a_short_passphrase_is_none() -> None:
    with pytest.raises(InvalidError, match="at least 8"):
        protected(b"1234567")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="not run: openssl is not installed")
def test_openssl_reads_a_protected_key(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(protected())
    (tmp_path / "word").write_bytes(PASSPHRASE + b"\n")
    argv = ["openssl", "pkey", "-in", "key", "-passin", "file:word", "-noout"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_where_nobody_is_asked_a_protected_key_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(protected())
    with pytest.raises(SteadError, match="passphrase"):
        load_key(tmp_path / "key")
