"""Scores of text against a true text, without a model: overlap, exact match, numbers, choices.

Give every function the answer, not the trace: `onereason.evaluation.extract` takes generated text apart.

Notation: `n` true tokens, `m` generated tokens.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal

from onereason.evaluation.scores.set_scores import harmonic_mean, normalise_choice

# -- overlap --------------------------------------------------------------------------------------------------------

_CJK = (
    "\u3040-\u30ff\u31f0-\u31ff"  # kana, written without spaces like the ideographs
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # ideographs
)
_TOKEN = re.compile(f"[{_CJK}]|[^\\W_{_CJK}]+")


def split_tokens(text: str) -> list[str]:
    """Lower-cased runs of letters and digits, and single CJK characters; everything else separates."""
    return _TOKEN.findall(text.lower())


def token_f1(true: str, generated: str) -> float:
    """F1 of tokens as multisets: a token counts as often as both texts have it (clipped); 0 without tokens."""
    wanted, found = split_tokens(true), split_tokens(generated)
    return _overlap_f1((Counter(wanted) & Counter(found)).total(), len(wanted), len(found))


def rouge_l_f1(true: str, generated: str) -> float:
    """F1 of the longest common subsequence: precision `lcs / m`, recall `lcs / n` (Lin 2004, section 3, beta 1)."""
    wanted, found = split_tokens(true), split_tokens(generated)
    return _overlap_f1(lcs_length(wanted, found), len(wanted), len(found))


def text_similarity(true: str, generated: str) -> float:
    """Half `token_f1`, half `rouge_l_f1`: the similarity of `logic` in the OneReason benchmark."""
    return (token_f1(true, generated) + rouge_l_f1(true, generated)) / 2


def lcs_length(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence, by bit-parallel rows (Hyyrö 2004): `m` steps on `n`-bit integers."""
    where: dict[str, int] = {}
    for i, token in enumerate(first):
        where[token] = where.get(token, 0) | 1 << i
    full = (1 << len(first)) - 1
    row = full  # bit i is 0 where the subsequence grows at first[i]
    for token in second:
        matches = row & where.get(token, 0)
        row = (row + matches | row - matches) & full
    return len(first) - row.bit_count()


def _overlap_f1(both: int, num_true: int, num_generated: int) -> float:
    return harmonic_mean(both / max(num_generated, 1), both / max(num_true, 1))


# -- exact match ----------------------------------------------------------------------------------------------------


def normalise_text(text: str) -> str:
    """Text without what a reader passes over: width and case of characters (NFKC), punctuation, runs of space."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join("".join(" " if unicodedata.category(c)[0] == "P" else c for c in folded).split())


def exact_match(true: str, generated: str) -> bool:
    """Whether both texts are the same after `normalise_text`."""
    return normalise_text(true) == normalise_text(generated)


# -- numbers --------------------------------------------------------------------------------------------------------

_NOISE = re.compile(r"\\[$%,!; ]|[$€£¥￥]|\{,\}")  # signs around digits, and LaTeX's spacing inside them
_NUMBER = re.compile(
    r"(?:(?<![\w)\]])[-\u2212])?"  # a minus sign, not a subtraction
    r"(?:(?:\d{1,3}(?:,\d{3})+(?!,?\d)|\d+)(?:\.\d+)?|\.\d+)"
)


def extract_number(text: str) -> Decimal | None:
    """The number that an answer ends on, None where it has none.

    In this order: what follows the first `####` (GSM8K, Cobbe et al. 2021), the last `\\boxed{...}`, the last number
    of the text. Thousands' commas, currency and percent signs are dropped: `$1,234.50` is 1234.5 and `50%` is 50.
    """
    _, marked, after = text.partition("####")
    if marked:
        numbers = _find_numbers(after.strip().partition("\n")[0])
        if numbers:
            return numbers[0]
    for content in (*reversed(_find_boxed(text)), text):
        numbers = _find_numbers(content)
        if numbers:
            return numbers[-1]
    return None


def _find_numbers(text: str) -> list[Decimal]:
    found = _NUMBER.findall(_NOISE.sub("", text))
    return [Decimal(number.replace(",", "").replace("\u2212", "-")) for number in found]


def _find_boxed(text: str) -> list[str]:
    """What stands in each `\\boxed{...}`, braces inside it included, in the order in which they close."""
    contents = []
    opened: list[int | None] = []  # where the content of a box starts, None for another brace
    for match in re.finditer(r"\\[{}]|(\\boxed\s{0,4})?\{|\}", text):
        if match.group().endswith("{") and match.group() != r"\{":
            opened.append(match.end() if match.group(1) else None)
        elif match.group() == "}" and opened:
            start = opened.pop()
            if start is not None:
                contents.append(text[start : match.start()])
    return contents


# -- choices --------------------------------------------------------------------------------------------------------


def extract_choice(text: str, options: str = "ABCD") -> str | None:
    """The letters an answer chooses, ascending (`"B"`, `"AC"`), None where it names none clearly.

    In this order: the last `\\boxed{...}`; the last letters after words such as "answer is", "答案是", "故选"; a first
    or last line that is nothing but letters; the letters that lines begin with as labels (`B. because`). Letters of a
    multi-select answer may be separated by space, commas, slashes, "and", "和". A capital that merely occurs in prose
    chooses nothing.

    Args:
        options: the letters of this question's options, upper-case; no more of them than it has.
    """
    text = unicodedata.normalize("NFKC", text)  # full-width letters and punctuation as ASCII
    letter = rf"(?!I(?:['\u2019]| [a-z]))[{re.escape(options)}]"  # the pronoun is no option
    separator = r"(?:[ \t]{0,4}[,、/&和与+][ \t]{0,4}|[ \t]+and[ \t]+|[ \t]{0,4})"
    group = rf"({letter}(?:{separator}{letter})*)(?![A-Za-z])"
    whole = rf"{_OPENING}{group}{_CLOSING}"
    boxed = [re.fullmatch(rf"(?:\\text\{{)?{whole}\}}?", content) for content in _find_boxed(text)]
    cued = re.finditer(rf"(?:{_ENGLISH_CUE}|{_CHINESE_CUE}){_OPENING}{group}", text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    bare = [re.fullmatch(whole, line) for line in lines[:1] + lines[-1:]]
    for readings in (boxed, cued, bare):
        found = [match.group(1) for match in readings if match]
        if found:
            return _letters(found[-1], options)
    labels = [re.match(rf"[*(]{{0,3}}({letter})[*)]{{0,3}}[.)、:。](?![A-Za-z0-9])", line) for line in lines]
    return _letters("".join(match.group(1) for match in labels if match), options) or None


def _letters(text: str, options: str) -> str:
    return normalise_choice("".join(c for c in text if c in options))


# Repeats are bounded: text that degenerates into a run of white space must not cost quadratic time.
_OPENING, _CLOSING = r"[\s*(\[【「\"']{0,8}", r"[\s*)\]】」\"'.。]{0,8}"
_ENGLISH_CUE = (
    r"(?i:\banswers?(?:\s{1,4}(?:is|are|should\s{1,4}be))?|\b(?:choices?|options?)\s{1,4}(?:is|are))"
    r"[\s*]{0,8}:?(?:\s{0,4}(?i:options?|choices?))?"
)
_CHINESE_CUE = r"(?<!不)(?:答案|故选|应选|该选|选择|选)[】\]*]{0,3}(?:应该|应当|应)?[是为]?\s{0,4}:?(?:选项)?"
