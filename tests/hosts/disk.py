"""What a host boots from: the upper directory of an overlay. It survives a power cut and ends with the pair.

Only what must differ from the machine is written: the host's names, a journal that is kept, and masks for
every unit that is not ours (the machine's own services, timers and everything that would reach for hardware).
"""

import os
import tempfile
from pathlib import Path

ADDRESSES = {"a": "192.168.1.4", "b": "192.168.1.5"}
HOSTS_FILE = "127.0.0.1 localhost\n::1 localhost\n192.168.1.4 host-a\n192.168.1.5 host-b\n"
JOURNAL = """[Journal]
Storage=persistent
Audit=no
ReadKMsg=no
SystemMaxUse=64M
RateLimitIntervalSec=0
"""

MASKED = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
    "man-db.timer",
    "logrotate.timer",
    "e2scrub_reap.service",
    "getty-static.service",
    "console-getty.service",
    "systemd-timesyncd.service",
    "systemd-networkd.service",
    "systemd-resolved.service",
    "systemd-udevd.service",
    "systemd-udev-trigger.service",
    "systemd-modules-load.service",
    "systemd-sysctl.service",
    "systemd-random-seed.service",
    "systemd-binfmt.service",
    "systemd-logind.service",
    "systemd-remount-fs.service",
    "hwclock.service",
    "cron.service",
    "ssh.service",
    "docker.service",
    "containerd.service",
    "epmd.service",
    "fio.service",
    "systemd-udevd-kernel.socket",
    "systemd-udevd-control.socket",
    "systemd-journald-audit.socket",
    "docker.socket",
    "epmd.socket",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "sys-kernel-config.mount",
    "sys-fs-fuse-connections.mount",
    "dev-hugepages.mount",
    "proc-sys-fs-binfmt_misc.automount",
    "getty.target",
    "remote-fs.target",
    "swap.target",
)
WANTS = ("multi-user.target.wants", "timers.target.wants", "sockets.target.wants")

OVERLAY_MAGIC = "overlay"


def base_directory() -> Path:
    """A directory whose file system can carry an overlay's upper half: not itself an overlay."""
    for candidate in (os.environ.get("MSGD_HOSTS_DIR"), tempfile.gettempdir(), "/var/tmp", "/dev/shm"):
        if candidate and Path(candidate).is_dir() and file_system(Path(candidate)) != OVERLAY_MAGIC:
            return Path(candidate)
    raise RuntimeError(
        "no directory for the hosts' disks: set MSGD_HOSTS_DIR to one that is not on an overlay"
    )


def file_system(path: Path) -> str:
    """Type of the file system that `path` lies on, by the longest mount point above it."""
    best, kind = "", ""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, this_kind, *_ = line.split()
        if path.resolve().is_relative_to(point) and len(point) >= len(best):
            best, kind = point, this_kind
    return kind


def prepare(name: str, directory: Path) -> None:
    """Make the disk of host `name` below `directory`."""
    for part in ("root", "disk/work", "disk/up/var/log/journal", "disk/up/etc/systemd/journald.conf.d"):
        (directory / part).mkdir(parents=True)
    (directory / "console.log").touch()
    etc = directory / "disk/up/etc"
    (etc / "machine-id").write_text(f"a1{ord(name):030x}\n")
    (etc / "hostname").write_text(f"host-{name}\n")
    (etc / "hosts").write_text(HOSTS_FILE)
    (etc / "systemd/journald.conf.d/host.conf").write_text(JOURNAL)
    units = etc / "systemd/system"
    units.mkdir()
    for unit in [*MASKED, *enabled_here()]:
        mask(units / unit)


def enabled_here() -> list[str]:
    """Units that the machine enables for itself (databases, brokers), as WANTS/UNIT."""
    return [
        f"{wants}/{unit}"
        for wants in WANTS
        if Path("/etc/systemd/system", wants).is_dir()
        for unit in os.listdir(f"/etc/systemd/system/{wants}")
    ]


def mask(unit: Path) -> None:
    unit.parent.mkdir(exist_ok=True)
    unit.symlink_to("/dev/null")
