"""The processors: model, how many of what, microcode, known vulnerabilities.

Format: proc_cpuinfo(5), which each architecture fills in its own way; the kernel's
`/sys/devices/system/cpu`.
"""

from __future__ import annotations

from agent.inventory.section import Facts, Section
from agent.inventory.sources import Sources
from protocol.errors import UnavailableError

CPU = "/sys/devices/system/cpu"


class Cpu(Facts, frozen=True, kw_only=True):
    """`cores` and `sockets` are null where the kernel does not tell them apart."""

    model: str | None
    vendor: str | None
    sockets: int | None
    cores: int | None
    threads: int
    max_mhz: int | None
    microcode: str | None
    virtualised: bool
    vulnerabilities: dict[str, str]


def parse_cpuinfo(text: str) -> list[dict[str, str]]:
    """One mapping per block of `/proc/cpuinfo`; a block ends with an empty line."""
    blocks: list[dict[str, str]] = [{}]
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            blocks[-1][key.strip()] = value.strip()
        elif not line.strip() and blocks[-1]:
            blocks.append({})
    return [block for block in blocks if block]


def model_of(block: dict[str, str], board: dict[str, str]) -> str | None:
    """The model's name; on ARM the numbers of maker and part, since no name is given.

    >>> model_of({"CPU implementer": "0x41", "CPU part": "0xd0c"}, {})
    'implementer 0x41 part 0xd0c'
    """
    for key in ("model name", "cpu model", "cpu", "Processor"):
        if block.get(key):
            return block[key]
    if "CPU implementer" in block:
        return f"implementer {block['CPU implementer']} part {block.get('CPU part', 'unknown')}"
    return board.get("Hardware") or board.get("Model")


def cpu_of(blocks: list[dict[str, str]]) -> Cpu:
    """What the blocks of `/proc/cpuinfo` say; raises `UnavailableError` without a processor."""
    processors = [block for block in blocks if "processor" in block]
    if not processors:
        raise UnavailableError("/proc/cpuinfo describes no processor")
    first = processors[0]
    cores = {(block["physical id"], block["core id"]) for block in processors if _placed(block)}
    flags = first.get("flags", "").split()
    return Cpu(
        model=model_of(first, blocks[-1]),
        vendor=first.get("vendor_id"),
        sockets=len({socket for socket, _ in cores}) or None,
        cores=len(cores) or None,
        threads=len(processors),
        max_mhz=None,
        microcode=first.get("microcode"),
        virtualised="hypervisor" in flags,
        vulnerabilities={},
    )


def _placed(block: dict[str, str]) -> bool:
    return "physical id" in block and "core id" in block


def collect(sources: Sources) -> Cpu:
    """Read `/proc/cpuinfo`, the highest clock rate, and what the kernel says of known flaws."""
    import msgspec

    khz = sources.number(f"{CPU}/cpu0/cpufreq/cpuinfo_max_freq")
    gaps = {}
    vulnerabilities = {}
    try:
        for name in sources.listed(f"{CPU}/vulnerabilities"):
            vulnerabilities[name] = sources.line(f"{CPU}/vulnerabilities/{name}") or "unknown"
    except UnavailableError as error:
        gaps["vulnerabilities"] = str(error)
    return msgspec.structs.replace(
        cpu_of(parse_cpuinfo(sources.text("/proc/cpuinfo"))),
        max_mhz=None if khz is None else khz // 1000,
        vulnerabilities=vulnerabilities,
        gaps=gaps,
    )


SECTION = Section("cpu", 1, collect, every_s=86400)
