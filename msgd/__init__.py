"""msgd: one machine tells another something, and can be sure that it arrived.

The daemon's package. `main` builds and joins everything; one file per process body
(`supervisor link control ledger indexer`); `delivery` is the story of a message without any I/O;
below it the rooms `log`, `peer`, `trust` and `wire`. Imports go down only, which import-linter keeps.
"""

__version__ = "0.1.0"
