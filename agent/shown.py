"""What the commands show: fields, and what went wrong, for people or for scripts."""

from __future__ import annotations

import sys
from datetime import datetime
from itertools import pairwise
from typing import Any

import click

from protocol.errors import Code, SteadError
from protocol.shown import encode_json

REFUSED = frozenset({Code.DENIED, Code.REVOKED, Code.UNAUTHENTICATED, Code.BAD_SIGNATURE})
WRONG_USE = frozenset({Code.INVALID})


def exit_code(error: SteadError) -> int:
    """1 failed, 2 wrong use, 4 refused, 6 the controller cannot be reached."""
    if error.code is Code.UNAVAILABLE:
        return 6
    if error.code in REFUSED:
        return 4
    return 2 if error.code in WRONG_USE else 1


def show(fields: dict[str, Any], output: str) -> None:
    """Print fields with their names: a line each, or one object."""
    if output == "json":
        click.echo(encode_json(fields).decode())
        return
    width = max(map(len, fields))
    for name, value in fields.items():
        if value not in (None, "", [], ()):
            click.echo(f"{name.replace('_', ' '):<{width}}  {text_of(value)}")


def text_of(value: object) -> str:
    """A value as people read it."""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}Z"
    if isinstance(value, dict):
        return _order_text(value) if "order" in value else _run_text(value)
    return ", ".join(map(text_of, value)) if isinstance(value, (list, tuple)) else str(value)


def _order_text(order: dict[str, Any]) -> str:
    """A standing order: what, how often, until when, by whom."""
    if "refused" in order:
        return f"{order['order']} is not run: {order['refused']}"
    return (
        f"{order['summary']} ({order['schedule']} until {text_of(order['ends_at'])}, "
        f"by {order['signer']})"
    )


def _run_text(run: dict[str, Any]) -> str:
    """What runs, since when, and how far it is."""
    told = " ".join(f"{name.replace('_', ' ')} {said}" for name, said in run["progress"].items())
    return f"{run['kind'].replace('_', ' ')} since {text_of(run['since'])}" + (
        f" ({told})" if told else ""
    )


def complain(message: str, code: int, error: str) -> int:
    """Say what went wrong: a line, or an object where the output was to be JSON."""
    words = sys.argv[1:]
    pairs = [*pairwise(words), *(word.split("=", 1) for word in words)]
    if any(tuple(pair) in {("--output", "json"), ("-o", "json")} for pair in pairs):
        said = {"error": error, "message": message, "exit_code": code}
        click.echo(encode_json(said).decode(), err=True)
    else:
        click.echo(f"stead-agent: {message}", err=True)
    return code
