"""What became of the messages of places that a pass goes through; nothing where that cannot be known."""

from collections.abc import Callable, Sequence

from msgd.log.errors import Damaged
from msgd.states import Place, Span, States, is_single

Spans = dict[int, list[Span]]  # of places by their log offset, where only some of them fit


class Fates:
    """Asks `states`; tells damage to `on_damage`."""

    def __init__(self, states: States, on_damage: Callable[[Damaged], None]) -> None:
        self._states = states
        self._on_damage = on_damage

    def of(self, place: Place, states: States | None = None) -> list[Span]:
        """Of one place, as of now or as other states have it."""
        try:
            return (states or self._states).of(place)
        except Damaged as damaged:
            self._on_damage(damaged)
        except LookupError:
            pass  # vacuumed meanwhile
        return []

    def alone(self, places: Sequence[Place]) -> list[Span | None]:
        """Of single places, whose offsets go up or down: the one span of each."""
        down = len(places) > 1 and places[0].offset > places[-1].offset
        try:
            spans: list[Span | None] = [*self._states.alone(places[::-1] if down else places)]
        except (Damaged, LookupError):
            return [next(iter(self.of(place)), None) for place in places]
        return spans[::-1] if down else spans

    def having(self, places: Sequence[Place], state: str) -> Spans:
        """Of the places with messages in this state the spans that are."""
        singles = [place for place in places if is_single(place)]
        alone = {place.offset: span for place, span in zip(singles, self.alone(singles), strict=True)}
        found = {}
        for place in places:
            span = alone.get(place.offset)
            spans = [span for span in ([span] if span else self.of(place)) if span.state == state]
            if spans:
                found[place.offset] = spans
        return found
