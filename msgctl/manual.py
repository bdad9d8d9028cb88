"""The texts of `--help`: what each verb does, with the exit codes it can end with."""

EXIT_CODES = {
    0: "what was asked for is done (a plain send: at least queued)",
    1: "something unexpected; the sentence says whether anything was kept",
    2: "the command line is wrong, or the message is over the limit",
    3: "msgd cannot be reached",
    4: "the peer is not trusted (unpaired, key changed, blocked), or forbids it",
    5: "still queued; or nothing in time (pair join, recv, file): try again",
    6: "a final failure: rejected, expired, cancelled, or too late to cancel",
    7: "no such peer, message or file",
    8: "the disk cannot take it or cannot be read: full, read-only or damaged",
    9: "the logs of both nodes differ",
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
    ("MSGCTL_PAGER", "the pager of `log` on a terminal, before $PAGER; empty or cat: none"),
    ("TZ", "the zone of times"),
    ("NO_COLOR", "set to anything: no colours"),
)

DESCRIPTIONS = {
    "send": """\
Send TEXT to PEER, which is a name, an address or an identity. Without TEXT, or with -,
the body is read from standard input, from which nothing is stripped. Input that is not
UTF-8 is sent as it is. A body has room for about 1 MiB.

The command waits up to 3 seconds (--timeout) for the message to be stored at the peer,
and succeeds as soon as it is at least queued here: msgd will deliver it. --wait=stored
makes the peer's disk the condition of success; --wait=queued does not wait at all. --wait=handled
waits until a consumer there has handled the message (`msgctl recv`, or a hook), and says which one.

One line is printed: ID STATE PEER WHEN (DETAIL). WHEN is the receiver's clock.

To an address that was never paired nothing is sent: the message is held here, for 24 hours
or --ttl, and the node that answers there is asked for words to compare. On a terminal they
are shown with a question; elsewhere the next command is printed, and the exit code is 4.
Once both sides have said yes the message flows by itself. --no-hold keeps nothing.

To @GROUP the message goes to every member of a group of the configuration ([group.web] peers =
["node2", "node3"]), or with @all to every peer that is not blocked. It has one id, and for each
member a receipt: on a terminal a table that fills in, elsewhere a line each. Members that are away
get it when they return. --wait=stored (or handled) asks for all of them, with --quorum N for N of
them; the exit code is then 0 when so many have it, 5 when they had not within --timeout, 4 when
they cannot before somebody pairs, and 6 as soon as they cannot any more. Without either it is that
of the member where least was reached. show, why, cancel and log --id take the id for all members.

With --lines every line becomes a message; --wait then holds for each of them, and without
it none is waited for. An empty line is an empty message.

TIME is a number of seconds, or a form like 30s, 5min, 2h, 7d.""",
    "reply": """\
Send TEXT to the peer that the message with this ID came from or went to, as an answer to it; the
beginning of an id is enough where it is unique. The rest is as with `msgctl send`.

The answer has the headers reply-to, the id of the message that it answers, and thread, the id of
the first message of the conversation: `msgctl log --thread ID` shows all of it, by any of its ids.
`msgctl send PEER --reply-to ID` does the same towards any peer.""",
    "log": """\
Print messages of this node's log, oldest first. The options are those of journalctl, and may
be combined freely. The order is the log's own, whatever the clock did; a message's state is
the one it has now.

TIME is a point in time in every form of systemd.time(7): today, yesterday, tomorrow, now; a
distance as -2h, "2h ago", +3h30min; 12:00, 2026-11-21, "Sat 2026-11-21 12:00:30", in the local
zone or with one behind it (UTC, Europe/Paris); or @ and Unix seconds. ISO 8601 times with Z
or an offset are read as well.

Formats: short, short-iso, verbose, json (one object a line), json-pretty, cat (bodies), export
(the journal export format, which systemd-journal-remote reads).
JSON holds id peer direction seq kind state reason from to user sent_at sent_at_ns
stored_at stored_at_ns receipt_at receipt_at_ns text|data headers: sent_at is the sender's
clock, stored_at this node's, receipt_at the receiver's; text is there where the body is
UTF-8, else data in base64. --fields chooses among these and cursor; data is then base64 of
any body. Times are in the local zone, or in UTC with --utc; *_at in JSON is always UTC. On a
terminal, control characters in messages are shown as escapes.

A message whose sender asked for it (`send --wait=handled`) is shown as handled once a consumer has
handled it, on both nodes; JSON then has handled_at, handled_at_ns (the receiver's clock) and
handled_by beside its state, which stays stored or received. --state handled finds them.

--thread shows a whole conversation by any of its messages: those that `msgctl reply` and `send
--reply-to` have put into it, whichever peer they went to or came from.

With -f a message is shown again when its state changes, as [queued -> stored]; in JSON with
the state before as `was`. Not so with --cursor-file, cat and export: there each message comes
once. Where this node's clock was set, short and verbose have a line that says so (-q: none).

A script that must see each message once keeps its place in a file: --cursor-file FILE begins
behind the last message of the run before. With -n N it takes the first N from there (the first
run, without a file yet, the newest N).

On a terminal the output goes through a pager: $MSGCTL_PAGER, $PAGER or less. Whoever reads
the output may stop at any time (`msgctl log | head`): that ends the command quietly, with 0.""",
    "show": """\
Print the message with this id; the beginning of an id is enough where it is unique. With
-o cat the body is written byte for byte, so it can be redirected into a file.""",
    "why": """\
Tell the life of a message: when it was queued, tried, released, stored or ended, for what
reason, and what happens next.""",
    "queue": """\
List the messages that are not with their peer yet, in the order of sending: since when,
why, how big, when the peer is tried next, when the message expires.

With --as NAME: the messages that a consumer has in work, waits to try again or has set aside, with
the number of attempts and what was said about the last one. See `msgctl recv --help`.""",
    "chat": """\
Talk with PEER: both sides write at any time, and what comes while one types does not tear the
line. What is entered is sent as messages, line by line. Each line is shown with its sender's clock;
one's own lines stand above the prompt with … until they are on the peer's disk, then they move up
with ✓ and the time that the peer's clock said. While the peer is away nothing is different, except
that lines wait: they flow when it returns, after the end of the chat as well. The status below the
prompt says how the peer stands, how many lines are on their way, and by how much its clock differs
where that is seconds.

The chat begins with the last 10 messages (-n). /quit, adios, adiós or Ctrl-D ends it, as does Ctrl-C
where nothing is typed (else it throws the line away): the other side is sent the line adios, with
the header chat: left, and its chat says so and goes on. At the end it waits up to 3 seconds
(--timeout) for the last lines to be stored, after a second Ctrl-D only until msgd has them.

A line of one word that begins with / is a command; /help lists them, and one that is unknown is
refused. Other lines that begin with / are sent as they are, and //x sends /x. A pasted text stays in
the prompt until Enter sends it; where it has several lines, they are all sent as they are. Where msgd
is restarted the chat waits for it and goes on; nothing that was entered is lost, and nothing is sent
twice.

With an address that was never paired lines are held, as by send. The words to compare are shown
when somebody answers there, and /pair says that they are the same.

Without a terminal, or with -o, it is for scripts: every line of standard input is a message, and
what the peer writes is written to standard output in a format of `log`: bodies (cat), unless -o
says otherwise. The end of the input ends it, as does a line whose only word is adios, adiós or
/quit, in any case and with blanks around; lines behind it are not sent. The other side is told, and
once all lines are stored, or after 30 seconds (--timeout), and the reader of the output has read it or
gone, the command ends: with 5 if lines are still queued, 4 if they are held. An output that cannot be
written keeps no line from being sent, but is told at the end, with 1. With -o json standard error has
nothing but one object, `code error hint`, where it ends with an error. A program that reads its lines
until adios comes knows when the other side has left. -n prints messages from before first (0).""",
    "recv": """\
Receive messages as the consumer NAME. Incoming messages come one after the other, in the order of
this node's log, and each one comes until it was handled: it was printed, or CMD has ended with 0
for it. What was handled is kept by msgd in its log under the consumer's name, so whatever dies or
is restarted, the next `recv --as NAME` goes on with the first message that is not done.

A consumer is made by its first use, which also fixes --peer, --kind and --from: oldest begins with
the oldest message that is kept, now behind the newest. Without --kind every kind comes but result
and control. Several programs may receive as one consumer: they share the messages, and no message
is with two of them at once. `msgctl consumer` lists consumers and forgets them.

Without CMD messages are printed in the formats of `log`; one that could not be written is not done.

With CMD, which stands after --, the command is run once for each message. No shell is between: the
body is its standard input, byte for byte, and never one of its arguments. Its output goes where
msgctl's goes; -o and --utc are for messages that are printed. Its environment is the caller's, with
MSGD_ID, MSGD_PEER, MSGD_KIND, MSGD_USER, MSGD_SEQ, MSGD_SENT_AT, MSGD_STORED_AT, MSGD_FROM and
MSGD_TO as in the JSON of `log`; MSGD_CONSUMER, the consumer's name; MSGD_ATTEMPT, 1 the first time;
MSGD_HEADERS, all headers as one JSON object; and MSGD_HEADER_NAME for each header, its name in
capitals with _ for - and other signs. What is longer than 32 KiB is left out.

A command that fails is run again for the same message, after about 1 second, 2, 4 and so on up
to a minute, for ever or until it has failed --max-attempts times; then the message is set aside and the
next one comes. `msgctl queue --as NAME` shows what was set aside, `msgctl consumer retry NAME` has
it come again. A command that cannot be run at all ends recv with 2, and the message goes back.

SIGINT, SIGTERM and SIGHUP are passed on to CMD; recv ends when CMD has ended, and what it did is
noted. When recv is killed CMD is killed, too, though not what CMD has started itself. A message can
come twice only where recv or the machine died between the end of CMD and the note of it.

Where msgd is restarted, or its disk is full, recv waits and goes on, within --timeout if that is
given: then it ends with 3 or 8, and says which message may come again, since what became of it could
not be noted.

--timeout counts from the last message that was handled or set aside, at first from the beginning. When
no other one has come by then, recv ends with 0 where at least one was handled, else with 5. So it does
where a message has failed and its next attempt would be later: the message goes back, with the
attempts that it had. A command that runs is never broken off by --timeout.

A sender that asked for it (`send --wait=handled`) is told that the message was handled.""",
    "consumer": """\
List, mend and forget consumers: the names given to `recv --as`, and hook-NAME for each hook of the
configuration. `msgctl consumer` alone lists them.""",
    "consumer ls": """\
List all consumers: what they receive, how many messages they have not handled yet (behind), how
many of these are in work (open), how many were set aside, and when the consumer was last used.""",
    "consumer retry": """\
Have a message come again that was set aside for the consumer NAME, or all of them without ID. They
come before newer ones, with their attempts counted anew.""",
    "consumer rm": """\
Forget a consumer: what it has handled is not known any more, so that the same NAME begins anew. The
messages stay in the log.""",
    "cancel": """\
End a message that did not go out yet; its state is then cancelled. Once it may be with
the peer, this is refused (6).""",
    "retry": """\
Try to reach a peer now, without waiting for the time of the next try.""",
    "peer": """\
List, add, remove, rename and block the peers of this node. `msgctl peer` alone lists them.
`msgctl pair --help` tells how nodes become peers.""",
    "peer ls": """\
List all peers: connected or away and since when, what waits for them, how many messages
were sent and received, how far their clock is ahead of ours, the round trip of the link.
Below, for each peer with something to tell: why its messages are held, what happened when
both logs differed, and what to do. An address that somebody sent to, and that is not paired
yet, is listed as unpaired.""",
    "peer add": """\
Pair with a node whose identity is known by other means, for configuration management. Both
sides have to do so. Doing it again changes nothing: it ends with 0 all the same, and the line
or, with -o json, `changed` tells whether anything was different before.""",
    "peer rm": """\
Give up a peer: its link is closed, what waits for it is cancelled, the history stays. Its next
attempt is refused as that of any node that is not paired; it may ask again.""",
    "peer block": """\
Take nothing from a peer and give it nothing: its link is closed, what waits for it is
cancelled, its requests are refused, and it hears that it is blocked. The history stays.""",
    "peer unblock": """\
End a block; the peer is as it was before.""",
    "peer rekey": """\
For a peer whose key has changed without a proof by the old one: exchange words with whoever
answers at its address now. If the words are the same on both screens, `msgctl pair accept`
makes the new key the peer's; the old one is never taken again. What was held flows then.""",
    "pair": """\
Become peers with another node, in one of three ways.

By sending: `msgctl send ADDRESS TEXT` holds the message and asks that node; both screens show
the same four words, both persons say yes. `msgctl pair` on the other machine shows who asks.

By an invitation: `msgctl pair invite` here, `msgctl pair join` there, no further question.

By keys, for configuration management: `msgctl peer add NAME ADDRESS --key IDENTITY` on both
sides, as `msgctl identity` prints it.""",
    "pair ls": """\
List the requests that wait for a person: those of others and our own. On a terminal each is
shown with its words, and decided with y (pair), n (reject) or Enter (later). A request ends
after 10 minutes.""",
    "pair ask": """\
Ask the node at an address, or a peer that no longer knows this node, to compare words. One
call is one try. Without a terminal it prints the words and the next command; 4 where no words
came.""",
    "pair accept": """\
Say yes to a request. NODE is its name, its address or its identity. On a terminal the words
are shown first, with a question; with --words, and without a terminal, it is done at once.
Accept only if the other screen shows the same words: then nobody sits between.""",
    "pair reject": """\
Say no to a request: the same identity may ask again in an hour.""",
    "pair invite": """\
Print one string that lets one other node become a peer, with no question on either side: for
10 minutes, or --ttl, once, dead after three wrong guesses. Whoever has the string can use it.
It names where this node is reached; --address says it better, behind a router for instance.
In a pipe the string stands alone; with -o json it is `invitation`, beside `expires_at`.""",
    "pair join": """\
Accept an invitation that was printed on another machine: then both are peers. It may be given
in several pieces, or as - on standard input, where `ps` does not show it. If the other side
cannot be reached this ends with 5, and msgd goes on trying until the invitation expires.""",
    "file": """\
Carry files between this machine and a store of files: that of a peer, which its administrator has
opened for this node, or this node's own. `msgctl file` alone lists the latter.

PEER is a name, an address or an identity, or this node's own name. What it permits this node is
set there, under [files] in its configuration: nothing, read, or write.

A name in a store is a path with / between its parts: no .., nothing absolute, no control
characters, UTF-8; at most 1,024 bytes and 128 parts. Directories are made as they are needed.

Content flows over a connection of its own, so messages never wait behind it, and arrives under a
temporary name: it is verified by its SHA-256, synced and renamed, and only then told. A transfer
that breaks goes on where it stopped: by itself when msgd or the peer is back within --timeout, and
else when the same command is run again. A file above 64 KiB that stands there already, with the
same size and time of change, is not sent: both ends compare its SHA-256. Who reads a name meanwhile
finds the old content or the new one, whole.

Each transfer is a message of kind file in both logs, with name, size and digest in its headers:
`msgctl log --kind file`. The content is not in the log. What is done in this node's own store is no
transfer between nodes, and no message tells of it.""",
    "file ls": """\
List the store of PEER, or without PEER this node's own: what lies at the top; of a GLOB that names
a directory, what lies in it; else what fits. *, ? and [...] stay within one part of a name; a
name that has [ in it means itself where it is there. -r lists the files of whole trees, and the
directories in which there is nothing.

A digest is shown once it is known. A * behind a name: it may be executed.""",
    "file put": """\
Put local files into a store: `msgctl file put PEER LOCAL [NAME]` one file or directory, `msgctl
file put PEER -d DIR LOCAL...` several.

Without NAME a file keeps the one that it has; a NAME that ends with / is a directory to put it
into. A directory is put with all files and directories below it; symbolic links and what else is
no file are passed over, and said so. LOCAL - is standard input, which is kept in a file until its
end: only then its size is known. Times of change and the right to execute are kept; what has the
name already is replaced.

One line is printed for each file once it is durable there: ID put PEER NAME (SIZE). ID is that of
the message which tells of it. A file that fails is told, and stops no other; the exit code is
that of the first. A file that changes while it is read fails (1), and nothing of it stays there.

On a terminal a bar shows how far it is, how fast, and how long it takes yet.""",
    "file get": """\
Get files out of a store: `msgctl file get PEER NAME [LOCAL]` one file or directory, `msgctl file
get PEER -d DIR NAME...` several.

Without LOCAL a file keeps the last part of its name, in the present directory; a LOCAL that is a
directory, or ends with /, takes it under that name; directories that are missing are made. A NAME
that is a directory is got with all that lies below it, a glob (in quotes) with all that fit. LOCAL - is
standard output: nothing is written before the whole is here and verified, and TMPDIR needs room
for it. Where the disk has no room for a file, that is said before anything is written (8).

Until a file is whole it lies beside its place as .NAME.msgd-part, and what stands at the place
stays. The part stays when the command is broken off, and the next one goes on there. A directory
that is made for a tree is marked by .msgd-part until all of it is there.""",
    "file dup": """\
Copy a file within a store, there: no content comes over the network. What has the name NEW
already is replaced.""",
    "file rm": """\
Remove a file from a store, or with -r a directory and all that lies in it. There is no way back.""",
    "file cast": """\
Put files or whole trees into the stores of all members of @GROUP (see `msgctl group`), or with @all
of every peer. Members that are away get them when they return.

The files are handed over to msgd, which keeps a copy beside its own store until all members have
them; this ends with an error when that cannot be done as a whole, and nothing stays there then, nor
when it is interrupted. From then on the cast goes on by itself, whatever is killed or restarted in
between; what is changed or removed here does not concern it any more. Each member gets a message of
kind file for each of its files.

For 3 seconds (--timeout) it is shown how far that is; then the command ends with 0. --wait=stored makes
it the condition of success that all members have all files, with --quorum N that N of them have;
the exit codes are those of `send @GROUP`. `msgctl file casts` shows the rest.

Names are those of `file put -d`: the last part of LOCAL, below DIR with -d. Each member must let this
node write (files = "write" under [peer.NAME] there); one that does not is asked again now and then.""",
    "file casts": """\
List the casts with their members, and how far each is: queued (and why), sending, stored, cancelled.
Casts that have ended are listed for a day.""",
    "file cancel": """\
End a cast, given by its id or the beginning of it: members that have not got all of its files get no
more. What they have got stays.""",
    "group": """\
Groups of peers, to which `send @GROUP` and `file cast` send at once. They are made in the
configuration ([group.web] peers = ["node2", "node3"]; then `msgctl reload`). `msgctl group` alone
lists them.""",
    "group ls": """\
List the groups with their members, who of them is connected, and how many messages wait for each.
This node itself is left out, so that the same group can be written on all of its nodes. @all has
every peer that is not blocked.""",
    "identity": """\
Print who this node is: the hash of its key, which other nodes pin. `msgctl identity rotate`
gives it a new key.""",
    "identity show": """\
Print this node's identity, and below it those that it had before.""",
    "identity rotate": """\
Make a new key for this node, signed by the old one. Peers take it by themselves when they meet
this node next, and never take the old one again. Open invitations and requests end. A key
that systemd keeps as a credential is not msgd's to change.""",
    "verify": """\
With PEER: both nodes compute the heads of their common history from the bytes on their disks,
and compare. Where they differ the first message that does is named, and the exit code is 9.
Without PEER: check this node's log, its checksums, numbers and heads; damage is 8.""",
    "recover": """\
Get back from a peer what this node sent to it and received from it, after a state was lost or
an old one restored. It is checked against the heads and written as a new epoch. A node whose
key is lost, too, pairs again first. A message that still waited in a restored state goes out once
more, though it was sent since, with the same id both times.""",
    "export": """\
Write a parcel for a peer to standard output: everything for it that it has not confirmed, and how
far this node has what came from there. Carry the file to the peer, by stick or mail, and read it
there with `msgctl import`. So two nodes talk that no network joins; and where a link is just away
for long, whichever brings a message first: it is taken once.

What waited is released, as if it was sent: it cannot be cancelled any more, and `queue` shows it as
exported until the peer's receipt is back, by a parcel from there or by a link.

The file is signed with this node's key, so nobody can change it. It is not encrypted: whoever has
it can read the messages in it.""",
    "import": """\
Read a parcel that a peer made for this node with `msgctl export`; FILE - is standard input. It is
checked to its end before any of it is taken: whose it is, its signature, that it follows what is
here. What is here already is passed over, so the same file may be read again, and older ones after
newer ones. It also confirms what the peer has received from here.

Carry a parcel back, too: it brings your receipts.""",
    "vacuum": """\
Remove old history from this node: with --time what was stored here longer ago than that, with
--size the oldest while the log is larger. What the peers keep is not touched. The same by itself:
keep_time and keep_size under [history] in the configuration.

The log goes in segments of 64 MiB, whole ones, never the newest; with --time a newest one that began
before that is ended first. A segment stays as long as a message in it is not final, or as long as it
tells what became of messages that stay. A message that is gone is forgotten with its id: the same
--id is sent again. --time 0 takes all that may go.

TIME is a number of seconds, or a form like 12h, 90d, 2years. SIZE is a number of bytes, or a form
like 500M, 10G.""",
    "peer rename": """\
Give a peer another name on this node. Its history follows the new name.""",
    "disk-usage": """\
Say how much the log, its index, the store of files (where it lies in the state directory) and what
was set aside take on the disk, how much room is left, and when the oldest message that is kept was
stored. Sizes are as `vacuum --size` reads them.
`index` and `search` are derived from the log: msgd makes them anew when they are deleted.""",
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

CODES = {
    "": tuple(EXIT_CODES),
    "send": (0, 1, 2, 3, 4, 5, 6, 7, 8, 130),
    "reply": (0, 1, 2, 3, 4, 5, 6, 7, 8, 130),
    "log": (0, 1, 2, 3, 7, 8, 130),
    "chat": (0, 1, 2, 3, 4, 5, 6, 7, 8, 130),
    "show": (0, 1, 2, 3, 7, 8),
    "why": (0, 1, 2, 3, 7, 8),
    "queue": (0, 1, 2, 3, 7, 8),
    "recv": (0, 1, 2, 3, 5, 7, 8, 130),
    "consumer": (0, 1, 2, 3, 7, 8),
    "cancel": (0, 1, 2, 3, 6, 7, 8),
    "retry": (0, 1, 2, 3, 4, 7),
    "peer": (0, 1, 2, 3, 7, 8),
    "peer rekey": (0, 1, 2, 3, 4, 7, 8),
    "pair": (0, 1, 2, 3, 4, 7, 8),
    "pair join": (0, 1, 2, 3, 4, 5, 8),
    "file": (0, 1, 2, 3, 4, 5, 7, 8, 130),
    "file cast": (0, 1, 2, 3, 4, 5, 6, 7, 8, 130),
    "file casts": (0, 1, 2, 3, 8),
    "file cancel": (0, 1, 2, 3, 6, 7, 8),
    "group": (0, 1, 2, 3),
    "identity": (0, 1, 2, 3, 8),
    "disk-usage": (0, 1, 2, 3, 8),
    "status": (0, 1, 2, 3),
    "reload": (0, 1, 2, 3),
    "verify": (0, 1, 2, 3, 4, 7, 8, 9),
    "recover": (0, 1, 2, 3, 4, 7, 8, 9),
    "export": (0, 1, 2, 3, 4, 7, 8),
    "import": (0, 1, 2, 3, 4, 8, 9),
    "vacuum": (0, 1, 2, 3, 8),
    "lab": (0, 1, 2),
}
