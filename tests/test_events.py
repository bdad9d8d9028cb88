"""The table of events: sound in itself, and the same as what the program writes."""

import ast
import functools
import re
import string
from pathlib import Path
from uuid import UUID

import pytest

from msgd.events import EVENTS, LEVELS

SOURCES = sorted((Path(__file__).parent.parent / "msgd").rglob("*.py"))


@functools.cache
def written_names(source: Path) -> list[tuple[int, str]]:
    """Line and name of every `event("…")`, `journal.event("…")`, `self._event("…")` in a file."""
    text, found = source.read_text(), []
    for node in ast.walk(ast.parse(text if "event" in text else "")):
        if isinstance(node, ast.Call) and node.args:
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            first = node.args[0]
            if name.lstrip("_") in ("event", "is_shown") and isinstance(first, ast.Constant):
                found.append((node.lineno, str(first.value)))
    return found


def test_every_event_that_is_written_stands_in_the_table() -> None:
    """An unknown name would be a KeyError at the worst moment."""
    unknown = [
        f"{source.name}:{line} {name}"
        for source in SOURCES
        for line, name in written_names(source)
        if name not in EVENTS
    ]
    assert unknown == []


def test_the_search_for_names_finds_them() -> None:
    """Names are found in the forms in which they are written: the test above looks at something."""
    names = {name for source in SOURCES for _, name in written_names(source)}
    assert {"child.started", "pidfile.replaced", "events.dropped", "index.rebuilt"} <= names


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_has_name_id_level_and_sentence_in_form(name: str) -> None:
    """`noun.verb_past`, a UUID without dashes, a known level, a sentence whose fields are words."""
    kind = EVENTS[name]
    assert re.fullmatch(r"[a-z]+\.[a-z]+(_[a-z]+)*", name)
    assert UUID(kind.message_id).hex == kind.message_id
    assert kind.level in LEVELS
    assert kind.text.isascii()
    assert all(field.isidentifier() for field in re.findall(r"\{(.*?)\}", kind.text))


def test_no_two_events_share_an_id() -> None:
    """A MESSAGE_ID stands for one kind of event for good."""
    assert len({kind.message_id for kind in EVENTS.values()}) == len(EVENTS)


def test_every_event_of_the_table_is_written_somewhere() -> None:
    """The table tells what msgd does, not what it may do one day."""
    text = "".join(source.read_text() for source in SOURCES if source.name != "events.py")
    assert [name for name in EVENTS if f'"{name}"' not in text] == []


def test_who_writes_an_event_gives_the_fields_of_its_sentence() -> None:
    """A field that nobody gives would show as "?". Calls that pass `**fields` on are not looked at."""
    gaps = []
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text())):
            if not (isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant)):
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            name, given = node.args[0].value, {keyword.arg for keyword in node.keywords}
            if called.lstrip("_") == "event" and name in EVENTS and None not in given:
                needed = {field for _, field, _, _ in string.Formatter().parse(EVENTS[name].text) if field}
                gaps += [f"{source.name}:{node.lineno} {name}: {field}" for field in needed - given]
    assert gaps == []
