"""A parcel: what one node has to say to another, in a file that a person carries. A link that takes days.

It says what a link would say: who speaks to whom, where both directions stand (so it is a receipt for what
has come from there), how the present epoch began, then every message without a receipt, in batches, verbatim.
It is signed, not encrypted: whoever has the file can read it.

| part | |
|---|---|
| first line | `msgd parcel 1` and a line end, 14 bytes: the version |
| frames | as between nodes: length u32 BE of what follows, type u8, msgpack body |

| type | frame | | body |
|---|---|---|---|
| 1 | Head | first, once | map, the table below |
| 16 | Batch | any number | as on a link: array of first seq, count, head, payload |
| 2 | End | last, once | array: SHA-256 of all bytes before this frame, Ed25519 signature |

| key of Head | | |
|---|---|---|
| `spki` | 44 | the writer's key |
| `to` | 32 | the identity of the node that it is for |
| `name` | str | what the writer calls itself |
| `made_ns` | u64 | the writer's clock when it said all this, Unix ns |
| `chain` | | up to 8 rotations that led to its key, oldest first |
| `link` | map | `out`, `in`: epoch, last seq, head; `out` is from the writer to the reader |
| `epoch` | array, nil | how the epoch of `out` began, as a link's frame Epoch; nil: the reader knows it |
| `first` | u64 | seq of the first message; behind the last one where the parcel has none |
| `before` | 32 | head of `out` before it |

The signature is over `msgd/1 parcel\\0` ‖ the SHA-256 in End. Batches follow one another from `first` to the
last seq of `out`; each head is the chain of `peer.heads`, so the last one is that of `out`. Behind End stands
nothing. Frames of other types are skipped, unknown keys ignored; a change that a reader must know of is
version 2.

| file | |
|---|---|
| `frames` | the frames as structs and bytes |
| `writer` | makes one |
| `reader` | checks a whole one, then gives its batches |
| `judge` | what follows from one, for both directions |

A parcel never gets old: what is here already is skipped, and one of an epoch that was left is void, because
the sender gave what was in it other seqs. So parcels may be read in any order, any number of times, also
while a link stands.
"""
