"""Why a package manager could not do what it was asked, as errors with a next step."""

from __future__ import annotations

from collections.abc import Sequence

from protocol.errors import Code, SteadError


class PackagesLockedError(SteadError):
    """Another program is using the package database."""

    code = Code.LOCKED

    def __init__(self, holder: str) -> None:
        super().__init__(
            f"the package database is in use by {holder}; try again when that has ended"
        )
        self.holder = holder


class RepositoryUnreachableError(SteadError):
    """A repository, or a file that it announced, cannot be fetched."""

    code = Code.UNAVAILABLE

    def __init__(self, said: str) -> None:
        super().__init__(
            f"a repository cannot be reached: {said}; check the network and the machine's "
            "sources, then refresh"
        )


class RepositoryUntrustedError(SteadError):
    """A repository's signature is missing, wrong or expired, or its files do not match it."""

    code = Code.BAD_SIGNATURE

    def __init__(self, said: str) -> None:
        super().__init__(
            f"a repository cannot be trusted: {said}; nothing was taken from it; check its key "
            "and its sources"
        )


class DiskFullError(SteadError):
    """There is no room for the archives or for the packages."""

    code = Code.PRECONDITION

    def __init__(self, said: str) -> None:
        super().__init__(f"the disk is full: {said}; free some space and order it again")


class PackagesInterruptedError(SteadError):
    """An earlier transaction stopped half way; the package database waits for its end."""

    code = Code.PRECONDITION

    def __init__(self, findings: Sequence[str], repair: str) -> None:
        named = "; ".join(findings) or "the package manager says so"
        super().__init__(f"an earlier transaction did not end: {named}; run `{repair}` first")
        self.findings = tuple(findings)


class RemovalRefusedError(SteadError):
    """The transaction would remove packages and the request did not allow that."""

    code = Code.PRECONDITION

    def __init__(self, names: Sequence[str]) -> None:
        named = ", ".join(names) or "some packages"
        super().__init__(
            f"the transaction would remove {named}, which no order does; ask for other packages, "
            "or remove it on that machine first"
        )
        self.names = tuple(names)


class PlanChangedError(SteadError):
    """The transaction is no longer the one that was ordered."""

    code = Code.PRECONDITION

    def __init__(self, differences: Sequence[str]) -> None:
        super().__init__(
            "the transaction differs from the ordered one and nothing was done: "
            + "; ".join(differences)
            + "; plan it again and order that"
        )
        self.differences = tuple(differences)


class PackageHeldError(SteadError):
    """A requested package is on hold on that machine."""

    code = Code.PRECONDITION

    def __init__(self, names: Sequence[str], repair: str) -> None:
        super().__init__(f"on hold: {', '.join(names)}; run `{repair}` first")
        self.names = tuple(names)


class PackageNotInstalledError(SteadError):
    """A requested package is not on that machine; patching only updates what is there."""

    code = Code.NOT_FOUND

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(
            f"not installed: {', '.join(names)}; patching updates installed packages only, "
            "look at the scan for their names"
        )
        self.names = tuple(names)


class DependenciesBrokenError(SteadError):
    """The package manager finds no transaction that fits."""

    code = Code.PRECONDITION

    def __init__(self, said: str) -> None:
        super().__init__(
            f"no transaction fits the dependencies: {said}; ask for fewer packages, or look at "
            "what is held"
        )


class ManagerFailedError(SteadError):
    """The package manager failed in a way that has no name here."""

    code = Code.PRECONDITION


class ManagerMissingError(SteadError):
    """No package manager that Stead knows owns this machine."""

    code = Code.UNSUPPORTED

    def __init__(self, looked_for: Sequence[str]) -> None:
        super().__init__(
            f"no known package manager here (looked for {'; '.join(looked_for)}); "
            "this machine cannot be patched by Stead"
        )
