"""Who answers the prompts of rejection sampling: a model folder a domain, or one for several; one is in memory."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onereason.decoding.recommender import (
    DEFAULT_LANGUAGE,
    DEFAULT_MAX_HISTORY,
    Recommender,
    load_recommender,
    read_prompt_settings,
)
from onereason.errors import ConfigError
from onereason.model.folder import (
    ModelFolder,
    load_tokenizer_folder,
    require_catalog,
    require_same_items,
    require_same_tokens,
)

ALL = ""
"""Names the teacher of every domain that has none of its own."""


@dataclass
class Teachers:
    """Models by domain, one of them in memory at a time.

    Attributes:
        paths: domain -> model folder.
        options: of `load_recommender`, with `max_history`.
    """

    paths: Mapping[str, Path]
    options: Mapping[str, Any]
    _loaded: tuple[Path, Recommender] | None = field(default=None, repr=False)

    def recommender(self, domain: str) -> Recommender:
        path = self.paths[domain]
        if self._loaded is None or self._loaded[0] != path:
            self._loaded = None  # the model before leaves memory first
            self._loaded = (path, load_recommender(path, **self.options))
        return self._loaded[1]

    def name(self, domain: str) -> str:
        """Who writes, as rows and manifests say it: `local:` and the end of the folder's path."""
        return f"local:{'/'.join(self.paths[domain].resolve().parts[-2:])}"


def parse_teachers(values: Sequence[str]) -> dict[str, Path]:
    """`["video=DIR", "DIR"]` -> folder by domain; the one without a domain under `ALL`."""
    teachers: dict[str, Path] = {}
    for text in values:
        domain, equals, folder = text.partition("=")
        if not equals or "/" in domain:  # a path may hold an equals sign itself
            domain, folder = ALL, text
        elif not domain or not folder:
            raise ConfigError(f"--teacher {text!r}: write DOMAIN=FOLDER, or FOLDER for all domains.")
        if domain in teachers:
            what = "two folders for all domains" if domain == ALL else f"domain {domain!r} twice"
            raise ConfigError(f"--teacher names {what} ({teachers[domain]} and {folder}).")
        teachers[domain] = Path(folder).resolve()
    return teachers


def open_teachers(teachers: Mapping[str, Path]) -> ModelFolder:
    """The first teacher's folder without weights; refuses teachers that do not speak and know the same.

    Raises:
        ModelError, FormatError, CatalogError: a folder that is incomplete, or of another vocabulary, format or catalog.
    """
    first: ModelFolder | None = None
    for domain, path in teachers.items():
        what = "--teacher" if domain == ALL else f"--teacher {domain}"
        folder = load_tokenizer_folder(path)
        require_catalog(folder)
        first = first or folder
        require_same_tokens(first, folder, what, "the first teacher")
        require_same_items(first, folder, what, "the first teacher")
    assert first is not None, "the parser requires a teacher"
    return first


def choose_asking(args: Namespace, teachers: Mapping[str, Path]) -> tuple[int, str]:
    """How many items prompts show, and in which language: as the teachers record it, unless the command says it."""
    chosen = []
    for name, default in (("max_history", DEFAULT_MAX_HISTORY), ("language", DEFAULT_LANGUAGE)):
        said = getattr(args, name)
        recorded = {read_prompt_settings(path).get(name, default) for path in teachers.values()}
        if said is None and len(recorded) > 1:
            raise ConfigError(
                f"teachers were trained with different prompts ({name}: {', '.join(sorted(map(str, recorded)))}); say "
                f"--{name.replace('_', '-')}."
            )
        chosen.append(recorded.pop() if said is None else said)
    if chosen[0] < 1:
        raise ConfigError(f"--max-history must be at least 1, got {chosen[0]}.")
    return chosen[0], chosen[1]


def assign_teachers(teachers: Mapping[str, Path], wanted: Sequence[str], known: Sequence[str]) -> dict[str, Path]:
    """The teacher of each domain that is asked for.

    Args:
        wanted: domains asked for; empty takes those that teachers name, or all where one teaches all.
        known: domains of the catalog.

    Raises:
        ConfigError: a domain that is unknown, or has no teacher, or a teacher that no one asks.
    """
    named = [domain for domain in teachers if domain != ALL]
    asked = list(wanted) or (list(known) if ALL in teachers else named)
    for option, domains in (("--teacher", named), ("--domains", asked)):
        if unknown := sorted(set(domains) - set(known)):
            raise ConfigError(f"{option} names {unknown[0]!r}; the catalog's domains are {', '.join(known)}.")
    if idle := sorted(set(named) - set(asked)):
        raise ConfigError(f"--teacher names {idle[0]!r}, which --domains leaves out; leave it out, or ask for it.")
    if missing := sorted(d for d in asked if d not in teachers and ALL not in teachers):
        raise ConfigError(f"domain {missing[0]!r} has no teacher; give --teacher {missing[0]}=FOLDER.")
    if all(domain in teachers for domain in asked) and ALL in teachers:
        raise ConfigError(f"--teacher {teachers[ALL]} is left without a domain: each has a teacher of its own.")
    return {domain: teachers.get(domain, teachers.get(ALL, Path())) for domain in asked}
