"""Make the directory trees that the comparisons run on: seeded, so everybody has the same.

`python -m bench.trees small DIR` writes 200,000 files of 0.76 GB in 4,040 directories,
`python -m bench.trees large DIR` four files of 2.2 GB. Half of the small files' sizes
are below 2 KiB, the largest below 256 KiB, as in source trees and home directories;
three quarters of the bytes are text that compresses about threefold, the rest does not.
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

SMALL_FILES = 200_000
SMALL_BYTES = 760_000_000
FILES_PER_DIRECTORY = 50
POOL_BYTES = 48 * 1024 * 1024
LARGE_BYTES = 2_200_000_000
_SIGMA = 1.15
_BLOCK = 4 * 1024 * 1024


def text_pool(seed: random.Random, size: int) -> bytes:
    """Text-like bytes: words of a made-up language by a skewed frequency, in lines."""
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    weights = [1 / (rank + 2) for rank in range(len(letters))]
    words = ["".join(seed.choices(letters, weights, k=seed.randint(2, 11))) for _ in range(20_000)]
    frequency = [1 / (rank + 3) for rank in range(len(words))]
    parts: list[str] = []
    length = 0
    while length < size:
        line = " ".join(seed.choices(words, frequency, k=2_000)).replace(" et ", ";\n    ")
        parts.append(line)
        length += len(line) + 1
    return "\n".join(parts).encode()[:size]


def small_tree(
    target: Path, *, files: int = SMALL_FILES, total: int = SMALL_BYTES, seed: int = 1
) -> int:
    """Write `files` small files of about `total` bytes below `target`; the bytes written."""
    source = random.Random(seed)
    pool = text_pool(source, min(POOL_BYTES, max(total // 8, 1024 * 1024)))
    noise = source.randbytes(min(POOL_BYTES, max(total // 8, 1024 * 1024)))
    sizes = [source.lognormvariate(0, _SIGMA) for _ in range(files)]
    scale = total / sum(sizes)
    written = 0
    for number, share in enumerate(sizes):
        size = min(int(share * scale), 255 * 1024)
        place, index = divmod(number, FILES_PER_DIRECTORY)
        directory = target / f"area{place // 100:03}" / f"part{place % 100:02}"
        if index == 0:
            directory.mkdir(parents=True, exist_ok=True)
        stock = noise if source.random() < 0.25 else pool
        start = source.randrange(max(1, len(stock) - size))
        content = b"%08x\n" % source.getrandbits(32) + stock[start : start + size]
        content = content[:size]
        path = os.fsencode(directory / f"file{index:02}.{'bin' if stock is noise else 'txt'}")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            os.write(descriptor, content)
        finally:
            os.close(descriptor)
        written += size
    return written


def large_files(target: Path, *, total: int = LARGE_BYTES, seed: int = 2) -> int:
    """Write four files of `total` bytes: an image, a log, a database dump, an archive."""
    source = random.Random(seed)
    target.mkdir(parents=True, exist_ok=True)
    pool = text_pool(source, max(min(POOL_BYTES, total // 8), 1024 * 1024))
    shares = {
        "disk.img": (0.35, 0.5),
        "syslog": (0.2, 1.0),
        "dump.sql": (0.2, 0.9),
        "old.zip": (0.25, 0.0),
    }
    written = 0
    for name, (share, text) in shares.items():
        left = int(total * share)
        with (target / name).open("xb") as file:
            while left > 0:
                size = min(left, source.randint(_BLOCK // 64, _BLOCK))
                if source.random() < text:
                    start = source.randrange(max(1, len(pool) - size))
                    block = b"%016x\n" % source.getrandbits(64) + pool[start : start + size]
                    # A rotation per stretch keeps zstd and the cutter from seeing repeats.
                    shift = source.randrange(1, 26)
                    block = block[:size].translate(_rotation(shift, source))
                else:
                    block = source.randbytes(size)
                file.write(block)
                left -= len(block)
                written += len(block)
    return written


def _rotation(shift: int, source: random.Random) -> bytes:
    table = list(range(256))
    letters = [*range(97 + shift, 123), *range(97, 97 + shift)]
    first, second = source.sample(range(26), 2)
    letters[first], letters[second] = letters[second], letters[first]
    table[97:123] = letters
    return bytes(table)


def main() -> int:
    """Write one of the two trees."""
    if len(sys.argv) != 3 or sys.argv[1] not in ("small", "large"):
        print("usage: python -m bench.trees small|large DIRECTORY", file=sys.stderr)
        return 2
    target = Path(sys.argv[2])
    written = small_tree(target) if sys.argv[1] == "small" else large_files(target)
    print(f"{written:,} bytes below {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
