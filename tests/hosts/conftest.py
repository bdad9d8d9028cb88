"""The two hosts with msgd installed, started and paired: made once, used by every test that asks for them."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.building import require_wheels
from tests.hosts.hosts import two_hosts
from tests.hosts.service import SOURCE, Service, pair
from tests.require import REPOSITORY, require


@pytest.fixture(scope="session")
def installed() -> Iterator[tuple[Service, Service]]:
    """msgd installed, started and paired on both hosts."""
    require("root", "namespaces", "systemd", "ip", "strace")
    require_wheels()
    with two_hosts((f"{REPOSITORY}:{SOURCE}",)) as hosts:
        a, b = Service(hosts.a), Service(hosts.b)
        with ThreadPoolExecutor() as both:
            list(both.map(Service.install, (a, b)))
        for service in (a, b):
            service.systemctl("start", "msgd")
        pair(a, b)
        yield a, b


@pytest.fixture
def services(installed: tuple[Service, Service]) -> tuple[Service, Service]:
    """Each test begins with both services up and connected, whatever the one before left."""
    restore(installed)
    return installed


def restore(installed: tuple[Service, Service]) -> None:
    """Both services up and connected."""
    for service in installed:
        if not service.host.is_on:
            service.host.boot()
            service.host.wait_up()
        service.host.heal()
        if service.state() != "active":
            service.systemctl("start", "msgd")
    for service in installed:
        service.wait_connected()
