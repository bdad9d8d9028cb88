"""The command line is read as its tables say: verbs and options by prefix, options anywhere."""

import pytest

from msgctl.cli import EVERYWHERE, HANDLERS, VERBS
from msgctl.examples import EXAMPLES
from msgctl.grammar import Args, Verb, read
from msgctl.help import text
from msgctl.lab import HANDLERS as LAB_HANDLERS
from msgctl.manual import CODES, DESCRIPTIONS
from msgd.errors import UsageError


def parsed(*words: str) -> Args:
    args = Args()
    read(list(words), VERBS, EVERYWHERE, args)
    return args


def refused(*words: str) -> str:
    with pytest.raises(UsageError) as caught:
        parsed(*words)
    return f"{caught.value.message} | {caught.value.hint}"


def paths(verbs: tuple[Verb, ...] = VERBS, before: str = "") -> list[str]:
    """Every verb that can be run, as `peer ls`."""
    found = []
    for verb in verbs:
        path = f"{before} {verb.name}".lstrip()
        found += paths(verb.subverbs, path) if verb.subverbs else [path]
    return found


@pytest.mark.parametrize(
    "line",
    [
        "send node2 --wait=queued hola",
        "send --wait=queued node2 hola",
        "send node2 hola --wait=queued",
    ],
)
def test_options_stand_before_between_and_after_the_words(line: str) -> None:
    """All three say the same."""
    args = parsed(*line.split())
    assert (args.path, args.words, args.get("wait")) == ("send", ["node2", "hola"], "queued")


def test_value_that_may_be_left_out_is_taken_after_equals_only() -> None:
    """So that `send --wait node2 hola` sends to node2."""
    args = parsed("send", "--wait", "node2", "hola")
    assert (args.words, args.get("wait")) == (["node2", "hola"], "stored")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-n"], "10"),
        (["-n", "5"], "5"),
        (["-n5"], "5"),
        (["-fn5"], "5"),
        (["-n", "all"], "all"),
        (["--lines"], "10"),
        (["--lines=7"], "7"),
        (["-n", "-f"], "10"),
    ],
)
def test_n_is_read_as_journalctl_reads_it(words: list[str], expected: str) -> None:
    """Alone it is 10; a number may be joined to it or follow it."""
    assert expected == parsed("log", *words).get("lines")


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("se node2 hi", "send"),
        ("l", None),
        ("log", "log"),
        ("st", "status"),
        ("peer", "peer ls"),
        ("p l", None),
        ("pee l", "peer ls"),
        ("pair", "pair ls"),
        ("id", "identity show"),
        ("pe ren a b", "peer rename"),
        ("p r a", None),
        ("lab", "lab ls"),
        ("la u 2", "lab up"),
        ("rel", "reload"),
        ("nothing", None),
    ],
)
def test_verbs_may_be_shortened_while_unique(line: str, path: str | None) -> None:
    """Sub-verbs as well; what is not unique or not there names what there is."""
    if path is None:
        assert "may be" in (said := refused(*line.split())) or "there are" in said
    else:
        assert path == parsed(*line.split()).path


def test_long_options_may_be_shortened_while_unique() -> None:
    """`--time` is --timeout; `--s` of log is both --since, --state and --socket."""
    assert parsed("send", "a", "b", "--time", "5s").get("timeout") == "5s"
    assert "--since" in refused("log", "--s", "x")


def test_options_of_all_verbs_stand_anywhere() -> None:
    """`-o`, `--socket` and `--node` before and after the verb; the later one counts."""
    args = parsed("-o", "json", "--socket", "/a", "peer", "-ocat", "ls", "--socket=/b")
    assert (args.path, args.get("output"), args.get("socket")) == ("peer ls", "cat", "/b")


def test_double_dash_ends_the_options() -> None:
    """A text may begin with a hyphen; a hyphen alone is a word."""
    assert parsed("send", "-q", "a", "--", "--help").words == ["a", "--help"]
    assert parsed("send", "a", "-").words == ["a", "-"]
    assert parsed("send", "-q", "a", "--", "--help").behind == 1
    assert parsed("send", "a", "b").behind == 0


def test_values_may_begin_with_a_hyphen() -> None:
    """As in `-S -2h`."""
    assert parsed("log", "-S", "-2h").get("since") == "-2h"


def test_headers_are_collected() -> None:
    """An option that may come several times keeps them all."""
    assert parsed("send", "p", "t", "-H", "a=1", "--header=b=2").lists["header"] == ["a=1", "b=2"]


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("send", "send needs PEER"),
        ("send a b c", "send does not take 'c' | a text of several words stands in quotes"),
        ("send a b -x", "there is no option -x"),
        ("send a b --nope", "there is no option --nope"),
        ("-q send a b", "options of a verb stand after it"),
        ("send a b -q=1", "there is no option -="),
        ("send a b --quiet=1", "--quiet takes no value"),
        ("send a --timeout", "--timeout needs a value: TIME"),
        ("peer add", "peer add needs NAME"),
        ("status x", "status does not take 'x' | see `msgctl status --help`"),
        ("log -u msgd", "there is no option -u here | see `msgctl log --help`"),
    ],
)
def test_wrong_line_is_refused_with_a_sentence(line: str, part: str) -> None:
    """It names what was read and, where that helps, what to do."""
    assert part in refused(*line.split())


def test_help_is_there_for_every_verb() -> None:
    """A page with name, synopsis, description, options and exit codes; no line beyond 80 columns."""
    for path in ["", *DESCRIPTIONS]:
        args = parsed(*path.split(), "--help")
        page = text(args.path, args.verb, VERBS, EVERYWHERE)
        assert all(part in page for part in ("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS"))
        assert [line for line in page.splitlines() if len(line) > 80] == []
        for option in args.verb.options if args.verb else ():
            assert f"--{option.long}" in page and "{" not in page


def test_every_verb_has_its_handler_and_its_page() -> None:
    """No table knows a verb that another does not."""
    assert set(paths()) == set(HANDLERS) | set(LAB_HANDLERS)
    assert {*paths(), *(verb.name for verb in VERBS)} == set(DESCRIPTIONS)
    assert set(EXAMPLES) | set(CODES) <= {"", *DESCRIPTIONS}


def test_help_does_not_mind_the_rest_of_the_line() -> None:
    """`msgctl send --help` needs no PEER."""
    assert parsed("send", "--help").has("help")
    assert parsed("send", "-h", "--nonsense").has("help")
    assert parsed("--version").has("version")
