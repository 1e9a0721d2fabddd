"""Say in which ways two entries of one path differ. Pure."""

from __future__ import annotations

from collections.abc import Callable

from protocol.vault.entry import Entry, Kind, as_file

_SHOWN = 80

SameContent = Callable[[Entry, Entry], bool]


def differences(old: Entry, new: Entry, same_content: SameContent) -> tuple[str, ...]:
    """In which ways two entries of one path differ, in words; none when they do not.

    `same_content` is asked of two files of one length whose content is kept in different
    places: the same bytes may be cut in other ways.
    """
    if old.mode >> 12 != new.mode >> 12:
        return ("type",)
    found = []
    if old.size != new.size or (_kept(old) != _kept(new) and not same_content(old, new)):
        found.append("content")
    pairs = {
        "target": (old.target, new.target),
        "device": (old.rdev, new.rdev),
        "mode": (old.mode, new.mode),
        "owner": (old.owner, new.owner),
        "time": (old.mtime_ns, new.mtime_ns),
        "attributes": (old.xattrs, new.xattrs),
        "links": (old.link_group, new.link_group),
        "creation": (old.born_ns, new.born_ns),
    }
    found += [word for word, (before, after) in pairs.items() if before != after]
    if old.streams != new.streams and _streams_differ(old, new, same_content):
        found.append("streams")
    if old.extensions != new.extensions:
        found += _other_extensions(dict(old.extensions), dict(new.extensions))
    return tuple(found)


def is_folder_time(old: Entry | None, new: Entry | None, what: tuple[str, ...]) -> bool:
    """Whether a folder alone has another time: something in it came or went, and is told."""
    if old is None or new is None or what != ("time",):
        return False
    return new.mode >> 12 == Kind.DIRECTORY


def _streams_differ(old: Entry, new: Entry, same_content: SameContent) -> bool:
    """By name, by length, or by content, which is read where its place does not tell."""
    if _listed(old) != _listed(new):
        return True
    return any(
        before != after
        and not same_content(as_file(before, old.mtime_ns), as_file(after, new.mtime_ns))
        for before, after in zip(old.streams, new.streams, strict=True)
    )


def _listed(entry: Entry) -> list[tuple[bytes, int]]:
    return [(stream.name, stream.size) for stream in entry.streams]


def _kept(entry: Entry) -> object:
    return entry.inline, entry.extents, entry.depth


def _other_extensions(old: dict[str, bytes], new: dict[str, bytes]) -> list[str]:
    """The names of what only some systems know: any name can come, so it is made harmless."""
    names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    shown = [name[:_SHOWN] if name.isprintable() else ascii(name)[:_SHOWN] for name in names]
    return shown[:_SHOWN]
