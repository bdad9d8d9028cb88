"""msgctl's grammar: every verb with its words, options and formats.

`grammar` reads by these tables, `help` prints them, `cli` says who does the work.
"""

from msgctl.grammar import FLAG, Option, Verb

HISTORY_FORMATS = ("short", "short-iso", "verbose", "json", "json-pretty", "cat", "export")
LINE_FORMATS = ("short", "json")

EVERYWHERE = (
    Option("", "socket", "PATH", "talk to the msgd behind this control socket"),
    Option("", "node", "NAME", "talk to this node of the lab, such as node1"),
    Option("o", "output", "FORMAT", "how to print: {formats}"),
    Option("", "no-pager", FLAG, "no pager, where one would be used (log)"),
    Option("h", "help", FLAG, "print this and end"),
    Option("", "version", FLAG, "print the version and end"),
)

SEND = (
    Option("l", "lines", FLAG, "send every line of the input as a message of its own"),
    Option("f", "file", "FILE", "take the body (with -l: the lines) from FILE"),
    Option(
        "",
        "wait",
        "LEVEL",
        "succeed only at this level: queued, stored or handled; --wait alone: stored",
        bare="stored",
        also=("queued", "stored", "handled"),
    ),
    Option("", "quorum", "N", "to a group: succeed when N members have stored it (all of them)"),
    Option("", "timeout", "TIME", "how long to wait for stored or handled (3s)"),
    Option("", "reply-to", "ID", "as an answer to this message, in its thread"),
    Option("", "ttl", "TIME", "let the message expire when it cannot go out within this time"),
    Option("", "id", "KEY", "send once: a message of yours to this peer with this KEY is never sent again"),
    Option("H", "header", "NAME=VALUE", "add a header; may be given more than once", many=True),
    Option("", "no-hold", FLAG, "fail and keep nothing where the message would be held"),
    Option("q", "quiet", FLAG, "print nothing but errors, and ask nothing"),
)
REPLY = tuple(option for option in SEND if option.name not in ("quorum", "reply_to"))
LOG = (
    Option("S", "since", "TIME", "only what was stored here at TIME or later"),
    Option("U", "until", "TIME", "only what was stored here at TIME or earlier"),
    Option("f", "follow", FLAG, "go on with what comes; begins with the last 10 where nothing else is said"),
    Option("", "no-tail", FLAG, "with -f, begin with all that is stored"),
    Option(
        "n",
        "lines",
        "N",
        "only the newest N (behind a cursor: the first N), or all; -n alone: 10",
        bare="10",
        loose=True,
    ),
    Option("r", "reverse", FLAG, "newest first"),
    Option(
        "g", "grep", "PATTERN", "only texts with this regular expression; small letters find capitals, too"
    ),
    Option(
        "",
        "search",
        "WORDS",
        'only texts with all these words, by an index; "in quotes" in a row, a* a beginning',
    ),
    Option("", "case-sensitive", "yes|no", "whether -g minds capitals, whatever the pattern", bare="yes"),
    Option("c", "cursor", "CURSOR", "only the message at this place in the log, and what lies behind it"),
    Option("", "after-cursor", "CURSOR", "only what lies behind this place in the log"),
    Option("", "cursor-file", "FILE", "go on after the place kept in FILE, and keep the new one there"),
    Option("", "show-cursor", FLAG, "print the place of the last message at the end"),
    Option("", "fields", "NAMES", "only these fields, as id,state,text; not with short and short-iso"),
    Option("", "no-full", FLAG, "cut each message to one line that fits the terminal"),
    Option("e", "pager-end", FLAG, "begin at the end in the pager; without -n: the newest 1000"),
    Option("q", "quiet", FLAG, "no lines but messages: no clock steps, no `-- No entries --`"),
    Option("", "utc", FLAG, "times in UTC"),
    Option("", "peer", "PEER", "only messages to and from this peer"),
    Option("", "direction", "in|out", "only one direction"),
    Option("", "state", "STATE", "only messages in this state, or those handled"),
    Option("", "kind", "KIND", "only messages of this kind"),
    Option("", "id", "ID", "only the message with this id, or whose id begins so"),
    Option("", "thread", "ID", "only the whole conversation to which the message with this id belongs"),
    Option("", "user", "USER", "only messages sent by this user"),
)
CHAT = (
    Option("n", "lines", "N", "begin with the last N messages (10; without a terminal: 0)"),
    Option("", "timeout", "TIME", "at the end, wait so long for the lines to be stored (3s; else 30s)"),
    Option("", "utc", FLAG, "times in UTC"),
)
UTC = (Option("", "utc", FLAG, "times in UTC"),)
RECV = (
    Option("", "as", "NAME", "the consumer that remembers what was handled; made at its first use"),
    Option("", "peer", "PEER", "only messages from this peer"),
    Option("", "kind", "KIND", "only messages of this kind"),
    Option("", "from", "oldest|now", "where a new consumer begins (oldest)"),
    Option("n", "count", "N", "end when N messages were handled"),
    Option("", "timeout", "TIME", "end when no message came for this long"),
    Option("", "max-attempts", "N", "set a message aside when CMD has failed N times for it"),
    Option("", "utc", FLAG, "times in UTC"),
    Option("q", "quiet", FLAG, "say nothing about failed attempts and a msgd that is away"),
)
QUEUE = (*UTC, Option("", "as", "NAME", "what this consumer has in work, and what was set aside for it"))
KEY = (Option("", "key", "IDENTITY", "the identity of the peer's key, as `msgctl identity` prints it there"),)
WAIT = (Option("", "timeout", "TIME", "how long to wait for an answer (20s)"),)
ACCEPT = (
    Option("", "name", "NAME", "what to call it here; else what it calls itself"),
    Option("", "words", "WORDS", "the words that were compared, in quotes; with others it is refused"),
)
INVITE = (
    Option("", "ttl", "TIME", "how long the invitation holds (10min)"),
    Option("", "address", "ADDRESS", "where this node is reached; up to four may be given", many=True),
    Option("", "no-qr", FLAG, "no QR code"),
)
JOIN = (Option("", "name", "NAME", "what to call it here; else what it calls itself"), *WAIT)
FROM = (Option("", "from", "PEER", "the peer that has the other half"),)
FROM_SEQ = (
    Option("", "from", "N", "with all from message N on, where the peer has lost what it had confirmed"),
)
VACUUM = (
    Option("", "time", "TIME", "remove what was stored here longer ago than this, as 90d"),
    Option("", "size", "SIZE", "remove the oldest while the log is larger than this, as 10G"),
    Option("", "dry-run", FLAG, "remove nothing; only say what would go, and what stays"),
)
PATIENCE = (
    Option("", "timeout", "TIME", "give up when nothing moves for so long: the peer away, a restart (30s)"),
)
QUIET = Option("q", "quiet", FLAG, "print nothing but errors, and no bar")
PUT = (
    Option("d", "directory", "DIR", "put all of them into DIR of the store; / is its top"),
    *PATIENCE,
    QUIET,
)
GET = (Option("d", "directory", "DIR", "get all of them into the local DIR"), *PATIENCE, QUIET)
FILES = (Option("r", "recursive", FLAG, "the files of whole trees"), *PATIENCE, *UTC)
REMOVE = (Option("r", "recursive", FLAG, "remove a directory with all that lies in it"), *PATIENCE)
CAST = (
    Option("d", "directory", "DIR", "put all of them into DIR of each store; / is its top"),
    Option(
        "",
        "wait",
        "LEVEL",
        "succeed only at this level: queued or stored; --wait alone: stored",
        bare="stored",
        also=("queued", "stored"),
    ),
    Option("", "quorum", "N", "succeed when N members have all files (all of them)"),
    Option("", "timeout", "TIME", "how long to look on (3s); the cast goes on in any case"),
    QUIET,
)
KEEP = (Option("", "keep", FLAG, "keep the nodes' directories, with keys and logs, for the next `lab up`"),)

VERBS = (
    Verb("send", "send a message", words=("PEER", "[TEXT]"), options=SEND, formats=LINE_FORMATS),
    Verb("reply", "answer a message", words=("ID", "[TEXT]"), options=REPLY, formats=LINE_FORMATS),
    Verb("log", "print messages", options=LOG, formats=HISTORY_FORMATS),
    Verb(
        "chat",
        "talk with a peer, both sides at any time",
        words=("PEER",),
        options=CHAT,
        formats=("cat", *HISTORY_FORMATS),
    ),
    Verb("show", "print one message", words=("ID",), options=UTC, formats=("verbose", *HISTORY_FORMATS)),
    Verb("why", "what happened to a message", words=("ID",), options=UTC, formats=LINE_FORMATS),
    Verb("queue", "what waits, and why", words=("[PEER]",), options=QUEUE, formats=LINE_FORMATS),
    Verb("cancel", "end a message that did not go out yet", words=("ID",), formats=LINE_FORMATS),
    Verb(
        "recv",
        "handle messages, each until it is done",
        words=("[-- CMD...]",),
        options=RECV,
        formats=HISTORY_FORMATS,
    ),
    Verb(
        "consumer",
        "the names that messages are received for",
        default="ls",
        subverbs=(
            Verb("ls", "list the consumers", options=UTC, formats=LINE_FORMATS),
            Verb(
                "retry",
                "have messages come again that were set aside",
                words=("NAME", "[ID]"),
                formats=LINE_FORMATS,
            ),
            Verb("rm", "forget a consumer", words=("NAME",), formats=LINE_FORMATS),
        ),
    ),
    Verb("retry", "try to reach a peer now", words=("PEER",), formats=LINE_FORMATS),
    Verb(
        "peer",
        "the nodes that this one talks to",
        default="ls",
        subverbs=(
            Verb("ls", "list the peers", options=UTC, formats=LINE_FORMATS),
            Verb(
                "add",
                "pair with a node whose identity is known",
                words=("NAME", "[ADDRESS]"),
                options=KEY,
                formats=LINE_FORMATS,
            ),
            Verb("rm", "give up a peer", words=("PEER",), formats=LINE_FORMATS),
            Verb("rename", "give a peer another name", words=("PEER", "NAME"), formats=LINE_FORMATS),
            Verb("block", "take nothing from a peer, give it nothing", words=("PEER",), formats=LINE_FORMATS),
            Verb("unblock", "end a block", words=("PEER",), formats=LINE_FORMATS),
            Verb(
                "rekey",
                "compare words with a peer that has a new key",
                words=("PEER",),
                options=WAIT,
                formats=LINE_FORMATS,
            ),
        ),
    ),
    Verb(
        "pair",
        "become peers with another node",
        default="ls",
        subverbs=(
            Verb("ls", "list who asks; on a terminal, decide", formats=LINE_FORMATS),
            Verb("ask", "ask a node to compare words", words=("PEER",), options=WAIT, formats=LINE_FORMATS),
            Verb("accept", "say yes to a request", words=("NODE",), options=ACCEPT, formats=LINE_FORMATS),
            Verb("reject", "say no to a request", words=("NODE",), formats=LINE_FORMATS),
            Verb("invite", "print an invitation for one node", options=INVITE, formats=LINE_FORMATS),
            Verb(
                "join", "accept an invitation", words=("INVITATION...",), options=JOIN, formats=LINE_FORMATS
            ),
        ),
    ),
    Verb(
        "group",
        "the groups of peers that `send @GROUP` knows",
        default="ls",
        subverbs=(Verb("ls", "list the groups and their members", formats=LINE_FORMATS),),
    ),
    Verb(
        "file",
        "the stores of files, here and at peers",
        default="ls",
        subverbs=(
            Verb("ls", "list a store", words=("[PEER]", "[GLOB]"), options=FILES, formats=LINE_FORMATS),
            Verb(
                "put", "put files into a store", words=("PEER", "LOCAL..."), options=PUT, formats=LINE_FORMATS
            ),
            Verb(
                "get",
                "get files out of a store",
                words=("PEER", "NAME..."),
                options=GET,
                formats=LINE_FORMATS,
            ),
            Verb(
                "dup",
                "copy a file within a store",
                words=("PEER", "NAME", "NEW"),
                options=PATIENCE,
                formats=LINE_FORMATS,
            ),
            Verb(
                "rm",
                "remove a file from a store",
                words=("PEER", "NAME"),
                options=REMOVE,
                formats=LINE_FORMATS,
            ),
            Verb(
                "cast",
                "put files into the stores of a group",
                words=("LOCAL... @GROUP",),
                options=CAST,
                formats=LINE_FORMATS,
            ),
            Verb("casts", "list the casts, and how far they are", formats=LINE_FORMATS),
            Verb("cancel", "end a cast", words=("ID",), formats=LINE_FORMATS),
        ),
    ),
    Verb(
        "identity",
        "who this node is",
        default="show",
        subverbs=(
            Verb("show", "print this node's identity", formats=LINE_FORMATS),
            Verb("rotate", "make a new key, signed by the old one", formats=LINE_FORMATS),
        ),
    ),
    Verb("verify", "compare the log with a peer's, or check it", words=("[PEER]",), formats=LINE_FORMATS),
    Verb("recover", "get this node's half of a history back", options=FROM, formats=LINE_FORMATS),
    Verb(
        "export",
        "write what waits for a peer into a file, to carry it there",
        words=("PEER",),
        options=FROM_SEQ,
        formats=LINE_FORMATS,
    ),
    Verb("import", "read such a file of a peer", words=("FILE",), formats=LINE_FORMATS),
    Verb("disk-usage", "what this node keeps on the disk", formats=LINE_FORMATS),
    Verb("vacuum", "remove the oldest of the history", options=VACUUM, formats=LINE_FORMATS),
    Verb("status", "this node and its peers", options=UTC, formats=LINE_FORMATS),
    Verb("reload", "read the configuration again", formats=LINE_FORMATS),
    Verb(
        "lab",
        "nodes on this machine, to try things",
        default="ls",
        subverbs=(
            Verb("up", "start nodes and pair them", words=("N",), formats=LINE_FORMATS),
            Verb("ls", "list the nodes", formats=LINE_FORMATS),
            Verb("down", "stop the nodes and remove them", options=KEEP, formats=LINE_FORMATS),
        ),
    ),
)
