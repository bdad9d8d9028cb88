"""Questions to a person on a terminal: asked on standard error, answered by a line on standard input."""

import os

from msgctl.output import complain

MAX_ANSWER = 4096
TRIES = 3


def can_ask() -> bool:
    """Whether somebody is there who reads and answers."""
    return os.isatty(0) and os.isatty(2)


def choose(question: str, letters: str) -> str:
    """One of `letters`; empty: the line was empty, the input has ended, or no letter came three times."""
    for _ in range(TRIES):
        answer = line(question)
        if answer is None or not answer:
            break
        if answer[0].lower() in letters:
            return answer[0].lower()
        complain(f"  Please answer with one of {', '.join(letters)}.\n")
    return ""


def line(question: str) -> str | None:
    """A line, stripped; None at the end of the input."""
    complain(question)
    data = os.read(0, MAX_ANSWER)
    if not data:
        complain("\n")
        return None
    return data.decode("utf-8", "replace").strip()


def paragraph(text: str, indent: str = "  ", width: int = 96) -> str:
    """Lines of a sentence or several, indented."""
    lines = [indent]
    for word in text.split():
        if len(lines[-1]) + 1 + len(word) > width and lines[-1].strip():
            lines.append(indent)
        lines[-1] += word if lines[-1] == indent else f" {word}"
    return "\n".join(lines) + "\n"
