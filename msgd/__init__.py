"""msgd: one machine tells another something, and can be sure that it arrived.

The plan of the house. `main` builds and joins everything; each process has one file for its body, and what
that body does lies in files beside it. Imports go down only: `.importlinter` has the floors.

- supervisor: `supervisor`, with doors pulse children dialling lobby listening background backoff penalties
  node signals hooks casters
- log process: `ledger`, with desk opening channel books reporting outgoing flowing linking arbiter window
  holds ending recent spreading (groups); `delivery` and standing are its story, pure
    - consumers: `consuming`, with holders; cursors and lending are its story, pure
    - who is a peer: `gate`, with admitting pairing deciding meetings requests inviting rotating clones
      peering pinning pins
    - carrying (parcels), tidying (vacuum), reconciling (epochs)
- worker of a connection: `worker`, with link session meeting asking exchanging serving past; files: `sharing`
- hook process: `hooking`, with note executing saying runnable
- process that casts files: `casting`
- control worker: `control`, with handed commands knowing finding access showing advising pending submitting
  sending reaching grouping gathering; its commands: reading trusting introducing inspecting visiting clearing
  exporting importing usage consumers
    - files: filecalls filing ferrying syncing noting; castcalls broadcasting (casts)
    - a query: `history`, with streaming walk places lanes sifting sieve needle matches singles fates states
      layers searching; what it tells: rows items lines parts changes audit marks reported
    - verify and recover: verifying comparing recovering tracks track spans talking telling
- index process: `indexing`, with indexer keeper wording surveying vacuuming lag
- whoever receives as a consumer (control worker, hook process): receiving lookout
- whoever reaches a store of files (control worker, casting): shipping
- everywhere: model errors events journal systemd config settings amounts pieces capabilities
- msgd --check-config: checking permitting unit

The rooms: `log` on disk, `peer` between nodes, `trust` who is who, `files` a node's store, `parcel` on a
stick, `wire` between processes and at the control socket.
"""

__version__ = "0.1.0"
