"""`--help`: a manual page for each verb, put together from the grammar and the texts of `manual`.

Synopsis and options come from the tables in `verbs`, so they cannot be wrong.
"""

from _collections_abc import Iterable, Sequence

from msgctl.examples import EXAMPLES
from msgctl.grammar import FLAG, Option, Verb
from msgctl.manual import CODES, DESCRIPTIONS, ENVIRONMENT, EXIT_CODES, OVERVIEW

WIDTH = 79
LEFT = 18  # the column of the options' texts


def text(path: str, verb: Verb | None, verbs: tuple[Verb, ...], everywhere: tuple[Option, ...]) -> str:
    """The manual page of a verb, or of msgctl itself."""
    if verb is None:
        return _overview(verbs, everywhere)
    title = f"msgctl {path}"
    parts = [
        ("NAME", [f"{title} - {verb.help}"]),
        ("SYNOPSIS", _synopsis(title, verb)),
        ("DESCRIPTION", _prose(DESCRIPTIONS[path])),
        ("VERBS", _pairs((f"{sub.name} {' '.join(sub.words)}".rstrip(), sub.help) for sub in verb.subverbs)),
        ("OPTIONS", _options((*verb.options, *everywhere), verb)),
        ("EXIT STATUS", _codes(CODES.get(path) or CODES.get(path.split()[0]) or (0, 1, 2, 3, 7))),
        ("EXAMPLES", _examples(path)),
    ]
    return _page(parts)


def _overview(verbs: tuple[Verb, ...], everywhere: tuple[Option, ...]) -> str:
    named = [(f"{verb.name} {' '.join(verb.words)}".rstrip(), verb.help) for verb in verbs]
    return _page(
        [
            ("NAME", ["msgctl - send messages to other machines, and see what became of them"]),
            ("SYNOPSIS", ["msgctl [--socket PATH | --node NAME] [-o FORMAT] VERB [ARGUMENT]..."]),
            ("DESCRIPTION", _prose(OVERVIEW)),
            ("VERBS", [*_pairs(named), "", "`msgctl VERB --help` tells more of each."]),
            ("OPTIONS", _options(everywhere, None)),
            ("ENVIRONMENT", _pairs(ENVIRONMENT)),
            ("EXIT STATUS", _codes(CODES[""])),
            ("EXAMPLES", _examples("")),
        ]
    )


def _page(parts: Iterable[tuple[str, Sequence[str]]]) -> str:
    sections = []
    for title, lines in parts:
        if lines:
            body = "".join(f"    {line}".rstrip() + "\n" for line in lines)
            sections.append(f"{title}\n{body}")
    return "\n".join(sections)


def _prose(text: str) -> list[str]:
    """Paragraphs, filled anew."""
    filled = [_wrapped(paragraph, WIDTH - 4) for paragraph in text.split("\n\n")]
    return [line for lines in filled for line in (*lines, "")][:-1]


def _synopsis(title: str, verb: Verb) -> list[str]:
    if verb.subverbs:
        return [f"{title} {sub.name} {' '.join(sub.words)}".rstrip() for sub in verb.subverbs]
    words = " ".join(f"{word[:-1]}|-]" if word == "[TEXT]" else word for word in verb.words)
    return [" ".join(part for part in (title, "[OPTION]...", words) if part)]


def _options(options: Iterable[Option], verb: Verb | None) -> list[str]:
    lines = []
    formats = " ".join(dict.fromkeys(verb.formats)) if verb and verb.formats else "short or json"
    for option in options:
        help = option.help.replace("{formats}", formats)
        lines += _entry(_spelling(option), help)
    return lines


def _spelling(option: Option) -> str:
    long = f"--{option.long}"
    if option.value != FLAG:
        long += f"[={option.value}]" if option.bare else f"={option.value}"
    return f"-{option.letter}, {long}" if option.letter else long


def _pairs(rows: Iterable[tuple[str, str]]) -> list[str]:
    return [line for name, help in rows for line in _entry(name, help)]


def _codes(codes: Iterable[int]) -> list[str]:
    return [f"{code:<5}{EXIT_CODES[code]}" for code in codes]


def _examples(path: str) -> list[str]:
    named = [
        (what if what.endswith("?") else f"{what}:", command) for command, what in EXAMPLES.get(path, ())
    ]
    return [line for what, command in named for line in (what, f"    {command}")]


def _entry(name: str, help: str) -> list[str]:
    """A name and its text beside it, or below it where the name is long."""
    lines = _wrapped(help, WIDTH - LEFT - 4)
    if len(name) < LEFT - 1:
        return [name.ljust(LEFT) + lines[0], *(" " * LEFT + line for line in lines[1:])]
    return [name, *(" " * LEFT + line for line in lines)]


def _wrapped(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return lines
