"""The one place for prompt wording, and recommendation prompts as token ids.

Training rows and inference prompts are made by the same functions, so a model is asked in the words it was trained
with. A change of wording is a change of `PROMPT_VERSION`, which corpora record in their manifests.

Notation: `n` items of a history, `P` tokens of a rendered pattern.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np

from onereason.errors import ConfigError
from onereason.itemic.format import ANY_DOMAIN, ItemicFormat
from onereason.itemic.vocabulary import ItemicVocabulary

PROMPT_VERSION = "1"

Style = Literal["chat", "plain"]
Mode = Literal["no_think", "think"]
Message = dict[str, str]

STYLES: tuple[str, ...] = ("chat", "plain")
MODES: tuple[str, ...] = ("no_think", "think")

SWITCHES = {"think": " /think", "no_think": " /no_think"}
"""What closes the user turn: the switch between thinking and answering at once."""

RECOMMENDATION_SYSTEM = (
    "You are a sequential recommendation engine. Items are written as itemic tokens. Read a user's history, oldest "
    "first, and answer with the one item that comes next, as itemic tokens and nothing else."
)
RECOMMENDATION_USER = "The user's history in chronological order:\n{history}\nWhich {noun} comes next?"

CAPTION_SYSTEM = (
    "You are an expert content analyst. Items are written as itemic tokens. Read an item and describe what it is about."
)
CAPTION_USER = "Describe this {noun}: {pattern}"

DOMAIN_NOUNS = {
    ANY_DOMAIN: ("item", "items"),
    "item": ("item", "items"),
    "video": ("video", "videos"),
    "prod": ("product", "products"),
    "living": ("live stream", "live streams"),
    "ad": ("advertisement", "advertisements"),
}
"""Domain -> what people call one of its items, and several."""


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


PERSONA_TEMPLATES: tuple[PersonaTemplate, ...] = (
    PersonaTemplate(
        "domain",
        "A portrait of one user.",
        "Of the {nouns}, the user liked these:",
        "{noun} {pattern}, captioned {caption}.",
    ),
    PersonaTemplate("domain", "What one user chooses, by kind.", "Among {nouns}:", "- {pattern} is about: {caption}"),
    PersonaTemplate(
        "recency",
        "The interests of one user over time.",
        "{when}:",
        "The user liked the {noun} {pattern}, captioned {caption}.",
    ),
    PersonaTemplate("recency", "User profile.", "{when} the user chose:", "- {caption} {pattern}"),
    PersonaTemplate(
        "recency", "A user's story, oldest first.", "{when}, this is what happened.", "{caption}: the {noun} {pattern}."
    ),
)
RECENCY_NAMES = {1: ("Recently",), 2: ("Earlier", "Recently"), 3: ("At first", "Later", "Most recently")}
"""Names of the parts of a history cut into one, two or three, oldest first."""


def domain_noun(domain: str, plural: bool = False) -> str:
    """What people call an item (or items) of a domain: a word of its own, or e.g. "beauty item"."""
    name = domain.replace("_", " ").lower()
    singular, several = DOMAIN_NOUNS.get(domain, (f"{name} item", f"{name} items"))
    return several if plural else singular


def add_switch(text: str, mode: str) -> str:
    """The text of a user turn, closed by the switch of `mode` unless a switch closes it already."""
    if mode not in SWITCHES:
        raise ConfigError(f"mode {mode!r} is not known; use {' or '.join(MODES)}.")
    return text if text.endswith(("/think", "/no_think")) else text + SWITCHES[mode]


def recommendation_messages(
    history_text: str, domain: str, format: ItemicFormat, mode: str = "no_think"
) -> list[Message]:
    """System and user turn of "which item comes next".

    Args:
        history_text: itemic patterns, oldest first, directly one after another.
        domain: of the item that is asked for; it is named where the format's tokens tell domains apart.
    """
    format.marker(domain)
    asked = ANY_DOMAIN if ANY_DOMAIN in format.domains else domain
    question = RECOMMENDATION_USER.format(history=history_text, noun=domain_noun(asked))
    return [
        {"role": "system", "content": RECOMMENDATION_SYSTEM},
        {"role": "user", "content": add_switch(question, mode)},
    ]


def caption_messages(pattern: str, domain: str, format: ItemicFormat, mode: str = "no_think") -> list[Message]:
    """System and user turn of "describe this item"."""
    format.marker(domain)
    asked = ANY_DOMAIN if ANY_DOMAIN in format.domains else domain
    question = CAPTION_USER.format(pattern=pattern, noun=domain_noun(asked))
    return [{"role": "system", "content": CAPTION_SYSTEM}, {"role": "user", "content": add_switch(question, mode)}]


class RecommendationPrompt:
    """Writes a history as the prompt of a recommendation.

    `chat` is the conversation of `recommendation_messages` in Qwen3's format, up to the opening of the answer (with an
    empty think block in mode `no_think`). `plain` is the history's patterns alone.
    """

    def __init__(
        self, tokenizer: Any, vocabulary: ItemicVocabulary, style: str = "chat", mode: str = "no_think"
    ) -> None:
        """
        Args:
            tokenizer: transformers tokenizer that knows the itemic tokens.
            vocabulary: their ids.
            style: `chat` or `plain`.
            mode: `no_think` or `think`; without meaning for `plain`.

        Raises:
            ConfigError: an unknown style or mode.
            ModelError: the tokenizer does not give the itemic tokens the vocabulary's ids.
        """
        if style not in STYLES:
            raise ConfigError(f"prompt style {style!r} is not known; use {' or '.join(STYLES)}.")
        if mode not in MODES:
            raise ConfigError(f"prompt mode {mode!r} is not known; use {' or '.join(MODES)}.")
        vocabulary.check_tokenizer(tokenizer)
        self.tokenizer = tokenizer
        self.vocabulary = vocabulary
        self.style = cast(Style, style)
        self.mode = cast(Mode, mode)
        self._frames: dict[str, tuple[list[int], list[int]]] = {}

    def messages(self, history_text: str, domain: str) -> list[Message]:
        """The turns before the answer; `ConfigError` in style `plain`, which has none."""
        if self.style == "plain":
            raise ConfigError("prompt style 'plain' is text without turns; use style 'chat' for messages.")
        return recommendation_messages(history_text, domain, self.vocabulary.format, self.mode)

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
