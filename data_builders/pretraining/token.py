"""Token granularity: what leading codes mean together, and how an item's meaning is put together from its tokens.

A prefix (the begin token where there is one, then the first `l` of `L` codes) means what its items have in common:
their most frequent themes, and the words that stand in their captions more often than elsewhere.

Notation: `P` prefixes, `N` items, `W` words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field

import numpy as np
import scipy.sparse as sp

from data_builders.common import Row
from data_builders.engine import Reject
from data_builders.pretraining.material import Material, free_row, qa_row
from onereason.cognition.associations import keep_at_least, top_partners
from onereason.cognition.captions import split_runs

TASK = "token"
MIN_ITEMS = 3
"""Items under a prefix before it is said to mean something."""
NUM_THEMES, NUM_WORDS = 3, 4
MIN_SHARE = 0.1
"""Share of a prefix's items that bear a theme or a word before it is named."""
MIN_WORD_LIFT = 1.5
"""How much more often a word stands under a prefix than elsewhere."""


@dataclass(frozen=True)
class Prefixes:
    """The prefixes of one length.

    Attributes:
        of_item: int64 `[N]`, the prefix of each item.
        sizes: `P` numbers of items.
        examples: `P` items, one under each prefix.
        meanings: `P` texts, empty where there are too few items or nothing in common.
    """

    of_item: np.ndarray
    sizes: Sequence[int]
    examples: Sequence[int]
    meanings: Sequence[str]


def caption_words(text: str) -> set[str]:
    """Words of a caption: runs of at least three letters, and pairs of neighbouring CJK characters."""
    found = set()
    for run in split_runs(text):
        for at, word in enumerate(run):
            if word.isascii() or len(word) > 1:
                if len(word) > 2 and not word.isdigit():
                    found.add(word)
            elif at + 1 < len(run) and len(run[at + 1]) == 1 and not run[at + 1].isascii():
                found.add(word + run[at + 1])
    return found


def count_caption_words(captions: Sequence[str], min_items: int = MIN_ITEMS) -> tuple[list[str], sp.csr_matrix]:
    """Words of at least `min_items` captions, sorted, and which caption holds which: int32 CSR `[N, W]` of ones."""
    number: dict[str, int] = {}
    words, lengths = [], []
    for caption in captions:
        of_caption = sorted(caption_words(caption))
        lengths.append(len(of_caption))
        words += [number.setdefault(word, len(number)) for word in of_caption]
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    matrix = sp.csr_matrix((np.ones(len(words), np.int32), words, offsets), shape=(len(captions), len(number)))
    names = list(number)
    counts = np.bincount(np.asarray(words, dtype=np.int64), minlength=len(names))
    order = [at for at in sorted(range(len(names)), key=names.__getitem__) if counts[at] >= min_items]
    return [names[at] for at in order], matrix[:, order].tocsr()


def group_prefixes(material: Material, length: int) -> tuple[np.ndarray, int]:
    """The prefix of `length` codes of each item, int64 `[N]`, numbered in the order of domains and codes."""
    key = np.zeros(len(material.codes), dtype=np.int64)
    if material.tells_domains:
        place = {domain: at for at, domain in enumerate(material.format.domains)}
        key = np.array([place[domain] for domain in material.domains], dtype=np.int64)
    for level in range(length):
        codes = material.codes[:, level].astype(np.int64)
        key = np.unique(key * (int(codes.max(initial=0)) + 1) + codes, return_inverse=True)[1].reshape(-1)
    return key, int(key.max(initial=-1)) + 1


def describe_prefixes(material: Material, length: int, words: Sequence[str], holds: sp.csr_matrix) -> Prefixes:
    """The prefixes of `length` codes and their meanings.

    Args:
        words, holds: of `count_caption_words`.
    """
    of_item, number = group_prefixes(material, length)
    sizes = np.bincount(of_item, minlength=number)
    examples = np.zeros(number, dtype=np.int64)
    examples[of_item[::-1]] = np.arange(len(of_item))[::-1]  # the first item of each
    themes, theme_shares = _top_themes(material, of_item, sizes)
    best, shares = _top_words(of_item, sizes, holds)
    meanings = []
    for prefix in range(number):
        if sizes[prefix] < MIN_ITEMS:
            meanings.append("")
            continue
        named = [
            (material.theme_names[theme], share)
            for theme, share in zip(themes[prefix].tolist(), theme_shares[prefix].tolist(), strict=True)
            if theme >= 0 and share >= MIN_SHARE
        ]
        said = " ".join(name.lower() for name, _ in named)
        typical = [
            (words[word], share)
            for word, share in zip(best[prefix].tolist(), shares[prefix].tolist(), strict=True)
            if word >= 0 and share >= MIN_SHARE and words[word] not in said
        ]
        meanings.append(_meaning(material, named, typical))
    return Prefixes(of_item, sizes.tolist(), examples.tolist(), meanings)


def _top_themes(material: Material, of_item: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    known = material.theme_of >= 0
    shape = (len(sizes), max(1, len(material.theme_names)))
    counts = sp.csr_matrix(
        (np.ones(int(known.sum())), (of_item[known], material.theme_of[known])), shape=shape, dtype=np.float64
    )
    themes, values = top_partners(counts, NUM_THEMES)
    return themes, values / np.maximum(sizes, 1)[:, None]


def _top_words(of_item: np.ndarray, sizes: np.ndarray, holds: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """The words typical of each prefix, by share times log lift, and the shares of items that hold them."""
    num_items = len(of_item)
    member = sp.csr_matrix(
        (np.ones(num_items, np.int32), (of_item, np.arange(num_items))), shape=(len(sizes), num_items)
    )
    counts = keep_at_least((member @ holds).tocsr().astype(np.float64), 2)
    rows = np.repeat(np.arange(len(sizes)), np.diff(counts.indptr))
    share = counts.data / sizes[rows]
    lift = share * num_items / np.asarray(holds.sum(axis=0)).ravel()[counts.indices]
    scores = counts.copy()
    scores.data = np.where(lift >= MIN_WORD_LIFT, share * np.log(np.maximum(lift, 1.0)), 0.0)
    scores.eliminate_zeros()
    words, _ = top_partners(scores, NUM_WORDS)
    shares = np.zeros(words.shape)
    there = words >= 0
    at = np.broadcast_to(np.arange(len(sizes))[:, None], words.shape)[there]
    if there.any():
        shares[there] = np.asarray(counts[at, words[there]]).ravel() / sizes[at]
    return words, shares


def _meaning(material: Material, themes: list[tuple[str, float]], words: list[tuple[str, float]]) -> str:
    named = material.join([f"{name} ({share:.0%})" for name, share in themes])
    typical = material.join([f"{word} ({share:.0%})" for word, share in words])
    if not named and not typical:
        return ""
    kind = "both" if named and typical else "themes" if named else "words"
    return material.text(f"token.meaning.{kind}").format(themes=named, words=typical)


# -- the section ----------------------------------------------------------------------------------------------------


@dataclass
class TokenSection:
    """First the prefixes that mean something, shortest first, then the items that have a caption.

    Attributes:
        material: items in words.
        texts: `N` texts in which typical words are looked for.
        levels: the prefixes of each length but the whole.
        prefixes: (level, prefix) of each unit.
        items: item of each further unit.
    """

    material: Material
    texts: InitVar[Sequence[str]]
    name: str = TASK
    levels: list[Prefixes] = field(init=False)
    prefixes: list[tuple[int, int]] = field(init=False)
    items: list[int] = field(init=False)
    left_out: dict[str, int] = field(init=False)

    def __post_init__(self, texts: Sequence[str]) -> None:
        words, holds = count_caption_words(texts)
        lengths = range(1, self.material.format.num_levels)
        self.levels = [describe_prefixes(self.material, length, words, holds) for length in lengths]
        found = [(level, prefix) for level, of in enumerate(self.levels) for prefix in range(len(of.sizes))]
        self.prefixes = [(level, prefix) for level, prefix in found if self.levels[level].meanings[prefix]]
        self.items = [item for item, caption in enumerate(self.material.captions) if caption and self.levels]
        self.left_out = {
            "prefix_without_meaning": len(found) - len(self.prefixes),
            "item_without_caption": len(self.material.captions) - len(self.items),
        }

    @property
    def num_units(self) -> int:
        return len(self.prefixes) + len(self.items)

    def rows_of(self, unit: int, rows: list[Row], rejects: list[Reject]) -> None:
        if unit < len(self.prefixes):
            rows += self.prefix_rows(*self.prefixes[unit])
        else:
            rows += self.item_rows(self.items[unit - len(self.prefixes)])

    def _tokens(self, item: int, length: int) -> list[str]:
        format = self.material.format
        codes = self.material.codes[item, :length].tolist()
        return [format.code_name(level, code) for level, code in enumerate(codes)]

    def prefix_rows(self, level: int, prefix: int) -> list[Row]:
        """What a prefix of `level + 1` codes means."""
        material, of = self.material, self.levels[level]
        item = of.examples[prefix]
        begin = material.format.marker(material.domains[item]).begin or ""
        several = self._nouns(item)[1]
        fields = {
            "prefix": begin + "".join(self._tokens(item, level + 1)),
            "nouns": several,
            "meaning": of.meanings[prefix],
        }
        stream = material.stream(1 + level, prefix)
        row_id = f"{TASK}:prefix:{fields['prefix']}"
        question, answer, free = (
            material.wording(f"token.prefix.{part}", stream) for part in ("question", "answer", "free")
        )
        return [
            qa_row(row_id, TASK, [question.format(**fields), answer.format(**fields)]),
            free_row(row_id, TASK, free.format(**fields)),
        ]

    def _nouns(self, item: int) -> tuple[str, str]:
        """What people call the items of a prefix: of all domains where the tokens do not tell them apart."""
        if self.material.tells_domains or len(self.material.nouns) == 1:
            return self.material.nouns[self.material.domains[item]]
        return self.material.any_nouns

    def item_rows(self, item: int) -> list[Row]:
        """From the meaning of an item's tokens to that of the item."""
        material = self.material
        tokens = self._tokens(item, material.format.num_levels)
        one, several = self._nouns(item)
        steps, said = [], 0  # tokens whose prefix means nothing of its own go with those behind them
        for level in range(len(tokens) - 1):
            of = self.levels[level]
            meaning = of.meanings[of.of_item[item]]
            if meaning:
                wording = material.text(f"token.parts.{'then' if steps else 'first'}")
                steps.append(wording.format(tokens="".join(tokens[said : level + 1]), nouns=several, meaning=meaning))
                said = level + 1
        whole = material.text("token.parts.whole")
        steps.append(whole.format(tokens="".join(tokens[said:]), noun=one, caption=material.captions[item]))
        told = "\n".join(steps)
        stream = material.stream(100, item)
        fields = {"pattern": material.patterns[item], "noun": one}
        question, free = (
            material.wording(f"token.parts.{part}", stream).format(**fields) for part in ("question", "free")
        )
        row_id = f"{TASK}:parts:{material.item_ids[item]}"
        domain = {"domain": material.domains[item]}
        return [
            qa_row(row_id, TASK, [question, told]) | domain,
            free_row(row_id, TASK, f"{free}\n{told}") | domain,
        ]
