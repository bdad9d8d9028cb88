"""The store of files under the service: its own place, another one that the unit must permit, and casts."""

from collections.abc import Iterator

import pytest

from tests.hosts.conftest import restore
from tests.hosts.service import Service

pytestmark = [pytest.mark.hosts, pytest.mark.slow, pytest.mark.timeout(240)]

Services = tuple[Service, Service]

SETTINGS = "/etc/msgd/msgd.d/files.toml"
DROP_IN = "/etc/systemd/system/msgd.service.d/store.conf"
STORE = "/srv/files"
OWN = '[files]\npeers = "write"\n'
ELSEWHERE = f'{OWN}store = "{STORE}"\n'
GROUP = '[group.web]\npeers = ["host-b"]\n'


@pytest.fixture
def services(installed: Services) -> Iterator[Services]:
    """Host a has a group, host b lets peers write."""
    restore(installed)
    a, b = installed
    configure(a, GROUP)
    configure(b, OWN)
    try:
        yield installed
    finally:
        b.host.run("rm", "-rf", DROP_IN.rpartition("/")[0], STORE)
        for service in installed:
            service.host.run("rm", "-f", SETTINGS)
        b.systemctl("daemon-reload")
        b.systemctl("restart", "msgd")
        a.systemctl("reload", "msgd")


def configure(service: Service, settings: str) -> None:
    service.host.run("sh", "-c", f"cat > {SETTINGS}", stdin=settings)
    service.systemctl("reload", "msgd")


def checked(service: Service) -> tuple[int, str]:
    done = service.host.run("/opt/msgd/bin/msgd", "--check-config", check=False)
    return done.returncode, done.stderr or done.stdout


def test_files_are_put_and_cast_under_the_shipped_unit(services: Services) -> None:
    """Whatever the unit forbids, it forbids nothing that this needs."""
    a, b = services
    a.host.run("sh", "-c", "mkdir -p /tmp/tree/bare && echo hola > /tmp/tree/file")
    for words in (("put", "host-b", "/tmp/tree", "put"), ("cast", "--wait=stored", "/tmp/tree", "@web")):
        done = a.ctl("file", *words)
        assert done.returncode == 0, done.stderr
    for name in ("put", "tree"):
        store = f"/var/lib/msgd/files/{name}"
        assert "hola\n" == b.host.run("cat", f"{store}/file").stdout
        b.host.run("test", "-d", f"{store}/bare")


def test_a_store_elsewhere_is_permitted_as_check_config_says(services: Services) -> None:
    a, b = services
    b.host.run("sh", "-c", f"cat > {SETTINGS}", stdin=ELSEWHERE)
    code, said = checked(b)
    assert 78 == code
    assert f"store {STORE}: msgd.service may not write there" in said
    assert f"ReadWritePaths={STORE}" in said and DROP_IN in said
    b.host.run("mkdir", "-p", STORE, DROP_IN.rpartition("/")[0])
    b.host.run("sh", "-c", f"cat > {DROP_IN}", stdin=f"[Service]\nReadWritePaths={STORE}\n")
    b.systemctl("daemon-reload")
    code, said = checked(b)
    assert (78, True) == (code, "is not msgd's own" in said)
    b.host.run("chown", "msgd:", STORE)
    assert (0, "The configuration is good.\n") == checked(b)
    b.systemctl("restart", "msgd")
    b.wait_connected()
    done = a.ctl("file", "put", "host-b", "/etc/hostname", "name")
    assert done.returncode == 0, done.stderr
    assert "host-a\n" == b.host.run("cat", f"{STORE}/name").stdout
