"""Coarse captions: what the codes of an item can hold of its text.

A caption says more than `L` codes tell apart, and a model that is asked for the rest learns to invent. `clean_caption`
drops what no code stands for (dates, sums of money, sizes and counts, model numbers and ids, links, hashtags and
handles, emoji, the noise of OCR and ASR). `CaptionVocabulary.coarsen` then drops words that few captions share and ends
the text where it has used up the capacity of the codes:

- the capacity of an item's codes is `sum(log2(codes of level l))` bits (`code_bits`);
- a word carries the bits by which it narrows the captions down: `-log2(captions with the word / captions)`, or, behind
  a word it often follows, `-log2(captions with both in a row / captions with the word before)`; 0 where it stands in
  the text already;
- words are kept in the order of the text until their sum reaches the capacity; Chinese, in which words have no ends,
  is kept by the clause.

So a larger codebook, or a catalog in which captions repeat each other, leaves longer captions. English and Chinese are
read alike: a word is a run of letters, or one CJK character.
"""

# ruff: noqa: RUF001

from __future__ import annotations

import math
import operator
import re
import string
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import pairwise

from onereason.itemic.format import ItemicFormat

MIN_ITEMS = 3
"""A word that fewer captions carry is dropped: codes cannot stand for it."""
MAX_CHARS = 200
"""Characters of a coarse caption."""

# -- cleaning -------------------------------------------------------------------------------------------------------

_HAN = "\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_NARROW = {wide: wide - 0xFEE0 for wide in (*range(0xFF10, 0xFF1A), *range(0xFF21, 0xFF3B), *range(0xFF41, 0xFF5B))}
_NARROW |= {ord("＃"): ord("#"), ord("＠"): ord("@"), ord("％"): ord("%"), ord("＄"): ord("$"), ord("￥"): ord("¥")}
"""Full-width digits, letters and signs -> narrow ones; full-width punctuation stays, as Chinese writes it."""

_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|(?-i:May)|june?|july?|aug(?:ust)?|sept?(?:ember)?|"
    r"oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\b\.?"
)
_AMOUNT = r"\d+(?:[.,/]\d+)*"
_HAN_AMOUNT = rf"(?:{_AMOUNT}|[一二两三四五六七八九十百千零〇]+)[多几]?[百千万亿]*"
_UNIT = (
    r"(?:fl(?:uid)?\.?[- ]?(?:oz|ounces?)|ounces?|oz|ml|milliliters?|liters?|litres?|[gl]|grams?|kg|mg|lbs?|pounds?|"
    r"inch(?:es)?|in|cm|mm|ft|feet|foot|yards?|watts?|volts?|[wvm]|pcs?|pieces?|counts?|ct|packs?|pairs?|sets?|"
    r"tablets?|capsules?|sheets?|colou?rs?|shades?|minutes?|mins?|hours?|hrs?|seconds?|secs?|days?|weeks?|months?|years?)"
    r"\b\.?"
)
_COUNTER = (
    r"(?:个多?月|小时|分钟|秒钟?|公斤|公里|厘米|毫米|毫升|千克|平方米?|平米|[年天日号岁周月代后只件条张套双盒包瓶支颗块斤克米升寸尺"
    r"度层楼集期季届遍次回位名人户家辆台部首种款倍折分点时级厘万千百亿个页])"
)


def _drop(*patterns: str, flags: int = re.IGNORECASE) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{p})" for p in patterns), flags)


_LINKS = _drop(
    r"(?:https?://|www\.)[^\s，。！？）)]+",
    r"[\w.+-]+@[\w-]+\.[\w.]+",
    r"\b[\w-]+\.(?:com|cn|net|org)\b(?:/\S*)?",
    r"@[^\s@#，。！？,!?]+",
    r"#[^\s#，。！？,!?]+#?",
)
_PLAIN = re.compile(r"[A-Za-z ,.;:!?'-]+")
_SITE = re.compile(r"\w\.(?:com|cn|net|org)\b", re.IGNORECASE)
_DATES = _drop(
    r"\d{2,4}\s?年(?:\s?\d{1,2}\s?月(?:份|\s?\d{1,2}\s?[日号])?)?",
    r"\d{1,2}\s?月\s?\d{1,2}\s?[日号]?|\d{1,2}\s?月份?",
    r"\b(?:(?:on|in|since)\s)?\d{4}[-/.]\d{1,2}(?:[-/.]\d{1,2})?\b|\b\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}\b",
    rf"\b(?:on\s)?{_MONTH}\s?\d{{1,2}}(?:st|nd|rd|th)?\b(?:,?\s?\d{{4}}\b)?|\b(?:in\s)?{_MONTH},?\s?\d{{4}}\b",
    rf"\b(?:on\s)?(?:the\s)?\d{{1,2}}(?:st|nd|rd|th)?\s(?:of\s)?{_MONTH}(?:,?\s?\d{{4}}\b)?",
    r"\b(?:in\s|since\s)?(?:19|20)\d\d\b(?!\s?[元块])",
    r"\b(?:at\s)?\d{1,2}[:：]\d{2}(?:[:：]\d{2})?(?:\s?[ap]\.?m\b\.?)?|\b\d{1,2}\s?[ap]\.?m\b\.?",
)
_PRICES = _drop(
    rf"(?:\b(?:only|just|for|at|under)\s)*(?:us|rmb)?\s?[$€£¥]\s?{_AMOUNT}[万千kw]?元?",
    rf"(?:\b(?:only|just|for|at|under)\s)*\b{_AMOUNT}\s?(?:usd|eur|gbp|dollars?|euros?|pounds sterling|bucks|cents)\b",
    rf"(?:仅需|只要|只需|仅|才)?(?:rmb\s?)?{_HAN_AMOUNT}\s?(?:元|块钱|圆|人民币|rmb)(?:钱|起)?",
)
_NUMBERS = _drop(
    r"\b(?:pack|set|box|lot|case|bag|kit)s? of (?:\d+|two|three|four|five|six|ten|twelve)\b",
    rf"{_AMOUNT}\s?[-x*×/]?\s?{_UNIT}",
    rf"第?{_AMOUNT}[多几]?{_COUNTER}{{1,2}}",
    r"第[一二三四五六七八九十]+[集期季届]",
    rf"[^\W{_HAN}]*\d(?:[./'\"+-]*[^\W{_HAN}])*(?:\s?[%°])?",
)
_AMOUNTS = re.compile(r"[\d元块圆]|第[一二三四五六七八九十]")
_WHEN = re.compile(
    r"[年月:：]|\d[-/.]\d|(?:19|20)\d\d|\d\s?[ap]\.?m|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec", re.IGNORECASE
)
_MONEY = re.compile(r"[$€£¥元块圆]|usd|eur|gbp|dollar|rmb|人民币|pounds sterling|bucks|cents", re.IGNORECASE)
_PICTURES = re.compile(
    "[\u00a9\u00ae\u2122\u200b-\u200f\u2028-\u202f\u2060-\u206f\u20e3\u2190-\u2bff\u3030\u303d\ue000-\uf8ff\ufe00-\ufe0f"
    "\ufeff\ufffd\U0001f000-\U0001faff\U000e0000-\U000e007f]|\\((?:tm|r|c)\\)|\\[[^\\[\\]\\s]{1,6}\\]",
    re.IGNORECASE,
)
_HOLE = re.compile(rf"(?<=[{_HAN}])\0+(?=[{_HAN}])")
_DECORATION = re.compile(r"[~～*=_^|<>{}\\`•·●◆★☆#@\0]+|(?<!\w)[-–—/+&]+(?!\w)")
_SHOUTS = re.compile(r"\b[A-Z][A-Z'’-]+(?:\s+[A-Z][A-Z'’-]+)+\b|\b[A-Z]{5,}\b")
_REPEATED = re.compile(r"([^\W\dA-Z_])\1{2,}")
_TRIPLES = [letter * 3 for letter in string.ascii_lowercase]
_STUTTER = re.compile(r"\b([^\W\d_]+)(?:\s+\1\b)+", re.IGNORECASE)
_PUNCTUATION = "!?！？。.,，、;；:：…"
_PUNCTUATION_RUN = re.compile(rf"([{_PUNCTUATION}])[{_PUNCTUATION}]+")
_BEFORE_PUNCTUATION = re.compile(rf"\s+(?=[{_PUNCTUATION})）])")
_INSIDE_WIDE = re.compile(r"(?<=[(（，。！？、；：])\s+")
_BRACKETS = [("(", ")"), ("（", "）"), ("[", "]"), ("【", "】"), ("《", "》"), ("“", "”")]
_EMPTY_BRACKETS = re.compile(rf"[(（\[【《“][\s{_PUNCTUATION}]*[)）\]】》”]")
_SENTENCE_ENDS = tuple(".!?。！？")
_SENTENCE_END = re.compile(r"(?<!\b[^\W\d_])\.|[!?。！？]")
"""Not the full stop of an initial, as in "e.l.f."."""
_EDGES = f" {_PUNCTUATION}-–—/+&(（\"'"
_DANGLING = {"a", "an", "the", "of", "for", "with", "and", "or", "in", "on", "at", "by", "to", "from", "is", "are"}

_DETERMINERS = {"a", "an", "the", "this", "that", "these", "those", "its", "his", "her", "their", "your", "my", "our"}
_LINKS_OF_PHRASES = (
    "about across after against along among and are around as at before behind below between but by during for from if "
    "in into is like near nor of on onto or over per plus since so than through to toward towards under until upon via "
    "when where which while who with within without"
)
_FUNCTION_WORDS = _DETERMINERS | set(_LINKS_OF_PHRASES.split())
"""Words that open a phrase: a text that is cut behind one, or behind a determiner and one word, ends in the middle."""
_CLAUSE_ENDS = tuple(",;:，；：、")


def clean_caption(text: str, price: str | None = None) -> str:
    """The caption without what no code can stand for.

    Args:
        text: English or Chinese.
        price: stands for the first sum of money, e.g. "low price"; without it, sums are dropped.
    """
    if not _is_plain(text):
        text = _drop_details(text.translate(_NARROW), price)
    if not text.islower():
        text = _SHOUTS.sub(lambda found: found[0].lower(), text)
    if not text.isascii() or any(map(text.__contains__, _TRIPLES)):
        text = _REPEATED.sub(r"\1", text)
    words = text.lower().split()
    if any(map(operator.eq, words, words[1:])):
        text = _STUTTER.sub(r"\1", text)
    return tidy(text)


def _is_plain(text: str) -> bool:
    """Whether a text holds English words and punctuation alone; a shortcut, as most of a catalog's captions do."""
    return (
        _PLAIN.fullmatch(text) is not None
        and " -" not in text
        and "- " not in text
        and "www." not in text
        and not _SITE.search(text)
    )


def _drop_details(text: str, price: str | None) -> str:
    """The text without links, pictures, dates, sums of money, numbers and decoration."""
    if "#" in text or "@" in text or "://" in text or "www." in text or _SITE.search(text):
        text = _LINKS.sub(" ", text)
    text = _PICTURES.sub(" ", text)
    if _AMOUNTS.search(text):
        if _WHEN.search(text):
            text = _DATES.sub("\0", text)
        if _MONEY.search(text):
            if price and (found := _PRICES.search(text)):
                text = f"{text[: found.start()]} {price} {text[found.end() :]}"
            text = _PRICES.sub("\0", text)
        # Chinese reads on where a number is gone; English has spaces around it.
        text = _HOLE.sub("", _NUMBERS.sub("\0", text))
    return _DECORATION.sub(" ", text)


def tidy(text: str) -> str:
    """Mends what dropped words leave behind: empty brackets, runs of punctuation, loose ends."""
    text = " ".join(text.split())
    before = None
    while before != text:
        before = text
        text = _PUNCTUATION_RUN.sub(r"\1", _BEFORE_PUNCTUATION.sub("", text))
        for opening, closing in _BRACKETS:
            if opening in text or closing in text:
                text = _INSIDE_WIDE.sub("", _EMPTY_BRACKETS.sub(" ", text))
                if text.count(opening) != text.count(closing):
                    text = text.replace(opening, " ").replace(closing, " ")
        if not text.isascii():
            text = _INSIDE_WIDE.sub("", text)
        text = text.lstrip(_EDGES).rstrip(_EDGES if not text.endswith(_SENTENCE_ENDS) else " ")
        while (last := text.rpartition(" ")[2].lower()) in _DANGLING and last:
            text = text[: -len(last)].rstrip(_EDGES)
    return " ".join(text.split())


# -- capacity -------------------------------------------------------------------------------------------------------

_TOKEN = re.compile(rf"[{_HAN}]+|[^\W_{_HAN}]+(?:['’&-][^\W_{_HAN}]+)*|[^\w\s]|_")
_IS_HAN = re.compile(f"[{_HAN}]")


def ambiguous_captions(captions: Sequence[str], patterns: Sequence[str]) -> frozenset[str]:
    """Captions (without outer space) that stand for more than one itemic pattern."""
    first: dict[str, str] = {}
    pairs = zip(map(str.strip, captions), patterns, strict=True)
    return frozenset(caption for caption, pattern in pairs if first.setdefault(caption, pattern) != pattern)


def code_bits(format: ItemicFormat) -> float:
    """The capacity of an item's codes in bits: `sum(log2(codes of level l))`."""
    return sum(math.log2(size) for size in format.codes_per_level)


def split_runs(text: str) -> list[list[str]]:
    """Lower-cased words of a text, those that follow each other in one list; punctuation separates."""
    runs: list[list[str]] = [[]]
    is_ascii = text.isascii()
    for token in _TOKEN.findall(text.lower()):
        if not token[0].isalnum():
            runs.append([])
        elif is_ascii or not _IS_HAN.match(token):
            runs[-1].append(token)
        else:
            runs[-1] += token
    return [run for run in runs if run]


@dataclass(frozen=True)
class CaptionVocabulary:
    """The words that captions of a catalog share, and what each tells.

    Attributes:
        word_bits: word -> bits by which it narrows the captions down.
        pair_bits: two words in a row -> bits of the second behind the first, where these are fewer.
    """

    word_bits: Mapping[str, float]
    pair_bits: Mapping[tuple[str, str], float]

    def coarsen(self, caption: str, bits: float, max_chars: int = MAX_CHARS) -> str:
        """The part of a cleaned caption that codes can hold; empty where nothing is left.

        A run of CJK characters stays or goes as a whole, and the first one stays: half a clause says nothing. A caption
        that is cut ends with a sentence, if that keeps half of it, or else with a phrase (`end_cut`).

        Args:
            caption: as `clean_caption` gives it.
            bits: capacity of the codes.
            max_chars: limit of the result's length.
        """
        pieces: list[str] = []
        seen: set[str] = set()
        before = ""
        used, length, last_end, cut, gap, following = 0.0, 0, 0, False, -1, ""
        for found in _TOKEN.finditer(caption):
            token = found[0]
            start, end = found.span()
            words: Sequence[str] = ()
            told: float | None = 0.0
            if token[0].isalnum():
                words = token if _IS_HAN.match(token) else (token.lower(),)
                told = self._bits(words, before, seen)
            before = words[-1] if words and told is not None else ""
            if told is None:  # a rare word, and its clause with it where words have no ends
                gap = len(pieces)
                continue
            size = end - start + (start > last_end)
            if used + told > bits or length + size > max_chars:
                cut = bool(seen) or len(words) > 1
                if seen:
                    following = token
                    break
                if not cut:  # one word that tells more than all codes
                    before = ""
                    continue
                token = token[:max_chars]
            if start > last_end:
                pieces.append(" ")
            pieces.append(token)
            if cut:
                break
            seen.update(words)
            used, length, last_end = used + told, length + size, end
        return _end_pieces(pieces, following, gap) if cut else tidy("".join(pieces))

    def _bits(self, words: Sequence[str], before: str, seen: Set[str]) -> float | None:
        """Bits of words in a row, None where one of them is rare."""
        total = 0.0
        for word in words:
            bits = self.word_bits.get(word)
            if bits is None:
                return None
            if word not in seen:
                total += self.pair_bits.get((before, word), bits)
            before = word
        return total


def _end_pieces(pieces: Sequence[str], following: str, gap: int) -> str:
    """The text of pieces that were cut.

    Args:
        pieces: words, punctuation and spaces.
        following: what came next, "" where a piece itself was cut.
        gap: number of pieces before the last word that was left out, -1 for none.
    """
    kept = len(pieces)
    while kept and (pieces[kept - 1] == " " or pieces[kept - 1].lower() in _FUNCTION_WORDS):
        kept -= 1
    if 0 < kept < len(pieces):
        following = next(piece for piece in pieces[kept:] if piece != " ")
        pieces = pieces[:kept]
    text = tidy("".join(pieces))
    ending = max((found.end() for found in _SENTENCE_END.finditer(text)), default=0)
    if 2 * ending >= len(text):
        return text[:ending]
    inside = all(piece[:1].isalnum() and not _IS_HAN.match(piece) for piece in (pieces[-1], following))
    return end_cut(text, gap != len(pieces) and (not inside or following.lower() in _FUNCTION_WORDS))


def end_cut(text: str, whole_phrase: bool) -> str:
    """The end of a text that is cut behind a word, moved back to where a phrase ends.

    Where a phrase was cut in two, it goes back to the last end of a clause, if that keeps two thirds of the text; or
    else a determiner and the one word behind it go ("in a detailed", of "in a detailed way"). Then determiners,
    prepositions and conjunctions at the end go. A text of which nothing would be left stays.

    Args:
        text: without outer space or punctuation at its end.
        whole_phrase: whether a phrase ends here: punctuation, a preposition or a conjunction is what follows.
    """
    if not whole_phrase:
        clause = max(map(text.rfind, _CLAUSE_ENDS))
        if 3 * clause >= 2 * len(text):
            return tidy(text[:clause])
    words = text.split()
    if not whole_phrase and len(words) > 2 and words[-2].lower() in _DETERMINERS:
        del words[-2:]
    while words and words[-1].lower() in _FUNCTION_WORDS:
        words.pop()
    return tidy(" ".join(words)) or text


def build_vocabulary(captions: Iterable[str], min_items: int = MIN_ITEMS) -> CaptionVocabulary:
    """Counts the words of cleaned captions; those that fewer than `min_items` of them hold are left out."""
    words: Counter[str] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()
    total = 0
    for caption in captions:
        total += 1
        runs = split_runs(caption)
        words.update({word for run in runs for word in run})
        pairs.update({pair for run in runs for pair in pairwise(run)})
    word_bits = {word: math.log2(total / count) for word, count in words.items() if count >= min_items}
    pair_bits = {
        (first, second): bits
        for (first, second), count in pairs.items()
        if count >= min_items and (bits := math.log2(words[first] / count)) < word_bits[second]
    }
    return CaptionVocabulary(word_bits, pair_bits)
