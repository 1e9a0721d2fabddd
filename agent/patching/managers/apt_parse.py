"""Read what apt and dpkg print.

Pure. Formats: dpkg-query(1) with `QUERY_FORMAT`, apt-cache(8) `policy` and `show`,
apt-get(8) `--simulate`; all in the C locale, and all recorded in `tests/data/apt`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

QUERY_FORMAT = (
    "${Package}\t${Architecture}\t${Version}\t${db:Status-Want}\t${db:Status-Status}\t"
    "${Installed-Size}\t${source:Package}\t${Pre-Depends},${Depends}\n"
)
KEPT_BACK = "The following packages have been kept back"
PHASED = "The following upgrades have been deferred due to phasing"
DOWNGRADED = "The following packages will be DOWNGRADED"

_INST = re.compile(r"Inst (\S+)(?: \[([^\]]*)\])? \((\S+) ?(.*?) ?\[([^\]]+)\]\)")
_REMV = re.compile(r"(?:Remv|Purg) (\S+) \[([^\]]*)\]")
_VERSION_ROW = re.compile(r" (\*\*\*|   ) (\S+) ")
_SOURCE_ROW = re.compile(r"\s+(-?\d+) (.+)")
_DEPENDED_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")


@dataclass(frozen=True, slots=True)
class Installed:
    """A package that dpkg knows; `size_bytes` is what it takes on disk by its own account."""

    name: str
    arch: str
    version: str
    want: str
    state: str
    size_bytes: int
    source: str
    depends: frozenset[str]

    @property
    def present(self) -> bool:
        """It was unpacked, at least."""
        return self.state not in {"not-installed", "config-files"}


@dataclass(frozen=True, slots=True)
class Release:
    """Whom a package file comes from, by the signed Release file."""

    origin: str = ""
    suite: str = ""
    label: str = ""
    codename: str = ""

    @property
    def security(self) -> bool:
        """Debian says it in the label, Ubuntu and its extended maintenance in the suite."""
        return (
            self.label.lower().endswith("-security")
            or self.suite.endswith("-security")
            or self.codename.endswith("-security")
        )


@dataclass(frozen=True, slots=True)
class Offered:
    """A version in apt's table with the package files that offer it."""

    version: str
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """What apt would choose for one package; `versions` are the newest first."""

    installed: str
    candidate: str
    versions: tuple[Offered, ...]

    def newer(self) -> tuple[Offered, ...]:
        """The candidate and the versions between it and the installed one, or nothing."""
        names = [offered.version for offered in self.versions]
        if self.candidate not in names or self.installed not in names:
            return ()
        return self.versions[names.index(self.candidate) : names.index(self.installed)]


@dataclass(frozen=True, slots=True)
class Archive:
    """What the repository says of one version of a package."""

    name: str
    arch: str
    version: str
    source: str
    size_bytes: int
    installed_bytes: int
    sha256: str
    depends: frozenset[str]
    conflicts: frozenset[str]
    provides: frozenset[str]


@dataclass(frozen=True, slots=True)
class Simulated:
    """One line of a simulation; `old` or `new` is empty. `package` is as apt names it."""

    package: str
    arch: str
    old: str
    new: str
    origin: str


@dataclass(frozen=True, slots=True)
class Simulation:
    """A transaction that apt-get would carry out, and the lists it printed before it."""

    steps: tuple[Simulated, ...]
    lists: Mapping[str, frozenset[str]] = field(default_factory=dict)


def qualify(name: str, arch: str, native: str) -> str:
    """A package as apt names it: with its architecture only when that is a foreign one."""
    return name if arch in {native, "all", ""} else f"{name}:{arch}"


def _relations(text: str) -> frozenset[str]:
    """Names in a dependency field, versions and alternatives set aside."""
    parts = re.split(r"[,|]", text)
    found = (_DEPENDED_NAME.match(part.strip()) for part in parts)
    return frozenset(match.group() for match in found if match)


def parse_installed(text: str, native: str) -> dict[str, Installed]:
    """dpkg-query's lines by the name that apt uses."""
    packages = {}
    for line in text.splitlines():
        name, arch, version, want, state, size, source, depends = line.split("\t", 7)
        packages[qualify(name, arch, native)] = Installed(
            name=name,
            arch=arch,
            version=version,
            want=want,
            state=state,
            size_bytes=int(size or 0) * 1024,
            source=source,
            depends=_relations(depends),
        )
    return packages


def parse_releases(text: str) -> dict[str, Release]:
    """`apt-cache policy` without a name: package file to release."""
    releases = {}
    current = ""
    for line in text.splitlines():
        row = _SOURCE_ROW.fullmatch(line)
        if line.strip().startswith("release "):
            pairs = (pair.partition("=") for pair in line.strip()[len("release ") :].split(","))
            known = {key: value for key, _, value in pairs}
            releases[current] = Release(
                known.get("o", ""), known.get("a", ""), known.get("l", ""), known.get("n", "")
            )
        elif row:
            current = row.group(2)
    return releases


def parse_policies(text: str) -> dict[str, Policy]:
    """`apt-cache policy NAME…` by package as apt names it."""
    policies = {}
    for block in re.split(r"(?m)^(?=\S)", text):
        lines = block.splitlines()
        if len(lines) < 3 or not lines[0].endswith(":"):
            continue
        versions: list[tuple[str, list[str]]] = []
        for line in lines[3:]:
            row, source = _VERSION_ROW.match(line), _SOURCE_ROW.fullmatch(line)
            if row:
                versions.append((row.group(2), []))
            elif source and versions:
                versions[-1][1].append(source.group(2))
        policies[lines[0][:-1]] = Policy(
            installed=lines[1].partition(": ")[2],
            candidate=lines[2].partition(": ")[2],
            versions=tuple(Offered(version, tuple(sources)) for version, sources in versions),
        )
    return policies


def parse_archives(text: str, native: str) -> dict[tuple[str, str], Archive]:
    """`apt-cache show` by (package as apt names it, version); the first source counts."""
    archives: dict[tuple[str, str], Archive] = {}
    for stanza in text.split("\n\n"):
        fields = parse_fields(stanza.splitlines())
        if "Package" not in fields:
            continue
        version = fields.get("Version", "")
        key = qualify(fields["Package"], fields.get("Architecture", ""), native), version
        archives.setdefault(key, _archive(fields, version))
    return archives


def _archive(fields: Mapping[str, str], version: str) -> Archive:
    def related(*names: str) -> frozenset[str]:
        return _relations(",".join(fields.get(name, "") for name in names))

    return Archive(
        name=fields["Package"],
        arch=fields.get("Architecture", ""),
        version=version,
        source=fields.get("Source", fields["Package"]).partition(" ")[0],
        size_bytes=int(fields.get("Size", 0)),
        installed_bytes=int(fields.get("Installed-Size", 0)) * 1024,
        sha256=fields.get("SHA256", ""),
        depends=related("Pre-Depends", "Depends", "Recommends"),
        conflicts=related("Conflicts", "Breaks"),
        provides=related("Provides"),
    )


def parse_fields(lines: Iterable[str]) -> dict[str, str]:
    """A control stanza's fields, continuation lines left out."""
    pairs = (line.partition(":") for line in lines if line and not line[0].isspace())
    return {key: value.strip() for key, _, value in pairs}


def parse_simulation(text: str) -> Simulation:
    """`apt-get --simulate`: the lists before the transaction, and its steps."""
    steps = []
    lists: dict[str, frozenset[str]] = {}
    header = ""
    for line in text.splitlines():
        if line.startswith("  ") and header:
            lists[header] = lists[header] | frozenset(line.split())
            continue
        header = line[:-1] if line.endswith(":") else ""
        if header:
            lists[header] = frozenset()
        elif inst := _INST.match(line):
            package, old, new, origin, arch = inst.groups()
            steps.append(Simulated(package, arch, old or "", new, origin))
        elif remv := _REMV.match(line):
            steps.append(Simulated(remv.group(1), "", remv.group(2), "", ""))
    return Simulation(tuple(steps), lists)


def parse_audit(text: str) -> tuple[str, ...]:
    """Packages that `dpkg --audit` finds in the middle of something, with their state.

    Other paragraphs (a missing md5sums file, say) are flaws, not interruptions.
    """
    states = {
        "in a mess": "in a mess",
        "only half configured": "half-configured",
        "not yet configured": "unpacked",
        "only half installed": "half-installed",
        "triggers which": "triggers-awaited",
        "been triggered": "triggers-pending",
    }
    found = []
    state = paragraph = ""
    for line in text.splitlines():
        if line.startswith(" ") and state:
            found.append(f"{line.split()[0]} is {state}")
        elif line.strip() and not line.startswith(" "):
            paragraph = f"{paragraph} {line}"
            state = next((word for key, word in states.items() if key in paragraph), "")
        else:
            state = paragraph = ""
    return tuple(found)


def parse_kept_conffiles(log: str) -> tuple[str, ...]:
    """Configuration files that dpkg left as the machine had them."""
    kept = []
    name = ""
    for line in log.splitlines():
        if match := re.match(r"Configuration file '([^']+)'", line):
            name = match.group(1)
        elif "==> Keeping old config file" in line and name:
            kept.append(name)
            name = ""
    return tuple(kept)
