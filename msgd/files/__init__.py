"""Files: a node's store, and what two nodes say about it on a connection of its own.

| file | |
|---|---|
| `names` | which names a file may have |
| `frames` | what both ends say: the table of the format, structs, bytes |
| `inflow` | bytes as they arrive, into frames and pieces of content |
| `stream` | frames over a TLS connection, both ways |
| `tree` | the directories and files of a store, as descriptors: no link is followed |
| `disk` | room, and having it written out as it flows |
| `parts` | files that are not whole yet: found again, locked, removed when old |
| `intake` | one file that comes in |
| `landing` | many of them become durable together |
| `lanes` | many syncs side by side |
| `catalogue` | digests and owners, in SQLite: derived, may be deleted |
| `quota` | what one peer may still put |
| `listing` | what fits a glob |
| `depot` | joins these: one node's store |
| `goods` | what callers give and get back |
| `outflow` `copying` | a file that goes out, or is kept twice |
| `taking` `giving` | the acceptor's side of what is put, and of all else that is asked |
| `putting` `getting` | the asker's side of many files one after another |

A file comes in under a name in `.msgd-parts`, its digest is computed as it flows and compared with the
sender's; then it is synced, renamed, its directory synced, and only then the sender hears that it is there.
The content is never in the log.
"""
