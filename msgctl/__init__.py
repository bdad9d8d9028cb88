"""msgctl: the tool that people and scripts use to talk to msgd on this machine.

`verbs` holds the grammar as data, `cli` the way from a command line to an exit code, `client` the one way to
the daemon, `output` what reaches the screen, `lab` the nodes on loopback; beside them one file for each group
of verbs. It imports nothing of the daemon but `msgd.wire.varlink`, `msgd.model` and
`msgd.errors`, and none of the heavy libraries on the way of a plain `send` or `log`: starting the
interpreter is most of what a user waits for.
"""
