"""msgctl: the tool that people and scripts use to talk to msgd on this machine.

`cli` holds the grammar as data, `client` the one way to the daemon, `output` the formats, `lab` the
nodes on loopback. It imports nothing of the daemon but `msgd.wire.varlink`, `msgd.model` and
`msgd.errors`, and none of the heavy libraries on the way of a plain `send` or `log`: starting the
interpreter is most of what a user waits for.
"""
