"""A tenant's policy as people write it: TOML in, rules out, and rules for people. Pure.

[class.dangerous]
second_above = 20

[action.control_power]
forbid = true
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

from protocol.action import ACTIONS
from protocol.action_class import ActionClass
from protocol.errors import InvalidError
from protocol.ids import TenantId
from protocol.policy import NEVER, Policy, Rule, checked_policy
from protocol.toml import read_toml

_NEVER_WORD = "never"


class RuleText(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is written of a class or of an action. `second_above = 0` is always."""

    forbid: bool = False
    roles: tuple[str, ...] = ()
    second_above: Annotated[int, msgspec.Meta(ge=0, lt=NEVER)] | Literal["never"] | None = None
    longest_days: Annotated[int, msgspec.Meta(ge=0, lt=NEVER)] = 0


class PolicyText(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"kind": "class"}):
    """The file."""

    tenant: str
    kind: dict[str, RuleText] = {}
    action: dict[str, RuleText] = {}


def parse_policy(data: bytes) -> PolicyText:
    """Read a file; INVALID says what is wrong."""
    try:
        found = read_toml(data, PolicyText)
    except InvalidError as error:
        raise InvalidError(f"this is no policy: {error}") from error
    for table, names, known in (
        ("class", found.kind, [one.value for one in ActionClass]),
        ("action", found.action, sorted(ACTIONS)),
    ):
        if wrong := [name for name in names if name not in known]:
            raise InvalidError(
                f"[{table}.{wrong[0][:40]}]: there is no such {table}; there are: "
                f"{', '.join(known)}"
            )
    return found


def policy_of(text: PolicyText, tenant: TenantId, version: int, issued_at: datetime) -> Policy:
    """The policy that a file means; INVALID when it makes no sense."""
    rules = tuple(
        Rule(
            subject,
            rule.forbid,
            rule.roles,
            NEVER if rule.second_above == _NEVER_WORD else _number(rule.second_above),
            rule.longest_days,
        )
        for subject, rule in sorted((text.kind | text.action).items())
    )
    return checked_policy(Policy(tenant, version, issued_at, rules))


def rule_rows(policy: Policy) -> list[dict[str, Any]]:
    """The rules as records; what says nothing is None."""
    return [
        {
            "subject": rule.subject,
            "forbid": rule.forbid,
            "roles": list(rule.roles) or None,
            "second_above": _NEVER_WORD if rule.second_above == NEVER else rule.second_above,
            "longest_days": rule.longest_days or None,
            "version": policy.version,
        }
        for rule in policy.rules
    ]


def difference(present: Policy, following: Policy) -> list[dict[str, Any]]:
    """What another policy changes, a record for each subject."""
    before = {row["subject"]: row for row in rule_rows(present)}
    after = {row["subject"]: row for row in rule_rows(following)}
    rows = []
    for subject in sorted(before | after):
        old, new = render_rule(before.get(subject)), render_rule(after.get(subject))
        if old != new:
            rows.append({"subject": subject, "before": old, "after": new})
    return rows


def render_rule(row: dict[str, Any] | None) -> str:
    """A rule in a line.

    >>> render_rule(None)
    'as built in'
    """
    if row is None:
        return "as built in"
    said = ["forbidden"] if row["forbid"] else []
    if row["roles"]:
        said.append(f"ordered by {' or '.join(row['roles'])}")
    above = row["second_above"]
    if above is not None:
        how = "always" if above == 0 else f"above {above} machines"
        said.append("never two operators" if above == _NEVER_WORD else f"two operators {how}")
    if row["longest_days"]:
        said.append(f"standing for {row['longest_days']} days at most")
    return ", ".join(said) or "as built in"


def _number(given: int | str | None) -> int | None:
    return None if given is None else int(given)
