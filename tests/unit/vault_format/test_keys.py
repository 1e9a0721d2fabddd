from __future__ import annotations

import pytest

from protocol.errors import InvalidError
from protocol.vault.keys import (
    TenantKey,
    VaultSecret,
    decode_tenant_key,
    decode_vault_secret,
    encode_tenant_key,
    encode_vault_secret,
    machine_scope,
    parse_paper_key,
    render_paper_key,
)

KEY = TenantKey(bytes(range(32)))


def test_keys_come_back_from_bytes_and_from_paper() -> None:
    assert decode_tenant_key(encode_tenant_key(KEY)) == KEY
    assert decode_vault_secret(encode_vault_secret(KEY.secret)) == KEY.secret
    assert parse_paper_key(render_paper_key(KEY)) == KEY


def test_paper_forgives_how_people_write() -> None:
    written = render_paper_key(KEY).lower().replace("-", " \n").replace("0", "o").replace("1", "l")
    assert parse_paper_key(written) == KEY


def test_every_single_typing_error_on_paper_is_found() -> None:
    paper = render_paper_key(KEY)
    for place, digit in enumerate(paper):
        if digit == "-":
            continue
        wrong = paper[:place] + ("7" if digit != "7" else "8") + paper[place + 1 :]
        with pytest.raises(InvalidError):
            parse_paper_key(wrong)


@pytest.mark.parametrize("text", ["", "0400", "U" * 60, "é" * 60, render_paper_key(KEY) + "0"])
def test_what_is_no_key_on_paper_is_refused(text: str) -> None:
    with pytest.raises(InvalidError):
        parse_paper_key(text)


def test_a_refusal_does_not_repeat_the_key() -> None:
    paper = render_paper_key(KEY)
    with pytest.raises(InvalidError) as caught:
        parse_paper_key(paper[:-1] + "7")
    assert not any(group in str(caught.value) for group in paper.split("-"))


def test_every_damaged_byte_is_found() -> None:
    whole = encode_vault_secret(KEY.secret)
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        with pytest.raises(InvalidError):
            decode_vault_secret(bytes(damaged))


def test_secrets_do_not_show_in_what_is_printed() -> None:
    assert KEY.seed.hex()[:8] not in repr(KEY)
    assert repr(KEY.seed) not in repr(KEY)
    assert repr(KEY.secret.convergence) not in repr(KEY.secret)


def test_the_scope_of_a_machine_shares_nothing_but_the_recovery_key() -> None:
    one, two = machine_scope(KEY.secret, "mc_1"), machine_scope(KEY.secret, "mc_2")
    secrets = [KEY.secret, one, two]
    assert {secret.recovery_public for secret in secrets} == {KEY.secret.recovery_public}
    for name in ("convergence", "gear_seed", "boundary_key", "fingerprint_key"):
        assert len({getattr(secret, name) for secret in secrets}) == 3


def test_a_secret_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(InvalidError):
        VaultSecret(bytes(31), bytes(32))
    with pytest.raises(InvalidError):
        TenantKey(bytes(33))
