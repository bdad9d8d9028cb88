"""The key after this one: how `node.key` is replaced so that a stop at any instant loses neither key.

1. `write_next`: the new key lies in `node.key.next`, on disk.
2. The log commits the rotation: from here on the new key is this node's.
3. `adopt_next`: renamed over `node.key`, on disk.

A start calls `settle_next`, which finishes 3 when the log holds the rotation, and forgets the new key when it
does not. A key from systemd's credentials is never rotated: there is no file to rename.
"""

import os

from msgd.errors import StorageRefused
from msgd.trust.identity import KEY_FILE, NodeKey, load, sync_directory, write_key

NEXT_FILE = "node.key.next"


def write_next(state_dir: str, key: NodeKey) -> None:
    """Keep the key to come beside the present one. Raises StorageRefused: nothing is kept then."""
    path = f"{state_dir}/{NEXT_FILE}"
    try:
        write_key(path, key)
        sync_directory(state_dir)
    except OSError as error:
        raise StorageRefused(
            f"{path}: the new key cannot be kept: {error.strerror}",
            f"make room, or let uid {os.geteuid()} write there; this node keeps its key",
        ) from error


def adopt_next(state_dir: str) -> None:
    """The kept key replaces the present one. Raises OSError; the next start then tries again."""
    os.rename(f"{state_dir}/{NEXT_FILE}", f"{state_dir}/{KEY_FILE}")
    sync_directory(state_dir)


def drop_next(state_dir: str) -> None:
    """Forget a kept key, if there is one. Raises OSError."""
    try:
        os.unlink(f"{state_dir}/{NEXT_FILE}")
    except FileNotFoundError:
        return
    sync_directory(state_dir)


def settle_next(state_dir: str, key: NodeKey, committed: bytes) -> NodeKey:
    """The key in use at a start: `key`, or the kept one where the log says so.

    `committed`: the identity that the log's last rotation of this node led to, empty for none. A key that is
    neither it nor kept was put there by a person, and stays. Raises OSError and ConfigError.
    """
    if committed in (b"", key.identity):
        drop_next(state_dir)
        return key
    path = f"{state_dir}/{NEXT_FILE}"
    if not (key.is_ours and os.path.lexists(path)):
        return key
    following = load(path)
    if following.identity != committed:
        return key
    adopt_next(state_dir)
    return following
