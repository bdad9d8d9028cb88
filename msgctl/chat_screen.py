"""A chat on a terminal: what comes is printed above the line that is being typed, and tears nothing.

The program draws only the last lines of the terminal, its *region*: one's own lines that are on their way,
the line that is being typed, and how the peer stands. Everything else is ordinary output that scrolls away as
always, so the terminal's own scrolling, search and copying work. To print, the region is erased, the text
written, and the region drawn again below it; nothing is drawn where nothing has changed.

The cursor's place is never asked for: on a slow link that would cost a round trip, and some terminals do not
answer.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prompt_toolkit.application import Application
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.data_structures import Size
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.input.vt100 import Vt100Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.layout import (
    BufferControl,
    ConditionalContainer,
    Dimension,
    FormattedTextControl,
    HSplit,
    Layout,
    Window,
)
from prompt_toolkit.output.vt100 import Vt100_Output

from msgctl.columns import cut, width

REGION_SHARE = 3  # of the terminal's rows the lines on their way take one part in so many
TYPING_ROWS = 8  # of a pasted text; more scrolls inside
REGION_ROWS = 3  # of the region, as a rule
AGAIN_ROWS = 200  # of what was printed: enough to fill a terminal again


class Region:
    """The terminal of a chat.

    `entered` is told every text that was entered; `left` that the person wants to leave. `lines` gives
    the newest of the lines on their way, for so many columns and rows, `count` how many there are; `status`
    is the row below.
    """

    def __init__(
        self,
        prompt: Callable[[], str],
        lines: Callable[[int, int], list[str]],
        count: Callable[[], int],
        status: Callable[[], str],
        *,
        entered: Callable[[str], None],
        left: Callable[[], None],
    ) -> None:
        import sys

        self._prompt = prompt
        self._lines = lines
        self._count = count
        self._status = status
        self._entered = entered
        self._left = left
        self._drawn: tuple[list[str], str] | None = None  # what it said when it was drawn last
        self._printed: deque[str] = deque(maxlen=AGAIN_ROWS)
        self.is_gone = False  # nobody has the terminal any more
        self._output = _Output(
            sys.stdout, _size, term=os.environ.get("TERM"), enable_bell=False, enable_cpr=False
        )
        self.buffer = Buffer(
            multiline=False,
            history=InMemoryHistory(),
            accept_handler=self._accept,
        )
        self._app = _App(
            self._resized,
            layout=Layout(self._layout()),
            key_bindings=self._keys(),
            output=self._output,
            input=Vt100Input(sys.stdin),
            erase_when_done=True,
            terminal_size_polling_interval=None,
        )

    async def run(self) -> None:
        """Draw and read keys, until `close`."""
        try:
            await self._app.run_async(set_exception_handler=False, handle_sigint=False)
        except (EOFError, OSError):
            self.is_gone = True

    def close(self) -> None:
        """End `run`; the region is erased."""
        if self._app.is_running and not self._app.is_done:
            self._app.exit()

    def print(self, text: str) -> None:
        """Write whole lines above the region."""
        self._printed.extend(text.splitlines(keepends=True))
        if text:
            self._draw_below(text)

    def changed(self) -> None:
        """Draw what has changed, if anything has."""
        before, now = self._drawn, self._looks()
        if before is not None and len(before[0]) > len(now[0]):
            self._draw_below("")  # what is lower now would leave empty rows
        elif before != now:
            self._drawn = now
            self._app.invalidate()

    def _draw_below(self, text: str) -> None:
        """Erase the region, write `text`, draw the region below it, all at once."""
        if self.is_gone:
            return
        try:
            with self._output.at_once():
                if self._app.is_running:
                    self._app.renderer.erase()
                self._output.write_raw(text.replace("\n", "\r\n"))
                self._app._redraw()  # by `invalidate` it would come later, and the prompt be away meanwhile
        except OSError:
            self.is_gone = True
        self._drawn = self._looks()

    def _looks(self) -> tuple[list[str], str]:
        """What the region has to say, beside what is typed."""
        return self._shown_lines(_size()), self._status()

    def _accept(self, buffer: Buffer) -> bool:
        """Whether the text stays where it is typed."""
        self._entered(buffer.text)
        return False

    # --- what it looks like -------------------------------------------------------------------------------

    def _layout(self) -> HSplit:
        is_any = Condition(lambda: self._count() > 0)
        typing = Window(
            BufferControl(self.buffer),
            height=Dimension(min=1, max=TYPING_ROWS),
            dont_extend_height=True,
            wrap_lines=True,
            get_line_prefix=self._prefix,
        )
        below = Window(FormattedTextControl(self._below), height=1, dont_extend_height=True)
        return HSplit([_if(is_any, self._above), typing, below])

    def _above(self) -> StyleAndTextTuples:
        return [("dim", "\n".join(self._shown_lines(_size())))]

    def _below(self) -> StyleAndTextTuples:
        return [("reverse", f" {self._status()} ")]

    def _prefix(self, row: int, wraps: int) -> StyleAndTextTuples:
        prompt = f"{self._prompt()}> "
        return [("bold", prompt if not row and not wraps else " " * width(prompt))]

    def _shown_lines(self, size: Size) -> list[str]:
        """The newest of the lines on their way, as many as there is room for."""
        room, count = max(1, size.rows // REGION_SHARE), self._count()
        if count <= room:
            return self._lines(size.columns, count)
        more = cut(f"({count - room + 1} more lines are on their way)", size.columns)
        return [more, *self._lines(size.columns, room - 1)]

    # --- keys ---------------------------------------------------------------------------------------------

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()
        is_empty = Condition(lambda: not self.buffer.text)

        @keys.add("c-d", filter=is_empty)
        @keys.add("c-c", filter=is_empty)
        def _(event: KeyPressEvent) -> None:
            self._left()

        @keys.add("c-c", filter=~is_empty)
        def _(event: KeyPressEvent) -> None:
            self.buffer.reset()

        @keys.add("c-z")
        def _(event: KeyPressEvent) -> None:
            event.app.suspend_to_background()

        return keys

    def _resized(self, before: Size | None) -> bool:
        """Whether all was drawn anew: many terminals wrap a row anew that is longer than they are wide now.

        Where that may have happened to the region, its rows are not where they were. Then what is visible is
        erased (or, where it may be from before the chat, scrolled away), and what was printed last is printed
        once more.
        """
        size = _size()
        if before is None or self._longest(before) <= size.columns:
            return False
        is_ours = len(self._printed) >= before.rows
        self._output.write_raw("" if is_ours else f"\x1b[{size.rows};1H" + "\n" * size.rows)
        self._output.write_raw("\x1b[H\x1b[J")
        again = list(self._printed)[-max(1, size.rows - REGION_ROWS) :]
        self._output.write_raw("".join(again).replace("\n", "\r\n"))
        self._output.flush()
        return True

    def _longest(self, before: Size) -> int:
        """The width of the region's longest row, as it was drawn."""
        typed = min(before.columns, width(f"{self._prompt()}> {self.buffer.text}"))
        return max([typed, width(self._status()) + 2, *map(width, self._shown_lines(before))])


class _Output(Vt100_Output):
    """An output that can keep several steps back, to write them as one."""

    _is_kept_back = False

    def flush(self) -> None:
        """Write what there is, unless it is kept back."""
        if not self._is_kept_back:
            super().flush()

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """What is drawn inside is written at its end."""
        self._is_kept_back = True
        try:
            yield
        finally:
            self._is_kept_back = False
            self.flush()


class _App(Application[None]):
    """An application that asks first whether its rows are still where they were."""

    def __init__(self, resized: Callable[[Size | None], bool], **given: object) -> None:
        super().__init__(**given)  # type: ignore[arg-type]
        self._resized = resized

    def _on_resize(self) -> None:
        if self._resized(self.renderer._last_size):
            self.renderer.reset()
            self._redraw()
        else:
            super()._on_resize()


def _if(condition: Condition, text: Callable[[], StyleAndTextTuples]) -> ConditionalContainer:
    return ConditionalContainer(Window(FormattedTextControl(text), dont_extend_height=True), condition)


def _size() -> Size:
    try:
        columns, rows = os.get_terminal_size(1)
    except OSError:
        columns, rows = 0, 0
    return Size(rows=rows or 24, columns=columns or 80)
