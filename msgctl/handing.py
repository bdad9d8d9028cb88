"""Calls that carry descriptors: one sendmsg(2) for each, so that msgd knows whose they are.

While the socket takes nothing replies are read, so that neither side can fill both buffers and wait for the
other. More descriptors on their way than the kernel lets this user have is a matter of waiting, too.
"""

import errno
import select
import socket
import time
from array import array
from collections.abc import Sequence

from msgctl.client import Client

AGAIN_S = 0.02  # between two tries where the kernel takes no more descriptors


def hand_over(client: Client, frame: bytes, fds: Sequence[int]) -> None:
    """Write a call with its descriptors, which stay the caller's. Raises Lost."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))]
    client.sock.setblocking(False)
    view = memoryview(frame)
    deadline_s = time.monotonic() + client.timeout_s
    while view:
        try:
            sent = client.sock.sendmsg([view], rights)
        except ConnectionError:
            return  # what msgd said before it closed can still be read, and then its end
        except OSError as error:
            if time.monotonic() > deadline_s:
                raise client.lost(TimeoutError()) from error
            _wait(client, error)
            continue
        view, rights = view[sent:], []


def _wait(client: Client, error: OSError) -> None:
    """Until it may be worth while to try again. Raises Lost where it never is."""
    if error.errno == errno.ETOOMANYREFS:
        time.sleep(AGAIN_S)
        return
    if not isinstance(error, BlockingIOError):
        raise client.lost(error) from error
    poll = select.poll()
    poll.register(client.sock.fileno(), select.POLLIN | select.POLLOUT)
    for _, events in poll.poll(client.timeout_s * 1000):
        if events & select.POLLIN:
            client.feed(client.sock.recv(1 << 18))


def next_answer(client: Client, within_s: float) -> bool:
    """Wait until something was read: whether it was within that time. Raises Lost."""
    poll = select.poll()
    poll.register(client.sock.fileno(), select.POLLIN)
    if not poll.poll(within_s * 1000):
        return False
    try:
        data = client.sock.recv(1 << 18)
    except OSError as error:
        raise client.lost(error) from error
    client.feed(data)
    return True
