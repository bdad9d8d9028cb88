"""`--help`: a manual page for each verb, put together from the grammar and the texts below.

Synopsis and options come from the tables in `cli`, so they cannot be wrong; the prose, the examples and
the exit codes that a verb can end with stand here.
"""

from _collections_abc import Iterable, Sequence

from msgctl.grammar import FLAG, Option, Verb

WIDTH = 79
LEFT = 18  # the column of the options' texts

EXIT_CODES = {
    0: "what was asked for is done (a plain send: at least queued)",
    1: "something unexpected; the sentence says whether anything was kept",
    2: "the command line is wrong, or the message is over the limit",
    3: "msgd cannot be reached",
    4: "the peer is not trusted: not paired, or its key changed",
    5: "still queued: --wait was not reached in time",
    6: "a final failure: rejected, expired, cancelled, or too late to cancel",
    7: "no such peer or message",
    8: "the log cannot take it or cannot be read: full, read-only or damaged",
    130: "interrupted (Ctrl-C)",
}

OVERVIEW = """\
Talk to msgd, the daemon that carries messages between this machine and others and
proves that they arrived. Verbs and long options may be shortened as long as they are
unique (`msgctl st`). Options of a verb may stand anywhere after it; `--` ends them.

A message is queued when it is on this node's disk, stored when it is on the peer's disk
and the receipt for it is on ours. Every message ends in exactly one of stored, rejected,
expired and cancelled."""

ENVIRONMENT = (
    ("MSGD_SOCKET", "the control socket, where neither --socket nor --node is given"),
    ("MSGD_LAB_DIR", "the lab's directory ($XDG_STATE_HOME/msgd-lab, ~/.local/state/msgd-lab)"),
    ("NO_COLOR", "set to anything: no colours"),
)

DESCRIPTIONS = {
    "send": """\
Send TEXT to PEER, which is a name, an address or an identity. Without TEXT, or with -,
the body is read from standard input, from which nothing is stripped. Input that is not
UTF-8 is sent as it is. A body has room for about 1 MiB.

The command waits up to 3 seconds (--timeout) for the message to be stored at the peer,
and succeeds as soon as it is at least queued here: msgd will deliver it. --wait=stored
makes the peer's disk the condition of success; --wait=queued does not wait at all.

One line is printed: ID STATE PEER WHEN (DETAIL). WHEN is the receiver's clock.

With --lines every line becomes a message; --wait then holds for each of them, and without
it none is waited for. An empty line is an empty message.

TIME is a number of seconds, or a form like 30s, 5min, 2h, 7d.""",
    "log": """\
Print messages of this node's log, oldest first. The options are those of journalctl.

TIME is yesterday, today, now, a distance as -2h or "2h ago", a local date and time as
2026-11-21, "2026-11-21 12:00" or 12:00, an ISO 8601 time with its zone, or @ and Unix
seconds.

Formats: short, short-iso, verbose, json (one object a line), json-pretty, cat (bodies).
JSON holds id peer direction seq kind state reason from to user sent_at sent_at_ns
stored_at stored_at_ns receipt_at receipt_at_ns text|data headers: sent_at is the sender's
clock, stored_at this node's, receipt_at the receiver's; text is there where the body is
UTF-8, else data in base64. On a terminal, control characters in messages are shown as
escapes.

Whoever reads the output may stop at any time (`msgctl log | head`): that ends the command
quietly, with 0.""",
    "show": """\
Print the message with this id; the beginning of an id is enough where it is unique. With
-o cat the body is written byte for byte, so it can be redirected into a file.""",
    "why": """\
Tell the life of a message: when it was queued, tried, released, stored or ended, for what
reason, and what happens next.""",
    "queue": """\
List the messages that are not with their peer yet, in the order of sending: since when,
why, how big, when the peer is tried next, when the message expires.""",
    "cancel": """\
End a message that did not go out yet; its state is then cancelled. Once it may be with
the peer, this is refused (6).""",
    "retry": """\
Try to reach a peer now, without waiting for the time of the next try.""",
    "peer": """\
List, add, remove and rename the peers of this node. `msgctl peer` alone lists them.""",
    "peer ls": """\
List all peers: connected or away and since when, what waits for them, how many messages
were sent and received, how far their clock is ahead of ours, the round trip of the link.""",
    "peer add": """\
Pair with a node whose identity is known by other means, for configuration management. Both
sides have to do so. Doing it again changes nothing.""",
    "peer rm": """\
Give up a peer: its link is closed, what waits for it is cancelled, the history stays.""",
    "peer rename": """\
Give a peer another name on this node. Its history follows the new name.""",
    "status": """\
Print this node's name, identity, version and state, then its peers. With -o json the first
object is this node, one for each peer follows.""",
    "reload": """\
Let msgd read its configuration again, as `systemctl reload msgd`; back when it is in force.
Links that are not concerned stay up.""",
    "lab": """\
Run several nodes on this machine, as the present user, to try things out. `msgctl lab`
alone lists them.""",
    "lab up": """\
Start the nodes node1 to nodeN (N from 1 to 250) on 127.0.0.1 to 127.0.0.N, port 6743, pair
every two of them (above 8 nodes: all with node1 only), and come back when all links stand.
Nodes that run already go on. Each keeps everything in $MSGD_LAB_DIR/nodeK: msgd.toml,
msgd.d, state, control.sock, msgd.out (its output) and msgd.pid.

MSGD_LAB_NET puts the nodes elsewhere: with MSGD_LAB_NET=127.77.3. they are 127.77.3.1,
127.77.3.2 and so on.""",
    "lab ls": """\
List the nodes of the lab: address, whether they run, process id, directory.""",
    "lab down": """\
Stop all nodes of the lab and remove their directories; other files stay. A node that does
not end within 10 seconds is killed.""",
}

EXAMPLES = {
    "": (
        ("msgctl send node3 hello", "send, and see it arrive"),
        ("msgctl log -f", "watch messages come and go"),
        ("msgctl why 019a2b", "ask what became of a message"),
        ("msgctl lab up 2", "try all this on one machine"),
    ),
    "send": (
        ("msgctl send node3 'disk is full'", "a text"),
        ("df -h | msgctl send node3", "standard input"),
        ("msgctl send node3 --wait=stored -f report.txt", "succeed only when it is there"),
        ("msgctl send node3 --id backup-2026-11-21 done", "may be repeated, is sent once"),
        ("tail -f /var/log/syslog | msgctl send -lq node3", "every line a message"),
        ("msgctl send node3 -- --help", "a text that begins with -"),
    ),
    "log": (
        ("msgctl log -n", "the last 10"),
        ("msgctl log -S yesterday --peer node3", "since yesterday, with node3"),
        ("msgctl log -f -o json --cursor-file seen", "for a script that goes on where it was"),
        ("msgctl log --state queued", "what is not there yet"),
    ),
    "show": (("msgctl show 019a2b -o cat > body", "the body alone"),),
    "why": (("msgctl why 019a2b", "where is it?"),),
    "queue": (("msgctl queue node3", "what waits for node3"),),
    "cancel": (("msgctl cancel 019a2b", "take it back"),),
    "peer add": (("msgctl peer add node3 192.168.1.5 --key IDENTITY", "pair with node3"),),
    "status": (("msgctl status -o json | head -n 1", "this node, for a script"),),
    "lab up": (
        ("msgctl lab up 3", "start node1, node2, node3"),
        ("msgctl --node node1 send node2 hello", "let node1 send to node2"),
        ("msgctl --node node2 log", "look at node2's log"),
    ),
    "lab down": (("msgctl lab down --keep", "stop, but keep keys and logs"),),
}

CODES = {
    "": tuple(EXIT_CODES),
    "send": (0, 1, 2, 3, 4, 5, 6, 7, 8, 130),
    "log": (0, 1, 2, 3, 7, 8, 130),
    "show": (0, 1, 2, 3, 7, 8),
    "why": (0, 1, 2, 3, 7, 8),
    "queue": (0, 1, 2, 3, 7, 8),
    "cancel": (0, 1, 2, 3, 6, 7, 8),
    "retry": (0, 1, 2, 3, 4, 7),
    "lab": (0, 1, 2),
}


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
    return [line for command, what in EXAMPLES.get(path, ()) for line in (f"{what}:", f"    {command}")]


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
