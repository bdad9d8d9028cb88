"""Which names a file of a store may have. Pure.

Relative paths of UTF-8 with "/" between the parts; where a directory may be meant, too, its name has a "/"
at the end. What is refused could leave the store, could not be shown, or is ours. Every refusal says why.
"""

import re

from msgd.errors import UsageError

NAME_BYTES = 1024
PART_BYTES = 255  # what file systems take
PARTS = 128  # of one name: each costs a descriptor while the tree is looked at
OURS = ".msgd"  # parts of files, jobs: at the top of the store
_is_plain = re.compile(r"(?:[\w-][\w.-]*/)*[\w-][\w.-]*", re.ASCII).fullmatch  # nearly all are

HINT = 'A name is a path within the store, as "backup/2026-11-21.tar": no "..", no "/" in front.'


def parts_of(name: str) -> list[str]:
    """The parts of a good name. Raises UsageError."""
    why = "" if len(name) <= PARTS and _is_plain(name) else _fault(name)
    if why:
        raise UsageError(f"{shown(name)} is no name for a file in a store: {why}.", HINT)
    return name.split("/")


def is_directory(name: str) -> bool:
    """Whether it is the name of a directory, where that may be."""
    return name.endswith("/")


def is_good(part: str) -> bool:
    """Whether one part of a name may be shown and asked for."""
    try:
        return bool(part) and "/" not in part and not _controls(part) and not _part_fault(part)
    except UnicodeEncodeError:
        return False


def shown(name: str) -> str:
    """A name for people, with what a terminal would obey escaped, at most 80 letters of it."""
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name[:80])
    return f'"{text}…"' if len(name) > 80 else f'"{text}"'


def _fault(name: str) -> str:
    """What is wrong with a name; empty: nothing."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "it is not UTF-8"
    if not name:
        return "it is empty"
    if size > NAME_BYTES:
        return f"it has {size} bytes, at most {NAME_BYTES} are allowed"
    if _controls(name):
        return "it has control characters"
    if name.startswith("/"):
        return "it is absolute"
    if name.startswith(OURS):
        return f'names that begin with "{OURS}" are msgd\'s own'
    parts = name.split("/")
    if len(parts) > PARTS:
        return f"it has {len(parts)} parts, at most {PARTS} are allowed"
    return next(filter(None, map(_part_fault, parts)), "")


def _controls(text: str) -> bool:
    return not text.isprintable() and any(ord(c) < 32 or 127 <= ord(c) < 160 for c in text)


def _part_fault(part: str) -> str:
    if part in (".", ".."):
        return f'it has a part "{part}"'
    if not part:
        return 'it has an empty part, as in "a//b" or "a/"'
    size = len(part.encode())
    return f"a part of it has {size} bytes, at most {PART_BYTES} are allowed" if size > PART_BYTES else ""
