"""The alphabet: how bytes become calls and messages.

`codec` is the message as it lies in the log and on the wire, `varlink` the framing of the control
socket (the part that msgctl imports: standard library only), `pipe` the frames between our own processes.
"""
