"""The calls about casts, as they are decoded; what they do is imported with the first of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from msgd.filecalls import GivenFile

if TYPE_CHECKING:
    from msgd.control import Control


class CastCall(msgspec.Struct):
    """Parameters of FileCast: a descriptor for each file, in their order."""

    group: str
    files: list[GivenFile]
    transfer: str


class BeginCall(msgspec.Struct):
    """The group again, and what was handed over."""

    group: str
    transfer: str


class CastsCall(msgspec.Struct):
    """One cast, or all."""

    id: str | None = None


class CastIdCall(msgspec.Struct):
    """A cast."""

    id: str


def cast(control: Control, call: CastCall, more: bool) -> None:
    """`FileCast`."""
    from msgd import broadcasting

    broadcasting.hand_over(control, call, more)


def begin(control: Control, call: BeginCall, more: bool) -> None:
    """`FileCastBegin`."""
    from msgd import broadcasting

    broadcasting.begin(control, call, more)


def casts(control: Control, call: CastsCall, more: bool) -> None:
    """`FileCasts`."""
    from msgd import broadcasting

    broadcasting.casts(control, call, more)


def cancel(control: Control, call: CastIdCall, more: bool) -> None:
    """`FileCastCancel`."""
    from msgd import broadcasting

    broadcasting.cancel(control, call, more)
