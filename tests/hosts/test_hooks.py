"""Hooks under the service: refused by the shipped unit, permitted by the drop-in, as another user, too."""

import json
from collections.abc import Callable, Iterator

import pytest

from msgd.capabilities import AS_USER
from tests.hosts.conftest import restore
from tests.hosts.processes import wait_until
from tests.hosts.service import Service

pytestmark = [pytest.mark.hosts, pytest.mark.slow, pytest.mark.timeout(240)]

Services = tuple[Service, Service]

SETTINGS = "/etc/msgd/msgd.d/hooks.toml"
DROP_IN = "/etc/systemd/system/msgd.service.d/msgd-exec.conf"
SCRIPT = "id -un; grep CapPrm /proc/self/status; cat; echo; [ -z $MSGD_HEADER_SLOW ] || sleep 1000"
HOOKS = f"""
[hook.own]
command = ["/bin/sh", "-c", "{SCRIPT}"]
[hook.nobodys]
command = ["/bin/sh", "-c", "{SCRIPT}"]
user = "nobody"
timeout = "2s"
max_attempts = 1
"""
NONE = "0" * 16
BEFORE = "before it was permitted"


@pytest.fixture(scope="module")
def hooked(installed: Services) -> Iterator[Services]:
    """Host b has hooks in its configuration, and its unit as it is shipped."""
    restore(installed)
    _, b = installed
    b.host.run("sh", "-c", f"cat > {SETTINGS}", stdin=HOOKS)
    b.systemctl("reload", "msgd")
    try:
        yield installed
    finally:
        b.host.run("rm", "-rf", SETTINGS, DROP_IN.rpartition("/")[0])
        b.systemctl("daemon-reload")
        b.systemctl("restart", "msgd")
        for name in ("own", "nobodys"):
            b.ctl("consumer", "rm", f"hook-{name}")


@pytest.fixture(scope="module")
def permitted(hooked: Services) -> Services:
    """And now what the refusal tells a person to do has been done. What came before waits for it."""
    a, b = hooked
    sent(a, BEFORE)
    b.host.run("install", "-D", "-m", "0644", "/opt/msgd/share/msgd-exec.conf", DROP_IN)
    b.systemctl("daemon-reload")
    b.systemctl("restart", "msgd")
    b.wait_connected()
    return hooked


def events(service: Service, name: str) -> list[dict[str, str]]:
    service.host.run("journalctl", "--sync")
    lines = service.host.run("journalctl", "-b", "-o", "json", "-u", "msgd", f"EVENT={name}").stdout
    return [json.loads(line) for line in lines.splitlines()]


def said(service: Service, hook: str, id: str) -> list[str]:
    """What a hook's command has printed for this message."""
    return [e["TEXT"] for e in events(service, "hook.said") if (e["HOOK"], e["MSG_ID"]) == (hook, id)]


def queue(service: Service, hook: str) -> list[dict[str, str]]:
    return service.query("queue", "--as", f"hook-{hook}")


def sent(a: Service, *words: str) -> str:
    done = a.ctl("-o", "json", "send", "host-b", "--wait=stored", *words)
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["id"])


def eventually(found: Callable[[], object], expected: object, what: str) -> None:
    wait_until(lambda: found() == expected, 30, what)


def test_the_shipped_unit_runs_no_hook_and_says_so(hooked: Services) -> None:
    """Nothing is executed, messages come in as ever, journal and --check-config name unit and way out."""
    a, b = hooked
    id = sent(a, "for nobody")
    refused = {event["HOOK"]: event for event in events(b, "hook.refused")}
    assert {"own", "nobodys"} <= set(refused)
    assert "may not be executed by this service" in refused["own"]["REASON"]
    assert "/opt/msgd/share/msgd-exec.conf" in refused["own"]["HINT"]
    assert [] == said(b, "own", id)
    done = b.host.run("/opt/msgd/bin/msgd", "--check-config", check=False)
    assert (78, "") == (done.returncode, done.stdout)
    assert "Hook own would not run: msgd.service may not execute /bin/sh (NoExecPaths=" in done.stderr


def test_with_the_drop_in_hooks_run_also_as_another_user(permitted: Services) -> None:
    """Each as its user, without any capability; what came before is handled; what takes too long is ended."""
    a, b = permitted
    (first,) = (message["id"] for message in b.log("in") if message["text"] == BEFORE)
    assert "The configuration is good.\n" == b.host.run("/opt/msgd/bin/msgd", "--check-config").stdout
    for hook, user in (("own", "msgd"), ("nobodys", "nobody")):
        expected = [user, f"CapPrm:\t{NONE}", BEFORE]
        eventually(lambda hook=hook: said(b, hook, first), expected, f"the output of {hook}")
    slow = sent(a, "too slow", "-H", "slow=yes")
    aside = [(slow, "aside")]
    eventually(lambda: [(row["id"], row["state"]) for row in queue(b, "nobodys")], aside, "the end of it")
    failed = next(event for event in events(b, "hook.failed") if event["MSG_ID"] == slow)
    assert ("nobodys", "it took longer than 2 s") == (failed["HOOK"], failed["REASON"])
    assert "" == b.host.run("pgrep", "-u", "nobody", check=False).stdout


def test_only_supervisor_and_hooks_keep_the_capabilities(permitted: Services) -> None:
    """Whoever reads what strangers and clients send has none of them."""
    _, b = permitted
    mask = f"{sum(1 << number for number in AS_USER):016x}"
    roles = {b.show("MainPID"): mask, b.process("hook own"): mask}
    roles |= {b.process(role): NONE for role in ("log", "index", "peer host-a")}
    for pid, expected in roles.items():
        status = b.host.run("cat", f"/proc/{pid}/status").stdout
        assert f"CapEff:\t{expected}\n" in status
        assert f"CapPrm:\t{expected}\n" in status
