"""Where the messages stand that the reports in a record are about.

A report names a message by its id. Reports follow soon: what the index does not know yet is looked for
backwards, until all are found.
"""

from collections.abc import Iterable, Iterator

from msgd import model
from msgd.log.errors import Damaged
from msgd.log.index import Location
from msgd.log.record import FLAG_REPORTS, Header
from msgd.matches import Match
from msgd.rows import Filter
from msgd.sieve import Sieve
from msgd.walk import Walk
from msgd.wire.reports import reports_of


def reported(walk: Walk, header: Header) -> Iterator[Location]:
    """The places of the messages that a record has reports about; none where it has no reports."""
    if not header.flags & FLAG_REPORTS:
        return
    try:
        left = {report.id for report in reports_of(walk.records.messages(header.offset))}
    except (Damaged, LookupError):
        return  # a pass over the history tells it
    direction = model.OUT if header.direction == model.IN else model.IN
    wanted = Filter(peer=walk.places.whose(header.peer), direction=direction, state=model.HANDLED)
    for matches in _matches(walk, wanted, left):
        for match in matches:
            if (match.place.peer, match.place.direction) == (wanted.peer, direction):
                yield from _among(match, left)
        if not left:
            return


def _matches(walk: Walk, wanted: Filter, ids: Iterable[bytes]) -> Iterator[Iterator[Match]]:
    """Places where such messages may stand: those that the index knows, then the others, the last first."""
    sieve, view = Sieve(wanted), walk.view
    if view.main is not None:
        known = {at for raw in ids for _, (at, _) in view.main.ids(raw.hex()) if at < view.floor}
        yield walk.opened(sorted(at for at in known if view.is_kept(at)), sieve)
    for places in walk.places.lists(wanted, view.floor, view.upto, reverse=True):
        yield walk.opened([place.offset for place in places], sieve)


def _among(match: Match, left: set[bytes]) -> Iterator[Location]:
    """Those of a place, which are then not looked for any more."""
    for index, message in enumerate(match.messages or ()):
        if message.id in left:
            left.discard(message.id)
            yield match.place.offset, index
