"""Runs on a host: sends numbered messages through outages and prints the id of each acknowledged one.

Called as: writer.py PEER FILE; it ends once FILE is there. A send that was refused, or whose fate is unknown,
prints nothing: only what was acknowledged may be asked for afterwards.
"""

import os
import sys

from msgctl.client import Client
from msgd.errors import MsgdError

SOCKET = "/run/msgd/control.sock"


def main() -> None:
    peer, end = sys.argv[1], sys.argv[2]
    client, number = None, 0
    while not os.path.exists(end):
        number += 1
        try:
            client = client or Client(SOCKET)
            receipt = client.send(peer, f"message {number}", wait="queued")
        except MsgdError:
            client = None
            continue
        print(receipt["id"], flush=True)


if __name__ == "__main__":
    main()
