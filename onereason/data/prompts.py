"""The prompts of alignment and recommendation, out of the prompt sets, and recommendation prompts as token ids.

Training rows and inference prompts are made by the same functions, so a model is asked in the words it was trained
with. The wording stands in `onereason/prompt_sets` (see `onereason.data.prompt_sets`); `language` is one of its
languages or a folder of one's own, `variant` one of the wordings, of which inference uses the first. Corpora record the
versions of the sets (`describe_prompts`).

Notation: `n` items of a history, `P` tokens of a rendered pattern.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, cast

import numpy as np

from onereason.data.prompt_sets import load_prompt_set
from onereason.errors import ConfigError
from onereason.itemic.format import ANY_DOMAIN, ItemicFormat
from onereason.itemic.vocabulary import ItemicVocabulary

Style = Literal["chat", "plain"]
Mode = Literal["no_think", "think"]
Message = dict[str, str]

STYLES: tuple[str, ...] = ("chat", "plain")
MODES: tuple[str, ...] = ("no_think", "think")

SWITCHES = {"think": " /think", "no_think": " /no_think"}
"""What closes the user turn: the switch between thinking and answering at once."""

RECOMMENDATION_SETS = ("domains", "recommendation")
"""The prompt sets that a recommendation is asked with."""

PERSONA_KINDS: tuple[tuple[str, Literal["domain", "recency"]], ...] = (
    ("portrait", "domain"),
    ("choices", "domain"),
    ("interests", "recency"),
    ("profile", "recency"),
    ("story", "recency"),
)
"""Kinds of persona text by their name in the set `persona`, and what each groups a history by."""


@dataclass(frozen=True)
class PersonaTemplate:
    """The wording of one kind of persona text; items and captions alternate in every one.

    A text is an opening line, and for each group a heading line and a line an item, oldest first: a text that is too
    long for a model loses whole lines (`onereason.data.fitting`).

    Attributes:
        grouping: `domain` gathers a domain's items under one heading, `recency` cuts the history into thirds.
        opening: first line.
        heading: line before a group; `{nouns}` is the domain's plural or `{when}` the group's place in time.
        item: line of an item; `{pattern}`, `{caption}`, and `{noun}`, what its domain calls it.
    """

    grouping: Literal["domain", "recency"]
    opening: str
    heading: str
    item: str


@cache
def persona_templates(language: str = "en") -> tuple[PersonaTemplate, ...]:
    """The kinds of persona text, in the order of `PERSONA_KINDS`."""
    texts = load_prompt_set("persona", language).text
    return tuple(
        PersonaTemplate(grouping, *(texts(f"{kind}.{part}") for part in ("opening", "heading", "item")))
        for kind, grouping in PERSONA_KINDS
    )


@cache
def recency_names(language: str = "en") -> dict[int, tuple[str, ...]]:
    """Names of the parts of a history cut into one, two or three, oldest first."""
    prompts = load_prompt_set("persona", language)
    return {n: prompts.variants(f"recency.{name}") for n, name in ((1, "one"), (2, "two"), (3, "three"))}


@cache
def domain_noun(domain: str, plural: bool = False, language: str = "en") -> str:
    """What people call an item (or items) of a domain: a word of its own, or e.g. "beauty item"."""
    prompts = load_prompt_set("domains", language)
    key = "any" if domain == ANY_DOMAIN else domain
    key = f"noun.{key}" if f"noun.{key}" in prompts.texts else "noun.other"
    return prompts.text(key, int(plural)).format(name=domain.replace("_", " ").lower())


@cache
def attribute_noun(attribute: str, language: str = "en") -> str:
    """What people call an attribute: a word of its own, or the dataset's name, e.g. "price range"."""
    prompts = load_prompt_set("domains", language)
    key = f"attribute.{attribute}"
    return prompts.text(key) if key in prompts.texts else attribute.replace("_", " ")


def describe_prompts(names: Sequence[str], language: str = "en") -> str:
    """What a manifest records of the sets a corpus is written with, e.g. `recommendation/en/1, perception/en/1`."""
    return ", ".join(load_prompt_set(name, language).describe() for name in names)


def add_switch(text: str, mode: str) -> str:
    """The text of a user turn, closed by the switch of `mode` unless a switch closes it already."""
    if mode not in SWITCHES:
        raise ConfigError(f"mode {mode!r} is not known; use {' or '.join(MODES)}.")
    return text if text.endswith(("/think", "/no_think")) else text + SWITCHES[mode]


def recommendation_messages(
    history_text: str,
    domain: str,
    format: ItemicFormat,
    mode: str = "no_think",
    language: str = "en",
    variant: int = 0,
) -> list[Message]:
    """System and user turn of "which item comes next".

    Args:
        history_text: itemic patterns, oldest first, directly one after another.
        domain: of the item that is asked for; it is named where the format's tokens tell domains apart.
        mode: `no_think` or `think`.
        language, variant: of the wording.
    """
    noun = _asked_noun(domain, format, language)
    system, question = _turns("recommendation", "", language, variant)
    return opening_turns(system.format(), add_switch(question.format(history=history_text, noun=noun), mode))


def caption_messages(
    pattern: str,
    domain: str,
    format: ItemicFormat,
    mode: str | None = "no_think",
    language: str = "en",
    variant: int = 0,
) -> list[Message]:
    """System and user turn of "describe this item"; `mode` None leaves the switch out."""
    noun = _asked_noun(domain, format, language)
    system, question = _turns("perception", "caption.", language, variant)
    asked = question.format(pattern=pattern, noun=noun)
    return opening_turns(system.format(), asked if mode is None else add_switch(asked, mode))


def opening_turns(system: str, user: str) -> list[Message]:
    """A system and a user turn."""
    return [{"role": "system", "content": system}, {"role": "user", "content": user}]


def _turns(name: str, group: str, language: str, variant: int) -> tuple[str, str]:
    prompts = load_prompt_set(name, language)
    return prompts.text(f"{group}system", variant), prompts.text(f"{group}user", variant)


def _asked_noun(domain: str, format: ItemicFormat, language: str) -> str:
    """What an item of the domain is called where the format's tokens tell domains apart, else "item"."""
    format.marker(domain)
    return domain_noun(ANY_DOMAIN if ANY_DOMAIN in format.domains else domain, language=language)


class RecommendationPrompt:
    """Writes a history as the prompt of a recommendation.

    `chat` is the conversation of `recommendation_messages` in Qwen3's format, up to the opening of the answer (with an
    empty think block in mode `no_think`). `plain` is the history's patterns alone.
    """

    def __init__(
        self,
        tokenizer: Any,
        vocabulary: ItemicVocabulary,
        style: str = "chat",
        mode: str = "no_think",
        language: str = "en",
    ) -> None:
        """
        Args:
            tokenizer: transformers tokenizer that knows the itemic tokens.
            vocabulary: their ids.
            style: `chat` or `plain`.
            mode: `no_think` or `think`; without meaning for `plain`.
            language: of the prompt set `recommendation`, or a folder that holds it; without meaning for `plain`.

        Raises:
            ConfigError: an unknown style, mode or language.
            ModelError: the tokenizer does not give the itemic tokens the vocabulary's ids.
        """
        if style not in STYLES:
            raise ConfigError(f"prompt style {style!r} is not known; use {' or '.join(STYLES)}.")
        if mode not in MODES:
            raise ConfigError(f"prompt mode {mode!r} is not known; use {' or '.join(MODES)}.")
        load_prompt_set("recommendation", language)
        vocabulary.check_tokenizer(tokenizer)
        self.tokenizer = tokenizer
        self.vocabulary = vocabulary
        self.style = cast(Style, style)
        self.mode = cast(Mode, mode)
        self.language = language
        self._frames: dict[str, tuple[list[int], list[int]]] = {}

    def messages(self, history_text: str, domain: str) -> list[Message]:
        """The turns before the answer; `ConfigError` in style `plain`, which has none."""
        if self.style == "plain":
            raise ConfigError("prompt style 'plain' is text without turns; use style 'chat' for messages.")
        return recommendation_messages(history_text, domain, self.vocabulary.format, self.mode, self.language)

    def render(self, history_text: str, domain: str) -> str:
        """The whole prompt as text."""
        if self.style == "plain":
            return history_text
        from onereason.data.chat import load_template

        return self.tokenizer.apply_chat_template(
            self.messages(history_text, domain),
            chat_template=load_template("qwen3"),
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=self.mode == "think",
        )

    def encode(self, pattern_ids: np.ndarray | Sequence[Sequence[int]], domain: str) -> list[int]:
        """Token ids of the prompt.

        Equal to tokenising `render`, and much faster: the constant parts are tokenised once a domain. Splicing is
        exact because a tokenizer splits text at added tokens before anything else.

        Args:
            pattern_ids: int `[n, P]`, the history's patterns (`ItemicVocabulary.pattern_ids`), oldest first.
            domain: of the item that is asked for.
        """
        items = np.asarray(pattern_ids, dtype=np.int64).reshape(-1).tolist()
        if self.style == "plain":
            return items
        if not items:  # the parts around the history touch each other, so they are tokenised as one text
            return self._tokenize(self.render("", domain))
        if domain not in self._frames:
            self._frames[domain] = self._build_frame(domain)
        before, after = self._frames[domain]
        return [*before, *items, *after]

    def _build_frame(self, domain: str) -> tuple[list[int], list[int]]:
        """The token ids before and after the history."""
        format = self.vocabulary.format
        sample = format.render([0] * format.num_levels, domain)
        ids = self._tokenize(self.render(sample, domain))
        itemic = np.flatnonzero(self.vocabulary.is_itemic(np.asarray(ids)))
        assert len(itemic) == format.pattern_length, "the prompt's wording holds no itemic tokens"
        return ids[: itemic[0]], ids[itemic[-1] + 1 :]

    def _tokenize(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]
