"""A controller that calls another machine by a name that was used before is not signed for."""

from __future__ import annotations

import json

from tests.integration.commands import stead
from tests.integration.conftest import Installation
from tests.integration.test_audit_witness import rename


async def test_a_name_that_means_another_machine_by_now_is_asked_about_first(
    installation: Installation,
) -> None:
    tenant = await installation.add_tenant()
    first = await installation.enroll(await installation.add_token(tenant), "web-01")
    other = await installation.enroll(await installation.add_token(tenant), "db-01")

    async def ordered() -> int:
        return len(json.loads(await stead(installation, "job", "ls", "--output", "json")))

    run = ("run", "web-01", "--no-wait", "--", "true")
    await stead(installation, *run)
    # What the operator renames here is known by its new name, and by no other.
    await stead(installation, "machine", "rename", "web-01", "www-01")
    await stead(installation, "run", "www-01", "--no-wait", "--", "true")
    assert await ordered() == 2
    await rename(installation, first.id, "web-01")
    said = await stead(installation, *run, code=1, error=True)
    assert f"web-01 is {first.id}, which was called www-01" in " ".join(said.split())
    await stead(installation, "machine", "recognise", "web-01")
    await stead(installation, *run)

    await rename(installation, first.id, "aside")
    await rename(installation, other.id, "web-01")
    for words in (run, ("run", "all", "--yes", "--no-wait", "--", "true")):
        said = await stead(installation, *words, code=1, error=True)
        assert f"web-01 is {other.id}, and was {first.id}" in " ".join(said.split())
        assert "stead machine recognise" in said
    assert await ordered() == 3
    assert json.loads(
        await stead(installation, "machine", "recognise", "all", "--output", "json")
    ) == [
        {"machine": "aside", "id": first.id, "was": "", "called": "web-01"},
        {"machine": "web-01", "id": other.id, "was": first.id, "called": ""},
    ]
    await stead(installation, *run)
    assert await ordered() == 4
