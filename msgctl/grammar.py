"""How the words after `msgctl` are read: tables of verbs and options, and one reader for all of them.

The verb is decided first: the first word that is no option (before it only the options that all verbs
know). Then its own table holds, and its options may stand anywhere: before, between and after the words.

- Verbs, sub-verbs and long options may be shortened as long as one alone begins so.
- `--name=VALUE`, `--name VALUE`, `-nVALUE`, `-n VALUE`; letters without a value may be joined (`-qf FILE`).
- An option whose value is optional takes it only after `=`, or joined to its letter; a *loose* one
  also takes a following number (`-n 5`, as journalctl does), another one the words that it names
  (`--wait stored`).
- `--` ends the options; `-` is a word.

argparse is not used: it cannot read options between the words of a sub-verb, and importing it takes
twice as long as everything that a plain send imports.
"""

from msgd.errors import UsageError

FLAG = ""


class Option:
    """One option. `value` is the name of its value in help, FLAG for none; `bare` its stand-in."""

    __slots__ = ("also", "bare", "help", "letter", "long", "loose", "many", "name", "value")

    def __init__(
        self,
        letter: str,
        long: str,
        value: str,
        help: str,
        *,
        bare: str = "",
        loose: bool = False,
        also: tuple[str, ...] = (),
        many: bool = False,
    ) -> None:
        self.letter = letter
        self.long = long
        self.name = long.replace("-", "_")
        self.value = value
        self.help = help
        self.bare = bare
        self.loose = loose
        self.also = also  # words that are its value where they follow it
        self.many = many  # may be given more than once: the values are a list


class Verb:
    """One verb: its words (`PEER`; `[TEXT]` may be left out; `INVITATION...` repeated), options, formats."""

    __slots__ = ("default", "formats", "help", "name", "options", "subverbs", "words")

    def __init__(
        self,
        name: str,
        help: str,
        *,
        words: tuple[str, ...] = (),
        options: tuple[Option, ...] = (),
        formats: tuple[str, ...] = (),
        subverbs: "tuple[Verb, ...]" = (),
        default: str = "",
    ) -> None:
        self.name = name
        self.help = help
        self.words = words
        self.options = options
        self.formats = formats  # the first is used where none is asked for
        self.subverbs = subverbs
        self.default = default  # the sub-verb where none is given


class Args:
    """What was read: the verb with its sub-verb (`peer ls`), words and options by name."""

    def __init__(self) -> None:
        self.verb: Verb | None = None
        self.path = ""
        self.words: list[str] = []
        self.given: dict[str, str] = {}
        self.lists: dict[str, list[str]] = {}
        self.has_end = False  # `--` was there, though maybe nothing behind it
        self.behind = 0  # so many of the words stood behind it

    def has(self, name: str) -> bool:
        """Whether this option was given."""
        return name in self.given

    def get(self, name: str) -> str | None:
        """The value of an option, or None; of several the last."""
        return self.given.get(name)

    def word(self, place: int) -> str | None:
        """A word by its place, or None."""
        return self.words[place] if place < len(self.words) else None


def read(argv: list[str], verbs: tuple[Verb, ...], everywhere: tuple[Option, ...], args: Args) -> None:
    """Read `argv` into `args`, which holds what was understood so far even if this raises UsageError.

    A `help` or `version` that is met ends it: what follows needs not be right.
    """
    rest = list(argv)
    options: tuple[Option, ...] = everywhere
    choice, kind = verbs, "verb"
    while rest:
        if args.has("help") or args.has("version"):
            return
        if _is_option(rest[0]):
            _take_option(rest, options, args)
        elif choice:
            verb = _one_of(rest.pop(0), choice, kind)
            options, choice, kind = _enter(verb, everywhere, args)
        elif rest[0] == "--":
            args.words += rest[1:]
            args.has_end, args.behind = True, len(rest) - 1
            break
        else:
            args.words.append(rest.pop(0))
    if args.verb and args.verb.default and not args.has("help"):
        _enter(_one_of(args.verb.default, args.verb.subverbs, ""), everywhere, args)
    if args.verb and not args.has("help"):
        _check_words(args.verb, args)


def _enter(
    verb: Verb, everywhere: tuple[Option, ...], args: Args
) -> tuple[tuple[Option, ...], tuple[Verb, ...], str]:
    """Go on with this verb's table: its options, the sub-verbs to choose from, what they are called."""
    args.verb = verb
    args.path = f"{args.path} {verb.name}".lstrip()
    return everywhere + verb.options, verb.subverbs, f"{verb.name} verb"


def _is_option(word: str) -> bool:
    return word.startswith("-") and word not in ("-", "--")


def _take_option(rest: list[str], options: tuple[Option, ...], args: Args) -> None:
    word = rest.pop(0)
    if word.startswith("--"):
        name, equals, value = word[2:].partition("=")
        option = _long(name, options)
        if option.value == FLAG and equals:
            raise UsageError(f"--{option.long} takes no value")
        _keep(args, option, f"--{option.long}", value if equals else None, rest)
        return
    letters = word[1:]
    while letters:
        option = _letter(letters[0], options, args)
        letters = letters[1:]
        if option.value == FLAG:
            args.given[option.name] = ""
        else:
            _keep(args, option, f"-{option.letter}", letters or None, rest)
            return


def _keep(args: Args, option: Option, shown: str, value: str | None, rest: list[str]) -> None:
    if option.value != FLAG and value is None:
        if option.bare:
            value = rest.pop(0) if rest and _is_value(option, rest[0]) else option.bare
        elif rest:
            value = rest.pop(0)
        else:
            raise UsageError(f"{shown} needs a value: {option.value}")
    args.given[option.name] = value or ""
    if option.many:
        args.lists.setdefault(option.name, []).append(value or "")


def _is_value(option: Option, word: str) -> bool:
    """Whether a word behind an option whose value is optional is meant for it."""
    return word in option.also or (option.loose and (word.isdigit() or word == "all"))


def _long(name: str, options: tuple[Option, ...]) -> Option:
    found = [option for option in options if option.long.startswith(name)]
    exact = [option for option in found if option.long == name]
    if len(exact or found) == 1:
        return (exact or found)[0]
    if found:
        raise UsageError(f"--{name} may be {_listed(['--' + option.long for option in found])}")
    raise UsageError(f"there is no option --{name} here", "options of a verb stand after it; see --help")


def _letter(letter: str, options: tuple[Option, ...], args: Args) -> Option:
    for option in options:
        if option.letter == letter:
            return option
    if args.verb is None:
        hint = "options of a verb stand after it; see --help"
    elif args.verb.words:
        hint = "words that begin with - stand after --"
    else:
        hint = f"see `msgctl {args.path} --help`"
    raise UsageError(f"there is no option -{letter} here", hint)


def _one_of(word: str, verbs: tuple[Verb, ...], kind: str) -> Verb:
    found = [verb for verb in verbs if verb.name.startswith(word)]
    exact = [verb for verb in found if verb.name == word]
    if len(exact or found) == 1:
        return (exact or found)[0]
    if found:
        raise UsageError(f"{word!r} may be {_listed([verb.name for verb in found])}")
    raise UsageError(f"there is no {kind} {word!r}", "there are " + ", ".join(verb.name for verb in verbs))


def _check_words(verb: Verb, args: Args) -> None:
    if verb.subverbs:
        return
    needed = [word for word in verb.words if not word.startswith("[")]
    if len(args.words) < len(needed):
        missing = needed[len(args.words)].removesuffix("...")
        raise UsageError(f"{args.path} needs {missing}", f"see `msgctl {args.path} --help`")
    if len(args.words) > len(verb.words) and not (verb.words and "..." in verb.words[-1]):
        extra = args.words[len(verb.words)]
        is_text = "[TEXT]" in verb.words
        hint = "a text of several words stands in quotes" if is_text else f"see `msgctl {args.path} --help`"
        raise UsageError(f"{args.path} does not take {extra!r}", hint)


def _listed(names: list[str]) -> str:
    return " or ".join((", ".join(names[:-1]), names[-1]))
