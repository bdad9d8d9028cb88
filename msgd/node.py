"""Who this node is, for every process that speaks to peers."""

import os
import ssl
from dataclasses import dataclass, replace

from msgd.config import Config
from msgd.model import DEFAULT_PORT, MAX_MESSAGE_BYTES
from msgd.peer.frames import Limits, Rotation
from msgd.trust import tls
from msgd.trust.identity import NodeKey


@dataclass(frozen=True, slots=True)
class Node:
    """Made once in the supervisor and shared by fork; replaced when a setting or the key changes."""

    key: NodeKey
    name: str
    instance: bytes  # 16 random bytes of this start
    limits: Limits
    acceptor: ssl.SSLContext
    dialler: ssl.SSLContext
    bind_host: str  # dial from this address; empty: let the kernel choose
    handshake_s: float
    keepalive_s: float
    link_dead_s: float
    port: int = DEFAULT_PORT  # where peers reach it
    chain: tuple[Rotation, ...] = ()  # of its key, oldest first, once the log process has told


def node_of(config: Config, key: NodeKey) -> Node:
    """This start of this node."""
    acceptor, dialler = tls.acceptor_context(key), tls.dialler_context()
    hosts = {address.host for address in config.listen}
    concrete = hosts.pop() if len(hosts) == 1 else ""
    bind_host = "" if concrete in ("0.0.0.0", "::") else concrete
    limits = config.limits
    return Node(
        key,
        config.name,
        os.urandom(16),
        _limits(config),
        acceptor,
        dialler,
        bind_host,
        limits.handshake_s,
        limits.keepalive_s,
        limits.link_dead_s,
    )


def node_of_key(node: Node, key: NodeKey) -> Node:
    """The same node with another key."""
    return replace(node, key=key, acceptor=tls.acceptor_context(key))


def node_with(node: Node, config: Config) -> Node:
    """The same start with the limits of another configuration."""
    limits = config.limits
    return replace(
        node,
        limits=_limits(config),
        handshake_s=limits.handshake_s,
        keepalive_s=limits.keepalive_s,
        link_dead_s=limits.link_dead_s,
    )


def _limits(config: Config) -> Limits:
    limits = config.limits
    return Limits(
        window_bytes=limits.window_bytes,
        window_batches=limits.window_batches,
        message_bytes=MAX_MESSAGE_BYTES,
        keepalive_s=max(1, round(limits.keepalive_s)),
    )
