"""The two hosts by hand, as root:

python -m tests.hosts up [SOURCE:TARGET ...]    boot both; a SOURCE is seen read-only at TARGET
python -m tests.hosts exec a COMMAND ...        run COMMAND on host-a as root
python -m tests.hosts sh a                      a shell on host-a
python -m tests.hosts cut|heal a                partition host-a from the bridge, or heal it
python -m tests.hosts kill|boot|reboot a        power cut; boot again on the same disk; orderly reboot
python -m tests.hosts down

MSGD_HOSTS names the pair (default "hand"), so several can run.
"""

import os
import sys

from tests.hosts.disk import base_directory
from tests.hosts.hosts import Pair, interactive


def main(words: list[str]) -> int:
    directory = base_directory() / f"msgd-hosts-{os.environ.get('MSGD_HOSTS', 'hand')}"
    match words:
        case ["up", *shares]:
            Pair.up(tuple(shares), directory, tied=False)
            return 0
        case [] | ["-h"] | ["--help"]:
            print(__doc__)
            return 0
    if not directory.exists():
        print("the hosts are not up: python -m tests.hosts up", file=sys.stderr)
        return 1
    return on_pair(Pair(directory, tied=False), words)


def on_pair(pair: Pair, words: list[str]) -> int:
    hosts = {host.name: host for host in pair.hosts}
    match words:
        case ["down"]:
            pair.down()
        case ["exec", ("a" | "b") as name, *command] if command:
            return interactive(hosts[name], command)
        case ["sh", ("a" | "b") as name]:
            return interactive(hosts[name], ["bash"])
        case ["boot", ("a" | "b") as name]:
            hosts[name].boot()
            hosts[name].wait_up()
        case ["cut", ("a" | "b") as name]:
            hosts[name].cut()
        case ["heal", ("a" | "b") as name]:
            hosts[name].heal()
        case ["kill", ("a" | "b") as name]:
            hosts[name].kill()
        case ["reboot", ("a" | "b") as name]:
            hosts[name].reboot()
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
