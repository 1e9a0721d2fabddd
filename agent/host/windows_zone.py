"""The time zone of a Windows machine, by the rule that Windows has for it now.

Windows has names of its own for zones, and a rule for each: when summer begins and ends.
That is all that a rule of POSIX says too, and `zoneinfo` reads those at the end of a zone's
file (RFC 9636). So such a file is made with nothing but the rule. Pure, but for the call.
"""

from __future__ import annotations

import io
import struct
import sys
from datetime import tzinfo
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from protocol.errors import InvalidError

_INFORMATION = struct.Struct("<i64s8Hi64s8Hi")
"""`TIME_ZONE_INFORMATION`: minutes from UTC, and for winter and summer a name, when it begins
(`SYSTEMTIME`), and the minutes that it adds."""

_COUNTS = struct.Struct(">4sc15x6I")
_KIND = struct.Struct(">i?B")


class Begin(NamedTuple):
    """When a season begins each year: `week` 1 to 5, of which 5 is the last; `day` 0 is Sunday."""

    month: int
    week: int
    day: int
    hour: int
    minute: int
    second: int


class Rule(NamedTuple):
    """Minutes behind UTC in winter and summer, and when each begins; None where there is one."""

    winter: int
    summer: int
    begins: tuple[Begin, Begin] | None


def parse_information(data: bytes) -> Rule:
    """Read a `TIME_ZONE_INFORMATION`; `InvalidError` when it can be none.

    Dates of one certain year are a rule for that year alone: none is read from them.
    """
    if len(data) != _INFORMATION.size:
        raise InvalidError(f"Windows told its time zone in {len(data)} bytes")
    bias, _, *rest = _INFORMATION.unpack(data)
    standard, standard_bias = rest[:8], rest[8]
    daylight, daylight_bias = rest[10:18], rest[18]
    winter, summer = bias + standard_bias, bias + daylight_bias
    if not all(-24 * 60 < minutes < 24 * 60 for minutes in (winter, summer)):
        raise InvalidError(f"Windows told a time zone of {winter} and {summer} minutes")
    if not standard[1] or not daylight[1] or standard[0] or daylight[0]:
        return Rule(winter, winter, None)
    return Rule(winter, summer, (_begin(standard), _begin(daylight)))


def _begin(words: list[int]) -> Begin:
    _, month, day, week, hour, minute, second, _ = words
    if not (1 <= month <= 12 and day <= 6 and 1 <= week <= 5 and hour <= 23):
        raise InvalidError(f"Windows told a season that begins at {words}")
    return Begin(month, week, day, hour, minute, second)


def render_rule(rule: Rule) -> str:
    """The rule as POSIX has it.

    >>> render_rule(Rule(-60, -120, (Begin(10, 5, 0, 3, 0, 0), Begin(3, 5, 0, 2, 0, 0))))
    '<W>-01:00<S>-02:00,M3.5.0/02:00:00,M10.5.0/03:00:00'
    """
    winter = f"<W>{_offset(rule.winter)}"
    if rule.begins is None:
        return winter
    back, forth = rule.begins
    return f"{winter}<S>{_offset(rule.summer)},{_date(forth)},{_date(back)}"


def _offset(minutes: int) -> str:
    sign = "-" if minutes < 0 else ""
    return f"{sign}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"


def _date(at: Begin) -> str:
    return f"M{at.month}.{at.week}.{at.day}/{at.hour:02}:{at.minute:02}:{at.second:02}"


def zone_of(rule: Rule) -> tzinfo:
    """The zone that has this rule for all years."""
    # Once as version 1, which nobody reads, and once as version 2 with the rule behind it.
    block = _COUNTS.pack(b"TZif", b"2", 0, 0, 0, 0, 1, 2)
    block += _KIND.pack(-rule.winter * 60, False, 0) + b"W\0"
    file = io.BytesIO(block + block + f"\n{render_rule(rule)}\n".encode())
    return ZoneInfo.from_file(file, key="Windows")


if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes

    _INVALID: Final = 0xFFFF_FFFF  # TIME_ZONE_ID_INVALID

    def windows_zone() -> tzinfo:
        """The zone that this machine is set to. `InvalidError` when Windows tells none."""
        room = ctypes.create_string_buffer(_INFORMATION.size)
        ask = ctypes.WinDLL("kernel32").GetTimeZoneInformation
        ask.restype = wintypes.DWORD
        if ask(room) == _INVALID:
            # Else what it left empty would be UTC.
            raise InvalidError("Windows tells no time zone")
        return zone_of(parse_information(room.raw))
