"""What every command is given: where this program's state is, and how to reach the controller."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from controller import clock
from controller.config import ControllerHome, OperatorHome, RootHome

if TYPE_CHECKING:
    from controller.cli.operator.connection import Connection


@dataclass(frozen=True)
class App:
    """`address` is "host:port", empty for the one that the operator's profile names."""

    home: Path
    address: str = ""

    @property
    def root(self) -> RootHome:
        """The root's directory, where it has not been moved away."""
        return RootHome(self.home / "root")

    @property
    def controller(self) -> ControllerHome:
        """The controller's directory, on the machine that runs it."""
        return ControllerHome(self.home / "controller")

    @property
    def operator(self) -> OperatorHome:
        """The operator's profile."""
        return OperatorHome(self.home / "operator")

    @cached_property
    def connection(self) -> Connection:
        """The way to the controller; PRECONDITION when there is no profile.

        Says so when the operator's certificate ends soon; UNAUTHENTICATED once it has.
        """
        # gRPC and the certificates take a tenth of a second that `--help` need not wait for.
        from controller.cli.operator.connection import Connection
        from controller.cli.operator.renewal import ended_error, ends_soon
        from controller.cli.output.emit import note

        self.operator.load_settings()
        connection = Connection(self.operator, self.address_now)
        now = clock.now()
        if (ended := ended_error(connection.certificate, now)) is not None:
            raise ended
        if soon := ends_soon(connection.certificate, now):
            note(f"warning: {soon}")
        return connection

    @property
    def address_now(self) -> str:
        """Where the controller is, as "host:port"."""
        return self.address or self.operator.load_settings().address
