"""Write security descriptors as text, in the words that Windows has for them (SDDL).

For people: rules that are kept unread are shown as their bytes, which Windows does not take.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from agent.metadata.windows import security
from agent.metadata.windows.security import Ace, Acl, Descriptor, Sid

_KINDS: Final = {0: "A", 1: "D", 2: "AU", 3: "AL", 0x11: "ML", 0x13: "SP"}
_FLAGS: Final = {
    0x01: "OI",
    0x02: "CI",
    0x04: "NP",
    0x08: "IO",
    0x10: "ID",
    0x40: "SA",
    0x80: "FA",
}
_RIGHTS: Final = {
    0x1F01FF: "FA",
    0x120089: "FR",
    0x120116: "FW",
    0x1200A0: "FX",
    0x10000000: "GA",
    0x20000000: "GX",
    0x40000000: "GW",
    0x80000000: "GR",
}
_LABEL_RIGHTS: Final = {1: "NW", 2: "NR", 4: "NX"}
_SIDS: Final = {
    "S-1-1-0": "WD",
    "S-1-3-0": "CO",
    "S-1-3-1": "CG",
    "S-1-5-2": "NU",
    "S-1-5-4": "IU",
    "S-1-5-6": "SU",
    "S-1-5-7": "AN",
    "S-1-5-10": "PS",
    "S-1-5-11": "AU",
    "S-1-5-18": "SY",
    "S-1-5-19": "LS",
    "S-1-5-20": "NS",
    "S-1-5-32-544": "BA",
    "S-1-5-32-545": "BU",
    "S-1-5-32-546": "BG",
    "S-1-16-4096": "LW",
    "S-1-16-8192": "ME",
    "S-1-16-12288": "HI",
    "S-1-16-16384": "SI",
}


def text(descriptor: Descriptor) -> str:
    """One line of a descriptor.

    >>> text(security.laid_out(security.DACL_PRESENT, owner=Sid(5, (32, 544))))
    'O:BAD:NO_ACCESS_CONTROL'
    """
    owner = f"O:{_sid(descriptor.owner)}" if descriptor.owner else ""
    group = f"G:{_sid(descriptor.group)}" if descriptor.group else ""
    control = descriptor.control
    dacl = _list("D:", control, descriptor.dacl) if control & security.DACL_PRESENT else ""
    # The flags of a system list are those of an access list, one bit higher but for presence.
    flags = control >> 1 & 0x1500
    sacl = _list("S:", flags, descriptor.sacl) if control & security.SACL_PRESENT else ""
    return owner + group + dacl + sacl


def _list(head: str, control: int, acl: Acl | None) -> str:
    flags = _words(control & 0x1500, {0x1000: "P", 0x0100: "AR", 0x0400: "AI"})
    return head + flags + ("NO_ACCESS_CONTROL" if acl is None else "".join(map(_ace, acl.aces)))


def _ace(ace: Ace) -> str:
    if ace.kind not in _KINDS:
        return f"({ace.kind:#04x};{_words(ace.flags, _FLAGS)};{ace.body.hex()})"
    rights = _LABEL_RIGHTS if ace.kind == 0x11 else _RIGHTS
    mask = rights.get(ace.mask, f"{ace.mask:#x}")
    return f"({_KINDS[ace.kind]};{_words(ace.flags, _FLAGS)};{mask};;;{_sid(ace.sid)})"


def _sid(sid: Sid) -> str:
    return _SIDS.get(sid.text, sid.text)


def _words(bits: int, words: Mapping[int, str]) -> str:
    return "".join(word for bit, word in words.items() if bits & bit)
