"""The alphabet: how bytes become calls and messages.

`codec` is the message as it lies in the log and on the wire, `varlink` the framing of the control
socket (the part that msgctl imports: standard library only), `pipe` the way of frames between our own
processes, `ledger` and `trust` the frames that go there, `frame` what these share with the rooms.
"""
