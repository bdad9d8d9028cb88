"""Settings: where they come from, what wins, and that every mistake is told with file and key."""

from pathlib import Path

import msgspec
import pytest

from msgd import config
from msgd.config import Address, Config, History, Limits, ListenAddress, load
from msgd.errors import EX_CONFIG, ConfigError

USER = {"HOME": "/home/eva", "XDG_RUNTIME_DIR": "/run/user/1000"}


def loaded(tmp_path: Path, text: str) -> Config:
    """The settings of one file, as root."""
    file = tmp_path / "msgd.toml"
    file.write_text(text)
    return load(str(file), {}, 0)


@pytest.mark.parametrize(
    ("env", "uid", "state", "socket"),
    [
        ({}, 0, "/var/lib/msgd", "/run/msgd/control.sock"),
        ({"STATE_DIRECTORY": "/var/lib/msgd:/x"}, 998, "/var/lib/msgd", "/run/msgd/control.sock"),
        ({"STATE_DIRECTORY": "/s", "RUNTIME_DIRECTORY": "/run/m2"}, 0, "/s", "/run/m2/control.sock"),
        (USER, 1000, "/home/eva/.local/state/msgd", "/run/user/1000/msgd/control.sock"),
        ({**USER, "XDG_STATE_HOME": "/st"}, 1000, "/st/msgd", "/run/user/1000/msgd/control.sock"),
        (
            {**USER, "XDG_STATE_HOME": "st"},
            1000,
            "/home/eva/.local/state/msgd",
            "/run/user/1000/msgd/control.sock",
        ),
        ({**USER, "STATE_DIRECTORY": "/s"}, 1000, "/s", "/run/user/1000/msgd/control.sock"),
        ({"HOME": "/h"}, 1000, "/h/.local/state/msgd", "/run/user/1000/msgd/control.sock"),
    ],
)
def test_defaults_follow_who_runs_it(
    tmp_path: Path, env: dict[str, str], uid: int, state: str, socket: str
) -> None:
    """Root and system services use the machine's directories, everybody else their own."""
    file = tmp_path / "msgd.toml"
    file.touch()
    settings = load(str(file), env, uid)
    assert (state, socket) == (settings.state, settings.socket)


@pytest.mark.parametrize(
    ("env", "uid", "directory"),
    [
        ({}, 0, "/etc/msgd"),
        ({"STATE_DIRECTORY": "/var/lib/msgd"}, 998, "/etc/msgd"),
        (USER, 1000, "/home/eva/.config/msgd"),
        ({**USER, "STATE_DIRECTORY": "/s", "XDG_CONFIG_HOME": "/c"}, 1000, "/c/msgd"),
    ],
)
def test_the_default_file_follows_who_runs_it(env: dict[str, str], uid: int, directory: str) -> None:
    """A system service reads /etc/msgd; a user's, even below a service manager, the user's own."""
    assert f"{directory}/msgd.toml" == config.default_file(env, uid)


def test_an_absent_default_file_is_fine_and_an_absent_named_one_is_not(tmp_path: Path) -> None:
    """Nobody needs a file; who names one means it."""
    env = {**USER, "XDG_CONFIG_HOME": str(tmp_path)}
    assert load(None, env, 1000).limits == Limits()
    with pytest.raises(ConfigError, match=r"absent.toml: cannot be read: No such file"):
        load(str(tmp_path / "absent.toml"), env, 1000)


def test_drop_ins_are_laid_over_the_file_in_order(tmp_path: Path) -> None:
    """A later file wins key by key; other files and other keys of the same table stay."""
    parts = tmp_path / "msgd.d"
    parts.mkdir()
    (parts / "10-first.toml").write_text('name = "first"\nlog_level = "debug"\n')
    (parts / "20-second.toml").write_text('name = "second"\n[limits]\nper_source = 7\n')
    (parts / "30-note.txt").write_text("not TOML at all")
    (parts / ".40-hidden.toml").write_text("not TOML at all")
    settings = loaded(tmp_path, 'name = "main"\n[limits]\nper_source = 5\nunauthenticated = 9\n')
    assert (settings.name, settings.log_level) == ("second", "debug")
    assert (settings.limits.per_source, settings.limits.unauthenticated) == (7, 9)


def test_an_error_names_the_file_that_had_the_last_word(tmp_path: Path) -> None:
    """The wrong value is in the drop-in, so the drop-in is named; its neighbour is not."""
    (tmp_path / "msgd.d").mkdir()
    (tmp_path / "msgd.d" / "90-bad.toml").write_text("[limits]\nper_source = 0\n")
    with pytest.raises(ConfigError, match=r"msgd.d/90-bad.toml: limits.per_source is 0"):
        loaded(tmp_path, "[limits]\nper_source = 5\n")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("nmae = 1", "unknown key nmae; did you mean name?"),
        (
            "colour = 1",
            (
                "unknown key colour; known here: "
                "access, files, group, history, hook, limits, listen, log_level, name, pairing, peer, "
                "socket, state"
            ),
        ),
        ("[limits]\nwindow_byte = 1", "unknown key limits.window_byte; did you mean limits.window_bytes?"),
        ('[peer.b]\naddres = "x"', "unknown key peer.b.addres; did you mean peer.b.address?"),
        ("limits = 3", "limits is 3; expected a table: [limits]"),
        ("[group.all]", "[group.all] is no name; expected 1 to 63 of a-z, 0-9 and '-', and not all"),
        ('[group.web]\npeers = ["Node 2"]', 'group.web.peers is ["Node 2"]; expected a list of names'),
        ("peer = 3", "peer is 3; expected tables: [peer.NAME]"),
        ("[peer]\nb = 3", "peer.b is 3; expected a table: [peer.b]"),
        ("[peer.B]", "[peer.B] is no name; expected 1 to 63 of a-z, 0-9 and '-'"),
        ('name = "Büro 3"', "name is \"Büro 3\"; expected 1 to 63 of a-z, 0-9 and '-'"),
        ("name = 3", "name is 3; expected 1 to 63 of a-z, 0-9 and '-'"),
        ('log_level = "loud"', 'log_level is "loud"; expected "debug", "info", "warning" or "error"'),
        ('state = "state"', 'state is "state"; expected an absolute path'),
        (f'socket = "/{"x" * 107}"', "expected a path of at most 107 bytes"),
        ("[limits]\nkeepalive_s = nan", "limits.keepalive_s is NaN; expected seconds from 0.1 to 3600"),
        ("[limits]\nper_source = true", "limits.per_source is true; expected a whole number from 1 to 4096"),
        ("[limits]\nper_source = 1.5", "limits.per_source is 1.5; expected a whole number from 1 to 4096"),
        (
            "[limits]\nlink_dead_s = 9",
            "limits.link_dead_s is 9.0; expected at least twice limits.keepalive_s",
        ),
        ('listen = "localhost"', "'localhost' does not appear to be an IPv4 or IPv6 address"),
        ('listen = ["::1", "1.2.3.4:70000"]', "(port 70000 is above 65535); expected"),
        ("listen = [5]", 'listen is [5] (not a text); expected "IP" or "IP:PORT"'),
        ('[peer.b]\naddress = "a b"', 'peer.b.address is "a b"'),
        ('[access]\nsend = "eva"', 'access.send is "eva"; expected a list of users, as "eva", and groups'),
        ('[access]\nadmin = ["%"]', 'access.admin is ["%"]; expected a list of users, as "eva", and groups'),
        (
            '[history]\nkeep_time = "90 dys"',
            'keep_time is "90 dys" (not a duration); expected how long to keep messages, as "90d", "12h"',
        ),
        ('[history]\nkeep_time = "0"', 'history.keep_time is "0" (to keep everything, leave it out)'),
        ("[history]\nkeep_time = 90", "history.keep_time is 90"),
        (
            '[history]\nkeep_size = "10GB"',
            'keep_size is "10GB" (not a size); expected how large the log may become, as "10G" or "500M"',
        ),
        ('[history]\nkeep_size = "0M"', 'history.keep_size is "0M" (to keep everything, leave it out)'),
        ('[history]\nsearch = "yes"', 'history.search is "yes"; expected true or false'),
        ('[files]\npeers = "all"', 'files.peers is "all"; expected "none", "read" or "write"'),
        ('[peer.b]\nfiles = "all"', 'peer.b.files is "all"; expected "none", "read" or "write"'),
        ('[files]\nstore = "files"', 'files.store is "files"; expected an absolute path'),
        (
            '[peer.b]\nquota = "much"',
            'quota is "much" (not a size); expected how much one peer may put there, as "10G" or "500M"',
        ),
        ("[history]\nkeep = 1", "unknown key history.keep; did you mean history.keep_time?"),
        ("name = = 3", "this is not valid TOML: Invalid value (at line 1, column 8)"),
    ],
)
def test_what_is_wrong_is_told_with_file_key_and_expectation(
    tmp_path: Path, text: str, sentence: str
) -> None:
    """One sentence: which file, which key, what was read, what was expected; and the daemon ends with 78."""
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, text)
    assert caught.value.message.startswith(f"{tmp_path}/msgd.toml: ")
    assert sentence in caught.value.message
    assert caught.value.hint
    assert caught.value.code == EX_CONFIG


def test_history_is_kept_for_ever_unless_a_person_says_otherwise(tmp_path: Path) -> None:
    """Nothing goes by default; durations and sizes are read once, and shown as they were written."""
    assert History() == loaded(tmp_path, "").history
    assert (None, None) == (History().keep_time, History().keep_size)
    kept = loaded(tmp_path, '[history]\nkeep_time = "90d"\nkeep_size = "1.5G"\nsearch = true').history
    assert kept.keep_time is not None
    assert kept.keep_size is not None
    assert (90 * 86_400 * 10**9, "90d") == (kept.keep_time.ns, str(kept.keep_time))
    assert (3 << 29, "1.5G") == (kept.keep_size.bytes, str(kept.keep_size))
    assert kept.search
    assert (
        kept == loaded(tmp_path, '[history]\nkeep_time = "2160h"\nkeep_size = "1536M"\nsearch = true').history
    )


def test_a_file_that_is_not_utf8_is_told(tmp_path: Path) -> None:
    """TOML is UTF-8; the error says where it is not."""
    (tmp_path / "msgd.toml").write_bytes(b'name = "b\xfcro"')
    with pytest.raises(ConfigError, match=r"msgd.toml: byte 9 is not UTF-8"):
        load(str(tmp_path / "msgd.toml"), {}, 0)


def test_a_directory_in_place_of_the_file_is_told(tmp_path: Path) -> None:
    """Whatever the system says about reading, the file's name stands before it."""
    with pytest.raises(ConfigError, match=r"cannot be read: Is a directory"):
        load(str(tmp_path), {}, 0)


def test_a_wrong_default_is_blamed_on_the_environment(tmp_path: Path) -> None:
    """No file said it, so no file is named."""
    (tmp_path / "msgd.toml").touch()
    with pytest.raises(ConfigError, match=r'^environment: state is "relative"'):
        load(str(tmp_path / "msgd.toml"), {"STATE_DIRECTORY": "relative"}, 0)


def test_an_illegal_name_comes_with_a_legal_one(tmp_path: Path) -> None:
    """The hint can be copied into the file as it is."""
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, 'name = "Node_3"')
    assert caught.value.hint == 'Near it and legal: name = "node-3"'


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("node3", "node3"),
        ("Node3.example.org", "node3"),
        ("büro_3.local", "b-ro-3"),
        ("-", "node"),
        ("", "node"),
        ("x" * 64, "x" * 63),
        ("x" * 62 + "_y", "x" * 62),
    ],
)
def test_the_default_name_is_the_host_name_made_legal(host: str, name: str) -> None:
    """First label, lower case, everything else a dash; never empty, never too long."""
    assert name == config.default_name(host)


@pytest.mark.parametrize(
    ("text", "host", "port", "shown"),
    [
        ("192.168.1.5", "192.168.1.5", 6743, "192.168.1.5:6743"),
        ("192.168.1.5:1", "192.168.1.5", 1, "192.168.1.5:1"),
        ("[::]:7000", "::", 7000, "[::]:7000"),
        ("[2001:DB8::1]", "2001:db8::1", 6743, "[2001:db8::1]:6743"),
        ("::1", "::1", 6743, "[::1]:6743"),
        ("fe80::1%eth0", "fe80::1%eth0", 6743, "[fe80::1%eth0]:6743"),
        ("node3.example:99", "node3.example", 99, "node3.example:99"),
    ],
)
def test_addresses_are_read_and_shown(text: str, host: str, port: int, shown: str) -> None:
    """With and without port, by name or number; and what is shown is read as the same."""
    address = Address.parse(text)
    assert (host, port, shown) == (address.host, address.port, str(address))
    assert address == Address.parse(shown)


@pytest.mark.parametrize(
    "text", ["", ":1", "a:b", "a:1:2", "[a]:1", "[::1]x", "a:99999", "a/b", "[::1]:", "a b"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    """ValueError, which load turns into a sentence."""
    with pytest.raises(ValueError):
        Address.parse(text)


def test_listen_takes_one_or_several_or_none(tmp_path: Path) -> None:
    """A text, a list, and the empty list for a node that only dials."""
    assert (ListenAddress("127.78.0.1", 1),) == loaded(tmp_path, 'listen = "127.78.0.1:1"').listen
    both = loaded(tmp_path, 'listen = ["0.0.0.0", "[::]"]').listen
    assert [str(address) for address in both] == ["0.0.0.0:6743", "[::]:6743"]
    assert loaded(tmp_path, "listen = []").listen == ()
    assert tuple(map(str, loaded(tmp_path, "").listen)) == ("0.0.0.0:6743",)


def test_a_peer_may_have_another_address(tmp_path: Path) -> None:
    """[peer.NAME] overrides where it is dialled."""
    settings = loaded(tmp_path, '[peer.b]\naddress = "b.example"\n[peer.c]\n')
    assert Address("b.example") == settings.peer["b"].address
    assert settings.peer["c"].address is None


def test_reload_tells_what_it_cannot_apply(tmp_path: Path) -> None:
    """Exactly the changed ones among name, listen, state and socket."""
    old = loaded(tmp_path, 'name = "a"')
    new = loaded(tmp_path, 'name = "b"\nstate = "/x"\nlog_level = "debug"\n[limits]\nper_source = 9')
    assert config.reloadable_difference(old, new) == ["name", "state"]
    assert config.reloadable_difference(old, loaded(tmp_path, 'name = "a"\nlisten = "0.0.0.0:6743"')) == []


def test_every_default_limit_is_within_its_own_range(tmp_path: Path) -> None:
    """Writing the defaults into a file changes nothing."""
    lines = [f"{field} = {value}" for field, value in msgspec.structs.asdict(Limits()).items()]
    assert loaded(tmp_path, "[limits]\n" + "\n".join(lines)).limits == Limits()


@pytest.mark.parametrize("kind", [Config, Limits, config.PeerSettings])
def test_every_key_has_a_comment(kind: type[msgspec.Struct]) -> None:
    """A key nobody explains is one nobody can set: a comment stands above it or its group."""
    lines = Path(config.__file__).read_text().splitlines()
    start = lines.index(next(line for line in lines if line.startswith(f"class {kind.__name__}(")))
    block = lines[start : lines.index("", start + 3)]
    keys = [at for at, line in enumerate(block) if line.strip().split(":")[0] in kind.__struct_fields__]
    assert len(kind.__struct_fields__) == len(keys)
    assert block[min(keys) - 1].strip().startswith("#")


def test_an_unreadable_drop_in_directory_is_told(tmp_path: Path) -> None:
    """It may hold the setting that matters, so it is not passed over."""
    (tmp_path / "msgd.d").write_text("a file")
    with pytest.raises(ConfigError, match=r"msgd.d: cannot be read: Not a directory"):
        loaded(tmp_path, "")


def test_a_user_without_a_home_is_told() -> None:
    """No HOME and no entry in the user database: an error, not a traceback."""
    uid = next(uid for uid in range(60000, 60100) if not _is_user(uid))
    with pytest.raises(ConfigError, match=f"user {uid} has no home directory"):
        load(None, {}, uid)


def _is_user(uid: int) -> bool:
    return any(line.split(":")[2] == str(uid) for line in Path("/etc/passwd").read_text().splitlines())
