"""Fuzzing of every decoder that a stranger reaches: `make fuzz`, or python -m tests.fuzz --help.

| file | |
|---|---|
| `engine` | inputs from a seed, what they reach, what comes out; the same seed gives the same inputs |
| `mutate` | changes of bytes, of frames between nodes, and of the values inside msgpack and JSON |
| `decoders` | all of them by name, run side by side |
| `peer` | what nodes say before they know each other: frames, both ends of a connection |
| `welcomed` | what a peer says: on a link, in messages, for a service |
| `files` | what a peer says that wants files, to a store and to who asks one |
| `trust` | keys, certificates, chains of keys, invitations |
| `local` | what programs on this machine say: varlink frames, the parameters of every call |
| `live` | a real daemon: its peer port and its control socket |

An input that leads somewhere new is kept and mutated further. New is a line of msgd that no input has run
before, or an outcome that none has had: events, state, and the sentence of the error less what it quotes.
The latter sees into msgspec, whose validation is C and has no lines: with lines alone (also with atheris 3,
which was tried: 62 MiB, no coverage of C either) the search stalls at the first check of a length.
"""
