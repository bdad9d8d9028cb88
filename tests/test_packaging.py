"""What `make install` puts on a machine: units that systemd accepts, walls that hold, only final paths."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.building import make, require_wheels
from tests.require import REPOSITORY, require

UNITS = sorted(path for path in (REPOSITORY / "systemd").iterdir() if path.is_file())
USER_UNITS = sorted((REPOSITORY / "systemd/user").iterdir())
MAX_EXPOSURE = 12  # tenths; redis-server of Debian 12 has 12, most daemons more than 80


def names(units: list[Path]) -> list[str]:
    return [unit.name for unit in units]


def with_commands_that_exist(units: list[Path], directory: Path) -> list[str]:
    """Copies of `units` that `systemd-analyze verify` accepts on a machine without msgd."""
    for unit in units:
        (directory / unit.name).write_text(re.sub(r"/opt/msgd/bin/\w+", "/bin/true", unit.read_text()))
    return [str(directory / unit.name) for unit in units]


def analyze(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *words],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_systemd_finds_nothing_to_say_about_the_units(tmp_path: Path) -> None:
    """`systemd-analyze verify` is silent about every unit of the system."""
    require("systemd")
    done = analyze("verify", *with_commands_that_exist(UNITS, tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_systemd_finds_nothing_to_say_about_the_user_units(tmp_path: Path) -> None:
    """The same for the user manager's units."""
    require("systemd")
    units = with_commands_that_exist(USER_UNITS, tmp_path)
    done = analyze("--user", "verify", *units, XDG_RUNTIME_DIR=str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_service_is_as_walled_in_as_promised() -> None:
    """The exposure level of the shipped unit is at most 1.2."""
    require("systemd")
    unit = str(REPOSITORY / "systemd/msgd.service")
    done = analyze("security", "--offline=yes", f"--threshold={MAX_EXPOSURE}", unit)
    assert done.returncode == 0, done.stdout[-200:]
    assert "exposure level for msgd.service: 1.2" in done.stdout


def test_systemd_takes_the_drop_in_for_hooks(tmp_path: Path) -> None:
    """It is sound together with the unit, and brings the exposure level to 1.8."""
    require("systemd")
    units = with_commands_that_exist(UNITS, tmp_path)
    drop_in = tmp_path / "msgd.service.d/msgd-exec.conf"
    drop_in.parent.mkdir()
    drop_in.write_text((REPOSITORY / "packaging/msgd-exec.conf").read_text())
    done = analyze("verify", *units)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    report = analyze("security", "--offline=yes", str(tmp_path / "msgd.service")).stdout
    assert "exposure level for msgd.service: 1.8" in report


def test_user_and_system_units_have_the_same_names() -> None:
    """What an operator knows of the one holds for the other."""
    assert names(USER_UNITS) == names(UNITS)


def test_the_constraints_pin_everything_that_is_required() -> None:
    """Each dependency of pyproject.toml has exactly one version in the constraints."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    needed = project["dependencies"] + project["optional-dependencies"]["dev"]
    lines = (REPOSITORY / "packaging/constraints.txt").read_text().splitlines()
    pinned = [line.split("==")[0].lower() for line in lines if not line.startswith("#")]
    assert all("==" in line for line in lines if not line.startswith("#"))
    assert sorted(set(pinned)) == sorted(pinned)
    assert {re.split(r"[><=!~\[ ]", need)[0].lower() for need in needed} <= set(pinned)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree that `make install DESTDIR=…` makes for a packager, with a prefix of its own."""
    require_wheels()
    directory = tmp_path_factory.mktemp("package")
    make("install", f"DESTDIR={directory}", "PREFIX=/usr/lib/msgd", "BINDIR=/usr/bin")
    return directory


@pytest.mark.slow
def test_a_package_names_only_final_paths(package: Path) -> None:
    """Neither the packager's directory nor the source tree stands in any installed file."""
    for needle in (str(package), str(REPOSITORY)):
        found = subprocess.run(
            ["grep", "-rlF", needle, str(package)], capture_output=True, text=True, check=False
        )
        assert found.stdout == ""


@pytest.mark.slow
def test_a_package_has_all_its_parts_in_place(package: Path) -> None:
    """Commands, units with the chosen prefix, user and directories."""
    for name in ("msgd", "msgctl"):
        assert os.readlink(package / "usr/bin" / name) == f"/usr/lib/msgd/bin/{name}"
        first = (package / "usr/lib/msgd/bin" / name).read_text().splitlines()[0]
        assert first == "#!/usr/lib/msgd/bin/python"
    units = package / "usr/lib/systemd/system"
    assert sorted(path.name for path in units.iterdir()) == names(UNITS)
    service = (units / "msgd.service").read_text()
    assert "ExecStart=/usr/lib/msgd/bin/msgd\n" in service
    assert "/opt/msgd" not in service
    assert sorted(path.name for path in (package / "usr/lib/systemd/user").iterdir()) == names(USER_UNITS)
    drop_in = (package / "usr/lib/msgd/share/msgd-exec.conf").read_text()
    assert "0644 /usr/lib/msgd/share/msgd-exec.conf /etc/systemd/system/" in drop_in
    assert "/opt/msgd" not in drop_in
    assert (package / "usr/lib/sysusers.d/msgd.conf").is_file()
    assert (package / "usr/lib/tmpfiles.d/msgd.conf").is_file()


@pytest.mark.slow
def test_a_package_runs_from_its_own_libraries(package: Path) -> None:
    """The installed msgctl says its version without the source tree on its path."""
    python = package / "usr/lib/msgd/bin/python"
    program = "import msgctl, msgd, sys; print(msgd.__file__, msgctl.__file__)"
    done = subprocess.run([python, "-I", "-c", program], capture_output=True, text=True, cwd="/", check=True)
    assert all(path.startswith(f"{package}/usr/lib/msgd/lib/") for path in done.stdout.split())


@pytest.mark.slow
def test_uninstall_leaves_no_file(package: Path) -> None:
    """All that install put there is gone; a second time changes nothing; a foreign directory is refused."""
    places = (f"DESTDIR={package}", "PREFIX=/usr/lib/msgd", "BINDIR=/usr/bin")
    for _ in range(2):
        make("uninstall", *places)
        assert [path for path in package.rglob("*") if not path.is_dir()] == []
    foreign = package / "usr/lib/msgd/theirs"
    foreign.parent.mkdir()
    foreign.write_text("not ours")
    with pytest.raises(AssertionError, match="is not an installation of msgd"):
        make("uninstall", *places)
    assert foreign.read_text() == "not ours"
