"""The examples of `--help`: command lines with what they do, by verb."""

EXAMPLES = {
    "": (
        ("msgctl send node3 hello", "send, and see it arrive"),
        ("msgctl log -f", "watch messages come and go"),
        ("msgctl why 019a2b", "ask what became of a message"),
        ("msgctl lab up 2", "try all this on one machine"),
    ),
    "send": (
        ("msgctl send node3 'disk is full'", "a text"),
        ("df -h | msgctl send node3", "standard input"),
        ("msgctl send node3 --wait=stored -f report.txt", "succeed only when it is there"),
        ("msgctl send node3 --id backup-2026-11-21 done", "may be repeated, is sent once"),
        ("tail -f /var/log/syslog | msgctl send -lq node3", "every line a message"),
        ("msgctl send node3 -- --help", "a text that begins with -"),
    ),
    "log": (
        ("msgctl log -n", "the last 10"),
        ("msgctl log -S yesterday --peer node3", "since yesterday, with node3"),
        ("msgctl log -S 'Fri 2026-11-20 18:00' -U '2h ago' -g error", "a text in a stretch of time"),
        ("msgctl log --search 'disk full*' --peer node3", "by words, in years of messages"),
        ("msgctl log -o json --fields id,state,receipt_at", "what became of them, for a script"),
        ("msgctl log -f -o json --cursor-file seen", "for a script that goes on where it was"),
        ("msgctl log --state queued", "what is not there yet"),
    ),
    "show": (("msgctl show 019a2b -o cat > body", "the body alone"),),
    "why": (("msgctl why 019a2b", "where is it?"),),
    "queue": (("msgctl queue node3", "what waits for node3"),),
    "pair": (
        ("msgctl pair", "who asks?"),
        ("msgctl pair invite", "let one node join"),
    ),
    "pair accept": (("msgctl pair accept node3", "say yes to node3"),),
    "pair invite": (
        ("msgctl pair invite | ssh node3 msgctl pair join -", "over a way that is trusted already"),
        ("msgctl pair invite --ttl 1h --address gate.example:6743", "behind a router"),
    ),
    "peer rekey": (("msgctl peer rekey node3", "node3 was installed anew"),),
    "verify": (("msgctl verify node3", "does node3 hold the same?"),),
    "export": (
        ("msgctl export node3 > /media/stick/node3.parcel", "what waits for node3"),
        ("msgctl import /media/stick/node3.parcel", "there"),
    ),
    "import": (("ssh node3 msgctl export node1 | msgctl import -", "without a file"),),
    "vacuum": (
        ("msgctl vacuum --time 90d --dry-run", "what would go?"),
        ("msgctl vacuum --size 10G", "make room"),
    ),
    "recover": (("msgctl recover --from node3", "get back what node3 has"),),
    "cancel": (("msgctl cancel 019a2b", "take it back"),),
    "peer add": (("msgctl peer add node3 192.168.1.5 --key IDENTITY", "pair with node3"),),
    "disk-usage": (("msgctl disk-usage -o json", "for monitoring"),),
    "status": (("msgctl status -o json | head -n 1", "this node, for a script"),),
    "lab up": (
        ("msgctl lab up 3", "start node1, node2, node3"),
        ("msgctl --node node1 send node2 hello", "let node1 send to node2"),
        ("msgctl --node node2 log", "look at node2's log"),
    ),
    "lab down": (("msgctl lab down --keep", "stop, but keep keys and logs"),),
}
