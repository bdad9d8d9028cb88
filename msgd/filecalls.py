"""The calls about files, as they are decoded; what they do is imported with the first of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec

if TYPE_CHECKING:
    from msgd.control import Control

Patience = Annotated[int, msgspec.Meta(ge=0, le=366 * 86_400_000)] | None
Transfer = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class ListCall(msgspec.Struct):
    """Whose store (null: this node's), and which names."""

    peer: str | None = None
    pattern: str | None = None
    recursive: bool | None = None
    timeout_ms: Patience = None


class GivenFile(msgspec.Struct):
    """A name in the store; `have`: bytes that the descriptor has of it already."""

    name: str
    have: Annotated[int, msgspec.Meta(ge=0)] | None = None


class FerryCall(msgspec.Struct):
    """Parameters of FilePut and FileGet: a descriptor for each file, in their order."""

    files: list[GivenFile]
    transfer: Transfer
    peer: str | None = None
    timeout_ms: Patience = None

    @property
    def way(self) -> tuple[object, ...]:
        """Calls in which this is the same may be one run."""
        return (self.transfer, self.peer, self.timeout_ms)


class DupCall(msgspec.Struct):
    """A name, and the one of the copy."""

    name: str
    new: str
    transfer: Transfer
    peer: str | None = None
    timeout_ms: Patience = None


class RemoveCall(msgspec.Struct):
    """A file, or with `recursive` a tree."""

    name: str
    transfer: Transfer
    peer: str | None = None
    recursive: bool | None = None
    timeout_ms: Patience = None


def ls(control: Control, call: ListCall, more: bool) -> None:
    """`FileList`."""
    from msgd import filing

    filing.ls(control, call, more)


def dup(control: Control, call: DupCall, more: bool) -> None:
    """`FileDup`."""
    from msgd import filing

    filing.dup(control, call, more)


def remove(control: Control, call: RemoveCall, more: bool) -> None:
    """`FileRemove`."""
    from msgd import filing

    filing.remove(control, call, more)


def put(control: Control, call: FerryCall, more: bool) -> None:
    """`FilePut`."""
    from msgd import ferrying

    ferrying.put(control, call, more)


def get(control: Control, call: FerryCall, more: bool) -> None:
    """`FileGet`."""
    from msgd import ferrying

    ferrying.get(control, call, more)
