"""Runs first inside a host's namespaces, builds its root and becomes its PID 1 (systemd).

The root is an overlay: the machine's own / below, the host's disk (`disk.py`) above. On it comes what a
container manager mounts: proc, sys, cgroup2, dev, run, tmp. Rules:
- nothing a host does reaches the machine: /sys and /proc/sys are read-only, but for /proc/sys/net, which
  belongs to the host's own network namespace;
- each boot has a boot id of its own, or `journalctl -b` would mix hosts and boots;
- mounts are shared again before systemd starts: in a container it leaves that to the manager, and without it
  LoadCredential= directories are empty.
Called as: guest.py NAME DIRECTORY [SOURCE:TARGET ...], where each SOURCE is seen read-only at TARGET.
"""

import os
import subprocess
import sys
import uuid
from pathlib import Path

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
SYSTEMD = "/lib/systemd/systemd"
ARGUMENTS = (
    "--log-target=journal",  # else systemd's own lines ("Watchdog timeout") are missing from `journalctl -u`
    "--log-level=info",
    "--show-status=0",
    "--unit=multi-user.target",
)


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def bind(source: str, target: str) -> None:
    mount("--bind", source, target)


def read_only(target: str) -> None:
    mount("-o", "remount,bind,ro", target)


def mount_root(directory: Path) -> Path:
    root = directory / "root"
    upper, work = directory / "disk/up", directory / "disk/work"
    mount("-t", "overlay", "overlay", "-o", f"lowerdir=/,upperdir={upper},workdir={work}", str(root))
    return root


def mount_kernel(directory: Path) -> None:
    mount("-t", "proc", "-o", "nosuid,nodev,noexec", "proc", "proc")
    mount("-t", "sysfs", "-o", "nosuid,nodev,noexec", "sysfs", "sys")
    mount("-t", "cgroup2", "-o", "nosuid,nodev,noexec", "cgroup2", "sys/fs/cgroup")
    read_only("sys")
    boot_id = directory / "boot_id"
    boot_id.write_text(f"{uuid.uuid4()}\n")
    bind(str(boot_id), "proc/sys/kernel/random/boot_id")
    bind("proc/sys/net", "proc/sys/net")
    mount("--rbind", "proc/sys", "proc/sys")
    read_only("proc/sys")
    if Path("proc/sysrq-trigger").exists():
        bind("proc/sysrq-trigger", "proc/sysrq-trigger")
        read_only("proc/sysrq-trigger")


def mount_devices(directory: Path) -> None:
    mount("-t", "tmpfs", "-o", "mode=755,nosuid", "tmpfs", "dev")
    for name in (*DEVICES, "console"):
        Path("dev", name).touch()
    for name in DEVICES:
        bind(f"/dev/{name}", f"dev/{name}")
    bind(str(directory / "console.log"), "dev/console")
    for name in ("pts", "shm", "mqueue"):
        Path("dev", name).mkdir()
    mount("-t", "devpts", "-o", "newinstance,ptmxmode=0666,mode=620,gid=5", "devpts", "dev/pts")
    mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", "dev/shm")
    links = {"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}
    for name, target in links.items():
        Path("dev", name).symlink_to(target)


def mount_scratch(shares: list[str]) -> None:
    mount("-t", "tmpfs", "-o", "mode=755,nosuid,nodev", "tmpfs", "run")
    mount("-t", "tmpfs", "-o", "mode=1777,nosuid,nodev", "tmpfs", "tmp")
    for share in shares:
        source, _, target = share.partition(":")
        inside = target.lstrip("/")
        Path(inside).mkdir(parents=True, exist_ok=True)
        bind(source, inside)
        read_only(inside)


def main() -> None:
    name, directory, shares = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
    os.chdir(mount_root(directory))
    mount_kernel(directory)
    mount_devices(directory)
    mount_scratch(shares)
    Path(".old").mkdir(exist_ok=True)
    subprocess.run(["pivot_root", ".", ".old"], check=True)
    subprocess.run(["umount", "-l", "/.old"], check=True)
    Path("/.old").rmdir()
    mount("--make-rshared", "/")
    subprocess.run(["hostname", f"host-{name}"], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    console = os.open("/dev/console", os.O_WRONLY)
    for fd in (1, 2):
        os.dup2(console, fd)
    os.execve(SYSTEMD, [SYSTEMD, *ARGUMENTS], {**os.environ, "container": "manual"})


if __name__ == "__main__":
    main()
