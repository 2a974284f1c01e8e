"""Answers of itemic instructions worked out anew, from nothing but the text of the question.

The question is matched against the wordings of the prompt set, read as patterns; items are found by an expression of
this module's own. Only `match.captions` looks into the catalog, because the question alone does not hold its answer.
"""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import yaml

import onereason
from onereason.itemic.format import ItemicFormat

PROMPTS = Path(onereason.__file__).parent / "prompt_sets"


def inverted(template: str) -> re.Pattern[str]:
    """A wording as an expression that finds what stands in its placeholders."""
    seen: set[str] = set()

    def group(found: re.Match[str]) -> str:
        name = found[1]
        if name in seen:
            return f"(?P={name})"
        seen.add(name)
        return f"(?P<{name}>.+?)"

    return re.compile(re.sub(r"\\\{(\w+)\\\}", group, re.escape(template)), re.DOTALL)


class Checker:
    """Verifies rows of one format and language."""

    def __init__(self, format: ItemicFormat, language: str, names: dict[str, set[str]]) -> None:
        """
        Args:
            names: pattern -> what its items are called, for `match.captions`.
        """
        self.format = format
        self.names = names
        texts = yaml.safe_load((PROMPTS / language / "instruction.yaml").read_text("utf-8"))
        self.texts = texts
        self.words = texts["word"]
        code = re.escape(format.code_token).replace(r"\{level\}", "%s").replace(r"\{code\}", r"(\d+)")
        codes = "".join(code % "abcdefgh"[level] for level in range(format.num_levels))
        begins = "|".join(re.escape(m.begin) for m in format.domains.values() if m.begin)
        ends = "|".join(re.escape(m.end) for m in format.domains.values() if m.end)
        self.pattern = re.compile(
            (f"({begins})" if begins else "()") + codes + (f"(?:{ends})" if format.render_end else "")
        )
        self.domain_of = {m.begin: domain for domain, m in format.domains.items()}

    # -- reading ----------------------------------------------------------------------------------------------------

    def question(self, row: dict[str, Any]) -> list[dict[str, str]]:
        """Every reading of the question's placeholders."""
        text = row["messages"][1]["content"]
        text = text.removesuffix(" /think").removesuffix(" /no_think")
        group, kind = row["id"].partition(":")[0].split(".")
        found = []
        reads = inspect.signature(getattr(self, f"{group}_{kind}")).parameters
        layouts = self.texts["layout"]["two" if "others" in reads else "items" if "listed" in reads else "none"]
        for outer in [layouts] if isinstance(layouts, str) else layouts:
            for name in (kind, f"{kind}_plain"):
                for inner in self.texts[group].get(name, ()):
                    match = inverted(outer.replace("{request}", inner)).fullmatch(text)
                    # a list neither begins nor ends with an empty line: that belongs to another layout
                    if match and all(list_ == list_.strip("\n") for list_ in match.groupdict().values()):
                        found.append(match.groupdict())
        return found

    def find(self, text: str) -> list[str]:
        return [match[0] for match in self.pattern.finditer(text)]

    def codes(self, pattern: str) -> list[int]:
        return [int(code) for code in self.pattern.fullmatch(pattern).groups()[1:]]

    def domain(self, pattern: str) -> str:
        return self.domain_of[self.pattern.fullmatch(pattern)[1]]

    def is_whole(self, text: str) -> bool:
        found = self.pattern.fullmatch(text)
        return found is not None and all(
            int(code) < size for code, size in zip(found.groups()[1:], self.format.codes_per_level, strict=True)
        )

    def lines(self, patterns: list[str]) -> str:
        return "\n".join(patterns) or self.words["none"]

    def yes_no(self, holds: bool) -> str:
        return self.words["yes" if holds else "no"]

    def object(self, pattern: str, domain: str = "domain", codes: str = "codes") -> str:
        named = {domain: self.domain(pattern)} if len(self.format.domains) > 1 else {}
        return json.dumps(named | {codes: self.codes(pattern)})

    def render(self, codes: list[int], domain: str | None) -> str:
        marker = self.format.domains[domain] if domain else next(iter(self.format.domains.values()))
        tokens = [self.format.code_token.format(level="abcdefgh"[at], code=code) for at, code in enumerate(codes)]
        return (marker.begin or "") + "".join(tokens) + ((marker.end or "") if self.format.render_end else "")

    # -- the verdict ------------------------------------------------------------------------------------------------

    def verify_instruction(self, row: dict[str, Any]) -> bool:
        """Whether the row's answer is the right one; False too for a question that no wording gives."""
        content = row["messages"][2]["content"]
        answer = content.rpartition("</think>\n\n")[2] if row["mode"] == "think" else content
        kind = row["id"].partition(":")[0].replace(".", "_")
        right = {getattr(self, kind)(**self.sorted_out(fields)) for fields in self.question(row)}
        return right == {answer}

    def sorted_out(self, fields: dict[str, str]) -> dict[str, Any]:
        """Numbers as numbers; lists of items under `listed`, and as they stand under `text`."""
        known: dict[str, Any] = {name: int(fields[name]) for name in ("n", "m", "k") if name in fields}
        known |= {name: fields[name] for name in fields if name not in ("n", "m", "k", "items", "other")}
        if "items" in fields:
            known |= {"text": fields["items"], "listed": self.find(fields["items"])}
        if "other" in fields:
            known |= {"other_text": fields["other"], "others": self.find(fields["other"])}
        return known

    # convert

    def convert_to_json(self, item):
        return self.object(item)

    def convert_from_json(self, object):
        found = json.loads(object)
        return self.render(found["codes"], found.get("domain"))

    def convert_list_to_json(self, listed, text):
        return json.dumps(listed, ensure_ascii=False)

    def convert_list_to_csv(self, listed, text, header):
        named = header.split(",")
        rows = [([self.domain(p)] if named[0] == "domain" else []) + [str(c) for c in self.codes(p)] for p in listed]
        assert all(len(row) == len(named) for row in rows)
        return "\n".join([header, *(",".join(row) for row in rows)])

    def convert_csv_to_list(self, listed, text):
        header, *rows = [line.split(",") for line in text.split("\n")]
        named = header[0] == "domain"
        return self.lines([self.render([int(c) for c in row[named:]], row[0] if named else None) for row in rows])

    def convert_to_lines(self, listed, text):
        return self.lines(listed)

    def convert_replace(self, listed, text, n, item):
        return self.lines([item if at == n else p for at, p in enumerate(listed, 1)])

    def convert_insert(self, listed, text, n, item):
        return self.lines([*listed[: n - 1], item, *listed[n - 1 :]])

    def convert_delete(self, listed, text, n):
        return self.lines([p for at, p in enumerate(listed, 1) if at != n])

    def convert_remove(self, listed, text, item):
        return self.lines([p for p in listed if p != item])

    def convert_reverse(self, listed, text):
        return self.lines(list(reversed(listed)))

    def convert_deduplicate(self, listed, text):
        return self.lines(list(dict.fromkeys(listed)))

    def convert_swap(self, listed, text, m, n):
        listed[m - 1], listed[n - 1] = listed[n - 1], listed[m - 1]
        return self.lines(listed)

    # retrieve

    def retrieve_nth(self, listed, text, n):
        return listed[n - 1]

    def retrieve_nth_last(self, listed, text, n):
        return listed[-n]

    def retrieve_first_k(self, listed, text, k):
        return self.lines(listed[:k])

    def retrieve_last_k(self, listed, text, k):
        return self.lines(listed[-k:])

    def retrieve_of_domain(self, listed, text, domain):
        return self.lines([p for p in listed if self.domain(p) == domain])

    def beside(self, text: str) -> list[tuple[str, str]]:
        pairs = [tuple(line.split(" | ", 1)) for line in text.split("\n")]
        assert all(self.is_whole(pattern) for pattern, _ in pairs)
        return pairs

    def retrieve_before_date(self, listed, text, date):
        return self.lines([p for p, when in self.beside(text) if when < date])

    def retrieve_after_date(self, listed, text, date):
        return self.lines([p for p, when in self.beside(text) if when > date])

    def retrieve_of_theme(self, listed, text, theme):
        return self.lines([p for p, of in self.beside(text) if of == theme])

    def retrieve_next_after(self, listed, text, item):
        assert listed.count(item) == 1
        return listed[listed.index(item) + 1]

    def retrieve_position_of(self, listed, text, item):
        assert listed.count(item) == 1
        return str(listed.index(item) + 1)

    # match

    def match_same_first_code(self, first, second):
        return self.yes_no(self.codes(first)[0] == self.codes(second)[0])

    def match_same_item(self, first, second):
        return self.yes_no(first == second)

    def match_same_domain(self, first, second):
        return self.yes_no(self.domain(first) == self.domain(second))

    def match_which_domain(self, item):
        return self.domain(item)

    def match_group_by_domain(self, listed, text):
        groups: dict[str, list[str]] = {}
        for pattern in listed:
            groups.setdefault(self.domain(pattern), []).append(pattern)
        return json.dumps(groups, ensure_ascii=False)

    def match_shared_codes(self, first, second):
        a, b = self.codes(first), self.codes(second)
        return str(max(n for n in range(len(a) + 1) if a[:n] == b[:n]))

    def match_with_first_code(self, listed, text, item):
        return self.lines([p for p in listed if self.codes(p)[0] == self.codes(item)[0]])

    def match_captions(self, listed, text, others, other_text):
        numbers = dict(line.split(". ", 1)[::-1] for line in other_text.split("\n"))
        found = [[numbers[name] for name in numbers if name in self.names[p]] for p in listed]
        assert all(len(one) == 1 for one in found), "the captions of a question tell its items apart"
        return ", ".join(one[0] for one in found)

    # compare

    def compare_count_by_domain(self, listed, text):
        domains = [self.domain(p) for p in listed]
        return json.dumps({domain: domains.count(domain) for domain in domains})

    def compare_most_frequent_item(self, listed, text):
        counts = sorted((listed.count(p), p) for p in set(listed))
        assert counts[-1][0] > counts[-2][0], "one item stands out"
        return counts[-1][1]

    def compare_most_frequent_code(self, listed, text):
        codes = [self.codes(p)[0] for p in listed]
        most = max(codes.count(code) for code in codes)
        first = next(code for code in codes if codes.count(code) == most)
        return self.format.code_token.format(level="a", code=first)

    def compare_count_item(self, listed, text, item):
        return str(sum(p == item for p in listed))

    def compare_count_distinct(self, listed, text):
        return str(len(set(listed)))

    def compare_longer_list(self, listed, text, others, other_text):
        a, b = len(listed), len(others)
        return self.words["equal" if a == b else "first_list" if a > b else "second_list"]

    def compare_intersection(self, listed, text, others, other_text):
        return self.lines([p for p in listed if p in set(others)])

    def compare_union(self, listed, text, others, other_text):
        return self.lines(list(dict.fromkeys(listed + others)))

    def compare_difference(self, listed, text, others, other_text):
        return self.lines([p for p in listed if p not in set(others)])

    # verify

    def verify_well_formed(self, item):
        return self.yes_no(self.is_whole(item))

    def verify_count_well_formed(self, listed, text):
        return str(sum(self.is_whole(line.split(". ", 1)[1]) for line in text.split("\n")))

    def verify_repair(self, item):
        found = {}
        for level in range(self.format.num_levels):
            code = (
                re.escape(self.format.code_token)
                .replace(r"\{level\}", "abcdefgh"[level])
                .replace(r"\{code\}", r"(\d+)")
            )
            (found[level],) = re.findall(code, item)
        begin = next((d for d, m in self.format.domains.items() if m.begin and item.startswith(m.begin)), None)
        return self.render([int(found[level]) for level in sorted(found)], begin)

    def verify_continue_cycle(self, listed, text, k):
        length = len(set(listed))
        assert listed == (listed[:length] * len(listed))[: len(listed)]
        return self.lines([listed[(len(listed) + n) % length] for n in range(k)])

    def verify_sort_by_codes(self, listed, text):
        return self.lines(sorted(listed, key=self.codes))

    def verify_most_common_theme(self, listed, text, k):
        pairs = self.beside(text)
        themes = [theme for _, theme in pairs]
        most = max(themes.count(theme) for theme in themes)
        best = next(theme for theme in themes if themes.count(theme) == most)
        found = [p for p, theme in pairs if theme == best]
        assert len(found) >= k
        return self.lines(found[:k])

    def verify_no_duplicates(self, listed, text):
        return self.yes_no(len(set(listed)) == len(listed))

    def verify_ordered_by_date(self, listed, text):
        dates = [date for _, date in self.beside(text)]
        return self.yes_no(dates == sorted(dates))

    def verify_ordered_by_first_code(self, listed, text):
        codes = [self.codes(p)[0] for p in listed]
        return self.yes_no(codes == sorted(codes))

    def verify_all_of_domain(self, listed, text, domain):
        return self.yes_no({self.domain(p) for p in listed} == {domain})

    # control

    def control_json_list(self, listed, text, k):
        return json.dumps(listed[:k], ensure_ascii=False)

    def control_comma(self, listed, text, k):
        return ", ".join(listed[-k:])

    def control_numbered(self, listed, text, k):
        return "\n".join(f"{n + 1}. {listed[n]}" for n in range(k))

    def control_exactly_k(self, listed, text, k):
        return "\n".join(listed[::-1][:k])

    def control_upper_keys(self, item):
        return self.object(item, "DOMAIN", "CODES")

    def control_with_captions(self, listed, text, k):
        return "\n".join(f"{pattern} ({name})" for pattern, name in self.beside(text)[:k])

    def control_without_captions(self, listed, text, k):
        return self.lines([pattern for pattern, _ in self.beside(text)][-k:])

    def control_codes_only(self, listed, text):
        return "\n".join("-".join(str(code) for code in self.codes(p)) for p in listed)
