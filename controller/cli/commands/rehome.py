"""`stead machine rehome`: move machines to another controller of the same root."""

from __future__ import annotations

from typing import Any

import rich_click as click

from controller.cli.app import App
from controller.cli.operator.choice import machines_meant
from controller.cli.options.terms import acting, terms_of
from controller.cli.orders.ordering import order_and_follow
from controller.cli.orders.outcomes import finish
from controller.cli.output.emit import output_option
from protocol.action import Rehome
from protocol.address import split_address
from protocol.errors import InvalidError


def parse_addresses(text: str) -> tuple[str, str]:
    """Where the link is and where machines enroll.

    >>> parse_addresses("stead.example.org:7443,stead.example.org:7444")
    ('stead.example.org:7443', 'stead.example.org:7444')
    """
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 2:
        raise InvalidError(
            f"{text[:200]!r} is not two addresses: write --to HOST:PORT,HOST:PORT, first where "
            "machines link, then where they enroll"
        )
    for part in parts:
        split_address(part)
    return parts[0], parts[1]


@click.command(
    "rehome",
    epilog="Example: stead machine rehome all --to new.example.org:7443,new.example.org:7444",
)
@click.argument("selector")
@click.option(
    "--to",
    "addresses",
    metavar="HOST:PORT,HOST:PORT",
    required=True,
    help="Where machines link, and where they enroll and renew.",
)
@acting
@output_option
@click.pass_obj
def rehome(app: App, /, selector: str, addresses: str, output: str, **options: Any) -> int:
    """Move machines to another controller of the same root.

    Each machine tries the new address first and keeps the old one until it has been welcomed
    there. So the order may go out before the new controller runs.
    """
    link, enrollment = parse_addresses(addresses)
    terms, connection = terms_of(options), app.connection
    machines = machines_meant(connection, selector, terms.tenant)
    followed = order_and_follow(
        connection, machines, Rehome(link, enrollment), terms, output=output
    )
    return finish(followed, output)
