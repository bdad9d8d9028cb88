"""Two real systemd hosts on one private bridge: for what needs a service manager, a journal or a power cut.

`guest` runs first inside a host and becomes its PID 1; `disk` is what a host boots from; `net` is the cable;
`hosts` joins them; `traces` proves that nothing stays. By hand: `python -m tests.hosts up`.
"""
