"""TOML files become one frozen struct, or a sentence that says which key of which file is wrong.

Files are laid over one another key by key, tables inside tables too, and for each key it is remembered
which file had the last word. The result is then converted key by key along the struct's annotations:
`Annotated[TYPE, Meta(..., description="what is expected")]`. So every error knows its key by itself, and
names file, key, what was read and what was expected. A key that the struct does not have is an error with
the nearest known one: a mistyped key must not become a silent default.

Which keys there are is not this file's business: see `msgd.config`.
"""

import difflib
import json
import tomllib
from collections.abc import Callable
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from msgd.errors import ConfigError

CHECK = "Correct it, then try `msgd --check-config`."
SHOWN = 80  # characters of a wrong value

T = TypeVar("T", bound=msgspec.Struct)


class Settings:
    """A table of settings that grows file by file, and the file that each of its keys came from."""

    def __init__(self, defaults: dict[str, Any]) -> None:
        self.table = dict(defaults)
        self._origins: dict[str, str] = {}

    def read(self, file: str) -> None:
        """Lay one file over what is there. Raises ConfigError when it cannot be read as TOML."""
        try:
            with open(file, "rb") as stream:
                table = tomllib.load(stream)
        except OSError as error:
            raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"{file}: byte {error.start} is not UTF-8, as TOML must be", CHECK) from error
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{file}: this is not valid TOML: {error}", CHECK) from error
        self._merge(self.table, table, file, "")

    def _merge(self, into: dict[str, Any], table: dict[str, Any], file: str, prefix: str) -> None:
        for name, value in table.items():
            key = prefix + name
            self._origins[key] = file
            if isinstance(value, dict):
                if not isinstance(into.get(name), dict):
                    into[name] = {}
                self._merge(into[name], value, file, key + ".")
            else:
                into[name] = value

    def build(self, kind: type[T], parse: Callable[[type, Any], Any]) -> T:
        """The struct; `parse(type, text)` makes types that TOML has not. Raises ConfigError."""
        return self._struct(kind, self.table, "", parse)

    def wrong(self, key: str, value: object, expected: str, why: str = "", hint: str = "") -> ConfigError:
        """The error for one key: file, key, what was read, what was expected."""
        read = json.dumps(value, default=str, ensure_ascii=False)
        if len(read) > SHOWN:
            read = read[: SHOWN - 1] + "…"
        because = f" ({why})" if why else ""
        return ConfigError(
            f"{self._origin(key)}: {key} is {read}{because}; expected {expected}", hint or CHECK
        )

    def _origin(self, key: str) -> str:
        """The file that set the key or the table around it; a default can only come from the environment."""
        while key and key not in self._origins:
            key = key.rpartition(".")[0]
        return self._origins.get(key, "environment")

    def _struct(self, kind: type[T], table: object, prefix: str, parse: Callable[[type, Any], Any]) -> T:
        if not isinstance(table, dict):
            raise self.wrong(prefix[:-1], table, f"a table: [{prefix[:-1]}]")
        hints = get_type_hints(kind, include_extras=True)
        for name in table:
            if name not in hints:
                raise self._unknown(prefix, name, list(hints))
        return kind(
            **{name: self._value(hints[name], raw, prefix + name, parse) for name, raw in table.items()}
        )

    def _value(self, hint: Any, raw: object, key: str, parse: Callable[[type, Any], Any]) -> Any:
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            return self._struct(hint, raw, key + ".", parse)
        if get_origin(hint) is dict:
            return self._named(get_args(hint), raw, key, parse)
        try:
            return msgspec.convert(raw, hint, dec_hook=parse)
        except msgspec.ValidationError as error:
            why = str(error.__cause__ or "")
            raise self.wrong(key, raw, hint.__metadata__[0].description, why) from None

    def _named(self, hints: Any, raw: object, key: str, parse: Callable[[type, Any], Any]) -> dict[str, Any]:
        """A table of tables, by names that a person chose."""
        if not isinstance(raw, dict):
            raise self.wrong(key, raw, f"tables: [{key}.NAME]")
        name_hint, value_hint = hints
        for name in raw:
            try:
                msgspec.convert(name, name_hint)
            except msgspec.ValidationError:
                file, expected = self._origin(f"{key}.{name}"), name_hint.__metadata__[0].description
                raise ConfigError(f"{file}: [{key}.{name}] is no name; expected {expected}", CHECK) from None
        return {name: self._value(value_hint, value, f"{key}.{name}", parse) for name, value in raw.items()}

    def _unknown(self, prefix: str, name: str, known: list[str]) -> ConfigError:
        near = difflib.get_close_matches(name, known, n=1)
        expected = f"did you mean {prefix}{near[0]}?" if near else f"known here: {', '.join(sorted(known))}"
        return ConfigError(f"{self._origin(prefix + name)}: unknown key {prefix}{name}; {expected}", CHECK)
