"""The rehearsal before the first fork: a node meets itself in both roles."""

import os

from msgd.config import load
from msgd.meeting import rehearse
from msgd.node import node_of
from msgd.trust.identity import load_or_create


def test_a_rehearsal_is_whole_meetings_in_both_roles(tmp_path):
    """Handshakes are finished as acceptor and as dialler, and nobody is left behind."""
    path = tmp_path / "msgd.toml"
    path.write_text(f'name = "a"\nlisten = "127.0.0.1:6743"\nstate = "{tmp_path}/state"\n')
    (tmp_path / "state").mkdir(mode=0o700)
    config = load(str(path), dict(os.environ), os.geteuid())
    node = node_of(config, load_or_create(config.state, None))

    rehearse(node, times=2)

    assert 2 == node.acceptor.session_stats()["accept_good"]
    assert 2 == node.dialler.session_stats()["connect_good"]
    try:
        pid, _ = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        pid = 0
    assert 0 == pid
