"""Items in words: titles and captions whose words make the subject strongest, then the facet, then the style."""

from __future__ import annotations

import json

import numpy as np
import polars as pl

from onereason.data.schema import ITEM_SCHEMA
from onereason.data.simulate.config import WorldConfig
from onereason.data.simulate.names import (
    BRANDS,
    DOMAINS,
    FACETS,
    PRICE_BUCKETS,
    PRICE_BY_STYLE,
    STYLE_WORDS,
    STYLES,
    TOPICS,
)
from onereason.data.simulate.world import ItemTable

TITLES = {
    "video": ("{topic}: {facet1}", "{Adj} {topic} video, {facet1}", "Watch: {facet1} in {topic}"),
    "prod": ("{brand} {facet1} for {topic}", "{Adj} {topic} set by {brand}", "{brand} {topic} kit, {facet1}"),
    "ad": ("{brand} offer: {topic}", "{Adj} {topic} deal, {facet1}", "{topic} with {brand}: {facet1}"),
    "living": ("Live: {topic}, {facet1}", "{Adj} {topic} evening, live", "On air now: {facet1} and {topic}"),
}
OPENINGS = {
    "video": (
        "A {adj1} video about {topic}.",
        "This clip shows {topic} in a {adj1} way.",
        "Short film: {topic}, {adj1}.",
    ),
    "prod": (
        "A {adj1} product for {topic}.",
        "{brand} makes this {adj1} item for {topic}.",
        "For {topic}: a {adj1} pick.",
    ),
    "ad": (
        "A {adj1} offer from {brand} for {topic}.",
        "Sponsored: {topic}, {adj1}.",
        "{brand} invites fans of {topic}.",
    ),
    "living": (
        "A {adj1} live room on {topic}.",
        "The host streams {topic}, {adj1}.",
        "Join a {adj1} broadcast about {topic}.",
    ),
}
MIDDLES = (
    "It is about {facet1} and {facet2}, with {word1} and {word2}.",
    "Expect {word1}, {word2} and above all {facet1}, then {facet2}.",
    "From {facet1} to {facet2}: {word1}, {word2}, all of {topic}.",
    "{Word1} and {word2} meet {facet1}; also {facet2}.",
)
FACET_LINES = {
    "basics": ("First steps in {topic} for beginners.", "A beginner lesson, step by step."),
    "gear": ("The equipment that {topic} needs.", "Tools and equipment, compared."),
    "scene": ("Where people of {topic} gather.", "Places to go and people to meet."),
}
CLOSINGS = ("{Adj2} through and through.", "Made for those who like it {adj2}.", "The mood is {adj2}.", "Kept {adj2}.")


def build_item_table(config: WorldConfig, items: ItemTable, ids: list[str], rng: np.random.Generator) -> pl.DataFrame:
    """The items with the dataset's columns, in the order of `items`."""
    uniform = rng.random((len(items), 9))
    titles, texts, attributes = [], [], []
    for i in range(len(items)):
        topic, facet, style = TOPICS[items.subject[i]], FACETS[items.facet[i]], STYLES[items.style[i]]
        domain = DOMAINS[items.domain[i]]
        u = uniform[i]
        brand = _pick(BRANDS[topic.group], u[0])
        price = PRICE_BUCKETS[_price(style, u[1])]
        adjectives, words, phrases = (
            _two(STYLE_WORDS[style], u[2]),
            _two(topic.words, u[3]),
            _two(topic.facets[FACETS.index(facet)], u[4]),
        )
        fill = {
            "topic": topic.name,
            "brand": brand,
            "adj1": adjectives[0],
            "adj2": adjectives[1],
            "Adj": adjectives[0].capitalize(),
            "Adj2": adjectives[1].capitalize(),
            "word1": words[0],
            "word2": words[1],
            "Word1": words[0].capitalize(),
            "facet1": phrases[0],
            "facet2": phrases[1],
        }
        templates = (OPENINGS[domain], MIDDLES, FACET_LINES[facet], CLOSINGS)
        sentences = [_pick(t, v).format(**fill) for t, v in zip(templates, u[5:], strict=True)]
        title = _pick(TITLES[domain], u[1] * 97 % 1).format(**fill)
        titles.append(title[0].upper() + title[1:])
        texts.append(" ".join(s[0].upper() + s[1:] for s in sentences))
        attributes.append(
            json.dumps(
                {"category": topic.name, "facet": facet, "style": style, "brand": brand, "price": price},
                ensure_ascii=False,
            )
        )
    domains = np.array(DOMAINS)[items.domain]
    return pl.DataFrame(
        {"item_id": ids, "domain": domains, "title": titles, "text": texts, "attributes": attributes},
        schema=ITEM_SCHEMA,
    )


def build_item_ids(items: ItemTable, rng: np.random.Generator) -> list[str]:
    """Ids that tell the domain and nothing else: numbers are dealt at random inside a domain."""
    numbers = np.empty(len(items), dtype=np.int64)
    for domain in range(len(DOMAINS)):
        mine = np.flatnonzero(items.domain == domain)
        numbers[mine] = rng.permutation(len(mine))
    return [f"{DOMAINS[d]}_{n:06d}" for d, n in zip(items.domain, numbers, strict=True)]


def _pick(options: tuple[str, ...], uniform: float) -> str:
    return options[int(uniform * len(options))]


def _two(options: tuple[str, ...], uniform: float) -> tuple[str, str]:
    """Two different options in one of their n (n - 1) orders."""
    first, step = divmod(int(uniform * len(options) * (len(options) - 1)), len(options) - 1)
    return options[first], options[(first + 1 + step) % len(options)]


def _price(style: str, uniform: float) -> int:
    """The style's usual price bucket three times out of four, one to its side otherwise."""
    usual = PRICE_BY_STYLE[style]
    if uniform < 0.75:
        return usual
    return usual + 1 if usual == 0 else usual - 1
