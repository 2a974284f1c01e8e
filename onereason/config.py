"""Configuration: small frozen dataclasses, filled from YAML and then from `key=value` overrides.

Unknown keys and values of the wrong type are refused with the file, the key and the nearest known name, before anything
is loaded.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from onereason.errors import ConfigError

T = TypeVar("T")


def load_config(cls: type[T], path: str | Path | None = None, overrides: Sequence[str] = ()) -> T:
    """Builds a (nested, frozen) dataclass from YAML and overrides such as `training.learning_rate=1e-3`.

    Raises:
        ConfigError: unreadable YAML, an unknown key, a missing key, or a value of the wrong type.
    """
    values: dict[str, Any] = {}
    source = "the configuration"
    if path is not None:
        path = Path(path)
        source = str(path)
        if not path.is_file():
            raise ConfigError(f"configuration file not found: {path}.")
        try:
            loaded = yaml.load(path.read_text("utf-8"), _Loader)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not valid YAML: {error}.") from error
        if not isinstance(loaded or {}, dict):
            raise ConfigError(f"{path}: expected keys and values at the top level, got {type(loaded).__name__}.")
        values = loaded or {}
    for override in overrides:
        _apply_override(values, override)
    return build_config(cls, values, source)


def build_config(cls: type[T], values: Mapping[str, Any], source: str = "the configuration") -> T:
    """The dataclass `cls` filled from nested mappings, with every key known and every value of its type."""
    _check_keys(cls, values, source, "")
    try:
        return TypeAdapter(cls).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        prefix = f"{source}: {key}: " if key else f"{source}: "
        if first["type"] == "value_error":  # raised by a dataclass's own check: it says the value and the rule
            raise ConfigError(f"{prefix}{first['ctx']['error']}") from error
        given = "" if first["type"] == "missing" else f", got {first['input']!r}"
        raise ConfigError(f"{prefix}{first['msg']}{given}.") from error


def check_seed(seed: int, name: str = "seed") -> None:
    """`ConfigError` for a seed that one of numpy, scikit-learn, faiss and torch would refuse."""
    if not 0 <= seed < 2**32:
        raise ConfigError(f"{name} must lie in 0 .. {2**32 - 1}, got {seed}.")


def to_dict(config: Any) -> dict[str, Any]:
    """A dataclass as plain nested dictionaries, for manifests and logs."""
    return dataclasses.asdict(config)


_MERGE = "tag:yaml.org,2002:merge"
"""Of the key `<<`, which takes over the keys of another group; keys beside it win."""


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads `1e-3` as a string; people mean a number. Repeated keys are refused."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value if key.tag != _MERGE]
        twice = next((k for i, k in enumerate(keys) if k in keys[:i]), None)
        if twice is not None:
            raise yaml.YAMLError(f"key {twice!r} stands twice")
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, sign, text = override.partition("=")
    key = key.strip().lstrip("-")
    if not sign or not key:
        raise ConfigError(f"override {override!r} is not of the form key=value, e.g. training.learning_rate=1e-3.")
    try:
        value = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"override {override!r}: the value is not valid YAML ({error}).") from error
    *parents, last = key.split(".")
    for parent in parents:
        if values.get(parent) is None:  # absent, or a YAML key with nothing under it
            values[parent] = {}
        values = values[parent]
        if not isinstance(values, dict):
            raise ConfigError(f"override {override!r}: {parent!r} is a single value, not a group of keys.")
    values[last] = value


def _check_keys(cls: Any, values: Any, source: str, prefix: str) -> None:
    if not dataclasses.is_dataclass(cls) or not isinstance(values, Mapping):
        return
    hints = typing.get_type_hints(cls)
    known = [f.name for f in dataclasses.fields(cls)]
    for key, value in values.items():
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"known keys are {', '.join(known)}."
            raise ConfigError(f"{source}: unknown key {prefix}{key}; {hint}")
        _check_nested(hints[key], value, source, f"{prefix}{key}.")


def _check_nested(hint: Any, value: Any, source: str, prefix: str) -> None:
    """Checks the keys of the dataclasses inside a field's type: `Sub`, `Sub | None`, `list[Sub]`, `dict[str, Sub]`."""
    if dataclasses.is_dataclass(hint):
        _check_keys(hint, value, source, prefix)
        return
    inner = typing.get_args(hint)
    origin = typing.get_origin(hint)
    if isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(value, Mapping) and len(inner) == 2:
        for key, part in value.items():
            _check_nested(inner[1], part, source, f"{prefix}{key}.")
    elif isinstance(origin, type) and issubclass(origin, Sequence) and isinstance(value, list | tuple) and inner:
        for number, part in enumerate(value):
            _check_nested(inner[0], part, source, f"{prefix}{number}.")
    else:
        for candidate in inner:
            _check_nested(candidate, value, source, prefix)
