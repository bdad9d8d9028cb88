"""The language between two nodes: bytes in, events out; events in, bytes out. No socket, no clock, no key.

| file | |
|---|---|
| `frames` | every frame as a struct |
| `codec` | frames to bytes and back |
| `buffer` | bytes waiting to be understood |
| `state` | who may say what when: two tables |
| `introduction` | greet and hello: versions, channel binding, proof |
| `connection` | one end of a connection; joins the above |
| `refusals` | what a dialler does about each refusal |
| `flow` | one direction of a link, from two positions to batches |
| `reconcile` | what two ends that met again conclude about a direction |
| `heads` | digests that prove both logs hold the same |
| `inbox` `outbox` | order and receipts of one direction, at its two ends |

Who may speak for an identity is not decided here: the proof's two functions are handed in.
"""
