"""When a token is good for one more machine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from controller.authority import tokens
from controller.authority.failures import EnrollmentRefusedError
from controller.db.database import Database
from protocol.errors import Code
from tests.fakes.new_database import new_database

ENDS = datetime(2026, 5, 1, tzinfo=UTC)
TICK = timedelta(microseconds=1)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = Database.open(new_database(tmp_path / "stead.db"))
    yield opened
    await opened.close()


def row(*, left: int = 1) -> Any:
    return SimpleNamespace(
        id="tk_" + "0" * 26, tenant_id="tn_" + "0" * 26, expires_at=ENDS, uses=1, uses_left=left
    )


@pytest.mark.parametrize(
    ("now", "left", "code"),
    [
        (ENDS, 1, Code.TOKEN_EXPIRED),
        (ENDS + TICK, 1, Code.TOKEN_EXPIRED),
        (ENDS - TICK, 0, Code.TOKEN_USED),
    ],
)
async def test_a_token_ends_at_its_end_and_with_its_last_use(
    database: Database, now: datetime, left: int, code: Code
) -> None:
    with pytest.raises(EnrollmentRefusedError) as refused:
        await database.write(lambda c: tokens.spend(c, row(left=left), now=now))
    assert refused.value.code is code


async def test_a_token_is_good_up_to_its_end(database: Database) -> None:
    await database.write(lambda c: tokens.spend(c, row(), now=ENDS - TICK))
