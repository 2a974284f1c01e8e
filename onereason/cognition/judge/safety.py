"""What must not be inferred about a person: health, religion, politics, sexuality, ethnicity, and how to reach them.

A sensitive word by itself is no inference: `Health & Beauty` is a department, a pregnancy pillow is a product. It is
one where a text ascribes it to a person: "the user is probably a Christian", "she suffers from insomnia".
"""

from __future__ import annotations

import re
from functools import cache

from onereason.cognition.checks.problem import Problem, excerpt
from onereason.cognition.lexicon import Lexicon, load_lexicon
from onereason.cognition.normalise import Normalised, normalise

_MAX_FILLERS = 5
_HAVING = frozenset(("has", "have", "had"))
"""One has an illness; one does not have a religion."""

_EMAIL = re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+")
_DIGITS = re.compile(r"(?<![A-Za-z0-9_.])\+?\(?\d[\d\s().-]{5,22}\d(?![A-Za-z0-9_])")
_MANY_DIGITS = re.compile(r"[0-9][0-9\s().-]{5,22}[0-9]")
"""What every match of `_DIGITS` holds; quick to look for."""
_DATE = re.compile(r"\d{4}-\d{1,2}-\d{1,2}")
_ROADS = ("Street", "St", "Avenue", "Ave", "Road", "Rd", "Boulevard", "Blvd", "Lane", "Ln", "Drive", "Court")
_ADDRESS = re.compile(rf"\b\d{{1,5}} (?:[A-Z][\w'-]* ){{1,3}}(?:{'|'.join(_ROADS)})\b")
_TELLING_DIGITS = re.compile(r"\d(?: [A-Z]|[0-9\s().-]{5})")
"""What every match of `_MANY_DIGITS` and of `_ADDRESS` holds."""
_ADDRESS_CJK = re.compile(r"[\u4e00-\u9fff]{1,10}(?:路|街|大道|巷|弄|胡同)\s?\d{1,5}\s?号")


def check_safety(text: str, language: str = "en") -> list[Problem]:
    """`sensitive_CLASS` and `personal_KIND` (`email`, `phone`, `card`, `address`) for each thing a text should not say.

    Args:
        text: without itemic patterns, whose codes are no telephone numbers.
        language: `en` or `zh`.
    """
    lexicon = load_lexicon(language)
    words = normalise(text)
    found = _find_ascribed_cjk(words, language) if language == "zh" else _find_ascribed(words, lexicon)
    return found + find_contacts(text)


# -- ascribed to a person -------------------------------------------------------------------------------------------


@cache
def _terms(language: str) -> dict[str, list[tuple[str, list[str]]]]:
    """Longest word of a term -> `(class, words of the term)`."""
    found: dict[str, list[tuple[str, list[str]]]] = {}
    for name, terms in load_lexicon(language).sensitive.items():
        for term in terms:
            words = normalise(term).words
            found.setdefault(max(words, key=len), []).append((name, words))
    return found


@cache
def _term_words(language: str) -> frozenset[str]:
    return frozenset(_terms(language))


@cache
def _diagnosis_ends(language: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(phrase.split()) for phrase in load_lexicon(language).diagnosis)


def _find_ascribed(words: Normalised, lexicon: Lexicon) -> list[Problem]:
    if _term_words(lexicon.language).isdisjoint(words.word_set):
        return []
    present = words.word_set & _term_words(lexicon.language)
    terms, text = _terms(lexicon.language), words.words
    found: list[tuple[int, int, int, str]] = []  # place and end of the term, where it is ascribed from, class
    for at, word in enumerate(text):
        for name, term in terms[word] if word in present else ():
            place = at - term.index(word)
            end = place + len(term)
            if place < 0 or text[place:end] != term or (end < len(text) and text[end] in lexicon.goods):
                continue
            start = _ascribed_from(text, place, name, lexicon)
            if start is not None:
                found.append((place, end, start, name))
    # A term inside a longer one is that one.
    longest = [one for one in found if not any(o[0] <= one[0] and one[1] <= o[1] and o != one for o in found)]
    said = [Problem(f"sensitive_{name}", excerpt(" ".join(text[start:end]))) for _, end, start, name in longest]
    return list(dict.fromkeys(said))


def _ascribed_from(text: list[str], place: int, name: str, lexicon: Lexicon) -> int | None:
    """Where the words begin that ascribe the term at `place` to a person; None where none do."""
    at = place - 1
    fillers = 0
    while at >= 0 and fillers <= _MAX_FILLERS:
        if name == "health":
            for phrase in _diagnosis_ends(lexicon.language):
                if tuple(text[max(0, at - len(phrase) + 1) : at + 1]) == phrase:
                    return at - len(phrase) + 1
        word = text[at]
        if word in lexicon.ascribe and (name == "health" or word not in _HAVING):
            # The person stands before the verb: "the user, it seems, is".
            for back in range(1, _MAX_FILLERS + 1):
                if at - back < 0:
                    return None
                if text[at - back] in lexicon.persons:
                    return at - back
                if text[at - back] not in lexicon.fillers and text[at - back] not in lexicon.ascribe:
                    return None
            return None
        if word not in lexicon.fillers:
            return None
        at -= 1
        fillers += 1
    return None


@cache
def _ascribed_cjk(language: str) -> list[tuple[str, re.Pattern[str]]]:
    lexicon = load_lexicon(language)

    def either(words: object) -> str:
        return "|".join(sorted(map(re.escape, words), key=lambda word: (-len(word), word)))  # type: ignore[call-overload]

    persons, ascribe, fillers = either(lexicon.persons), either(lexicon.ascribe), either(lexicon.fillers)
    goods = either(lexicon.goods)
    before = f"(?:{persons})(?:{fillers}){{0,{_MAX_FILLERS}}}(?:{ascribe})?(?:{fillers}){{0,{_MAX_FILLERS}}}"
    found = []
    for name, terms in lexicon.sensitive.items():
        start = before if name != "health" else f"(?:{before}|(?:{either(lexicon.diagnosis)})(?:{fillers}){{0,3}})"
        found.append((name, re.compile(f"{start}(?:{either(terms)})(?!{goods})")))
    return found


def _find_ascribed_cjk(words: Normalised, language: str) -> list[Problem]:
    lexicon = load_lexicon(language)
    text = words.squeezed
    found = []
    for name, expression in _ascribed_cjk(language):
        if any(term in text for term in lexicon.sensitive[name]) and (match := expression.search(text)):
            found.append(Problem(f"sensitive_{name}", excerpt(match.group())))
    return found


# -- how to reach a person ------------------------------------------------------------------------------------------


def find_contacts(text: str) -> list[Problem]:
    """`personal_email`, `personal_phone`, `personal_card`, `personal_address`."""
    found = []
    if "@" in text and (match := _EMAIL.search(text)):
        found.append(Problem("personal_email", match.group()))
    if not _TELLING_DIGITS.search(text) and "号" not in text:
        return found
    for match in _DIGITS.finditer(text) if _MANY_DIGITS.search(text) else ():
        kind = _classify_digits(match.group())
        if kind:
            found.append(Problem(f"personal_{kind}", excerpt(match.group())))
    place = _ADDRESS.search(text) if any(map(text.__contains__, _ROADS)) else None
    if place is None and "号" in text:
        place = _ADDRESS_CJK.search(text)
    if place is not None:
        found.append(Problem("personal_address", place.group()))
    return found


def _classify_digits(text: str) -> str | None:
    """`card`, `phone`, or None for another number: dates, counts, lists of numbers."""
    digits = re.sub(r"\D", "", text)
    if 13 <= len(digits) <= 19 and passes_luhn(digits) and len(re.findall(r"\d+", text)) in (1, 4, 5):
        return "card"
    if _DATE.search(text):
        return None
    if re.fullmatch(r"1[3-9]\d{9}", digits) and len(re.findall(r"\d+", text)) <= 3:
        return "phone"  # a mobile number of mainland China
    international = text.lstrip().startswith("+") and 8 <= len(digits) <= 15
    national = re.fullmatch(r"\(\d{3}\) ?\d{3}[ .-]\d{4}|\d{3}([.-])\d{3}\1\d{4}", text.strip())
    return "phone" if international or national else None


def passes_luhn(digits: str) -> bool:
    """Whether the check digit of a card number fits (ISO/IEC 7812-1)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0
