"""Prompt sets: the wording of corpora as versioned files, one a corpus and language.

A file holds `version` and texts under names, in groups where it helps: `bridge: {system: ..., user: [..., ...]}` holds
`bridge.system` and `bridge.user`. A text is a string, or a list of variants that say the same. Placeholders are
those of `str.format`. The first variant is the wording evaluation asks with, so a model is asked in words it was
trained with; builders deal the others out by seed. `en` and `zh` hold the same names, variants and placeholders.
"""

from __future__ import annotations

import importlib.resources
import string
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from onereason.errors import ConfigError

LANGUAGES = ("en", "zh")


@dataclass(frozen=True)
class PromptSet:
    """The texts of one file.

    Attributes:
        name: what they are for, e.g. `derivation`.
        language: `en`, `zh`, or the path of a file of one's own.
        version: goes up with every change of wording; corpora record it.
        texts: dotted name -> variants.
    """

    name: str
    language: str
    version: str
    texts: Mapping[str, tuple[str, ...]]

    def variants(self, key: str) -> tuple[str, ...]:
        """All wordings of a text; `ConfigError` where there is none of that name."""
        if key not in self.texts:
            raise ConfigError(f"prompt set {self.name!r} ({self.language}) has no text {key!r}; add it to the file.")
        return self.texts[key]

    def text(self, key: str, variant: int = 0) -> str:
        """One wording, with its placeholders; variants go round."""
        found = self.variants(key)
        return found[variant % len(found)]

    def describe(self) -> str:
        """What a manifest records, e.g. `derivation/en/1`."""
        return f"{self.name}/{language_name(self.language)}/{self.version}"


def language_name(language: str) -> str:
    """What manifests and model folders call a language: `en`, `zh`, or the name of a folder of one's own.

    A folder that is called as a language of the package gets another name: it holds another wording.
    """
    if language in LANGUAGES:
        return language
    name = Path(language).resolve().name
    return f"{name}_own" if name in LANGUAGES else name


def own_prompt_files(language: str) -> list[Path]:
    """The prompt sets of a folder of one's own; none for a language of the package."""
    return [] if language in LANGUAGES else sorted(Path(language).glob("*.yaml"))


@cache
def load_prompt_set(name: str, language: str = "en") -> PromptSet:
    """A prompt set of the package, or of a folder of one's own.

    Args:
        name: e.g. `recommendation`, `perception`, `derivation`, `evolution`.
        language: `en`, `zh`, or a folder that holds `NAME.yaml`.

    Raises:
        ConfigError: no such file, no mapping of texts, no version, a text with an unnamed placeholder; in a folder of
            one's own also a text whose placeholders are not those of the package's text of that name.
    """
    path = _package_file(name, language) if language in LANGUAGES else Path(language) / f"{name}.yaml"
    if not path.is_file():
        known = " or ".join(LANGUAGES)
        raise ConfigError(f"prompt set {name!r} for language {language!r} not found; use {known}, or a folder with it.")
    try:
        value = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"prompt set {path} is not valid YAML: {error}") from error
    if not isinstance(value, dict) or not isinstance(value.get("version"), int | str):
        raise ConfigError(f"prompt set {path} should be a mapping with a `version` and texts.")
    version = str(value.pop("version"))
    texts = dict(_flatten(value, "", str(path)))
    # Nouns of domains are no questions: one may well be called the same whatever the domain.
    if language not in LANGUAGES and name != "domains" and _package_file(name, LANGUAGES[0]).is_file():
        _check_own(texts, load_prompt_set(name), str(path))
    return PromptSet(name, language, version, texts)


def _package_file(name: str, language: str) -> Any:
    return importlib.resources.files("onereason.prompt_sets") / language / f"{name}.yaml"


def _check_own(texts: Mapping[str, tuple[str, ...]], package: PromptSet, path: str) -> None:
    """`ConfigError` where texts of one's own do not hold the placeholders of the package's text of that name.

    A placeholder that some variant of the package leaves out may be left out.
    """
    for key in sorted(texts.keys() & package.texts.keys()):
        shown = [placeholders(text) for text in package.texts[key]]
        needed, known = set.intersection(*shown), set.union(*shown)
        for text in texts[key]:
            own = placeholders(text)
            if wrong := sorted(own - known):
                rule = f"use {', '.join(sorted(known))}" if known else "this text has none"
                raise ConfigError(f"prompt set {path}, {key!r}: unknown placeholder {wrong[0]!r}; {rule}.")
            if missing := sorted(needed - own):
                raise ConfigError(f"prompt set {path}, {key!r}: {text!r} lacks the placeholder {missing[0]!r}; add it.")


def _flatten(value: Mapping[str, Any], prefix: str, path: str) -> list[tuple[str, tuple[str, ...]]]:
    found: list[tuple[str, tuple[str, ...]]] = []
    for key, part in value.items():
        name = f"{prefix}{key}"
        if isinstance(part, dict):
            found += _flatten(part, f"{name}.", path)
            continue
        variants = part if isinstance(part, list) else [part]
        if not variants or not all(isinstance(text, str) and text for text in variants):
            raise ConfigError(f"prompt set {path}: {name!r} should be a text or a list of texts, is {part!r}.")
        for text in variants:
            placeholders(text, f"{path}, {name!r}")
        found.append((name, tuple(variants)))
    return found


def placeholders(text: str, where: str = "prompt") -> set[str]:
    """The names of a text's placeholders; `ConfigError` for a lone brace or a placeholder without a name."""
    try:
        fields = {field for _, field, _, _ in string.Formatter().parse(text) if field is not None}
    except ValueError as error:
        raise ConfigError(f"{where}: {error}; write a literal brace twice.") from error
    if not all(field.isidentifier() for field in fields):
        raise ConfigError(f"{where}: every placeholder needs a plain name, got {sorted(fields)}.")
    return fields
