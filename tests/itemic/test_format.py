"""Itemic formats: what presets spell, what parsing finds, and that every declared format reads back what it writes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from onereason.errors import FormatError
from onereason.itemic.format import ANY_DOMAIN, PRESETS, ItemicFormat, ItemicPattern, Marker, load_format

SPELLINGS = {
    # preset -> (domain, codes, what the public files hold)
    "onereason": ("video", (1, 2, 8191), "<|video_begin|><s_a_1><s_b_2><s_c_8191>"),
    "openonerec": (ANY_DOMAIN, (1, 2, 3), "<|sid_begin|><s_a_1><s_b_2><s_c_3><|sid_end|>"),
    "onerec_think": (ANY_DOMAIN, (1, 2, 3, 255), "<|sid_begin|><s_a_1><s_b_2><s_c_3><s_d_255><|sid_end|>"),
    "onerec_think_paper": (
        ANY_DOMAIN,
        (1024, 2048, 4096),
        "<|item_begin|><item_a_1024><item_b_2048><item_c_4096><|item_end|>",
    ),
    "minionerec": (ANY_DOMAIN, (12, 34, 56), "<a_12><b_34><c_56>"),
}


@st.composite
def formats(draw: st.DrawFn) -> ItemicFormat:
    """Any shape, marker layout and spelling with closed tokens."""
    sizes = tuple(draw(st.lists(st.integers(1, 12), min_size=1, max_size=5)))
    spelling = draw(st.sampled_from(["<s_{level}_{code}>", "<{level}_{code}>", "[{code}.{level}]", "«{level}{code}»"]))
    has_end = draw(st.booleans())
    if draw(st.booleans()):
        domains = {ANY_DOMAIN: Marker("<|i|>" if draw(st.booleans()) else None, "<|/i|>" if has_end else None)}
    else:
        names = draw(st.lists(st.sampled_from(["a", "ad", "ads", "video"]), min_size=1, max_size=4, unique=True))
        # One begin token is the beginning of another: the longer one must win.
        domains = {n: Marker(f"<|{n}", f"<|/{n}|>" if has_end else None) for n in names}
    return ItemicFormat(
        "drawn",
        sizes,
        spelling,
        domains,
        render_end=has_end and draw(st.booleans()),
        markers_first=draw(st.booleans()),
    )


@st.composite
def formats_with_items(draw: st.DrawFn) -> tuple[ItemicFormat, list[tuple[str, tuple[int, ...]]]]:
    format = draw(st.one_of(formats(), st.sampled_from(list(PRESETS.values()))))
    codes = st.tuples(*(st.integers(0, size - 1) for size in format.codes_per_level))
    items = st.lists(st.tuples(st.sampled_from(list(format.domains)), codes), min_size=1, max_size=5)
    return format, draw(items)


def pattern_tokens(format: ItemicFormat, domain: str, codes: tuple[int, ...]) -> list[str]:
    """The tokens of one pattern, written out from the declaration alone."""
    marker = format.domains[domain]
    spelled = [format.code_token.replace("{level}", "abcde"[i]).replace("{code}", str(c)) for i, c in enumerate(codes)]
    return [
        *([marker.begin] if marker.begin is not None else []),
        *spelled,
        *([marker.end] if format.render_end and marker.end is not None else []),
    ]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_spell_items_as_the_public_files_do(name):
    domain, codes, text = SPELLINGS[name]
    format = PRESETS[name]
    assert format.render(codes, domain) == text
    parsed = format.parse(f"watched {text} then")
    assert parsed.items == (ItemicPattern(domain, codes, 8, 8 + len(text)),)
    assert parsed.num_malformed == 0


@settings(max_examples=150, deadline=None)
@given(formats_with_items(), st.sampled_from(["", " ", ", then ", "\n"]))
def test_parse_reads_what_render_writes(drawn, between):
    format, items = drawn
    written = [format.render(codes, domain) for domain, codes in items]
    assert written == ["".join(pattern_tokens(format, domain, codes)) for domain, codes in items]
    parsed = format.parse(between.join(written))
    start, expected = 0, []
    for (domain, codes), text in zip(items, written, strict=True):
        expected.append(ItemicPattern(domain, codes, start, start + len(text)))
        start += len(text) + len(between)
    assert list(parsed.items) == expected
    assert parsed.num_malformed == 0


@settings(max_examples=150, deadline=None)
@given(formats_with_items(), st.data())
def test_a_pattern_with_a_token_missing_is_malformed(drawn, data):
    """Runs stand apart, so each broken one counts once and the whole ones are found."""
    format, items = drawn
    texts, whole, broken = [], [], 0
    for domain, codes in items:
        tokens = pattern_tokens(format, domain, codes)
        if data.draw(st.booleans()):
            del tokens[data.draw(st.integers(0, len(tokens) - 1))]
            broken += bool(tokens)
        else:
            whole.append((domain, codes))
        texts.append("".join(tokens))
    parsed = format.parse(" ".join(texts))
    assert [(i.domain, i.codes) for i in parsed.items] == whole
    assert parsed.num_malformed == broken


@settings(max_examples=150, deadline=None)
@given(formats())
def test_tokens_are_unique_and_laid_out_as_declared(format):
    tokens = format.tokens()
    assert len(set(tokens)) == len(tokens) == format.num_tokens
    codes = tokens[len(format.marker_tokens) :] if format.markers_first else tokens[: format.num_codes]
    expected = [
        format.code_token.replace("{level}", "abcde"[level]).replace("{code}", str(code))
        for level, size in enumerate(format.codes_per_level)
        for code in range(size)
    ]
    assert codes == expected
    assert ItemicFormat.from_dict(yaml.safe_load(yaml.safe_dump(format.to_dict(), sort_keys=False))) == format
    sample = format.render([0] * format.num_levels, next(iter(format.domains)))
    assert format.pattern_length == len(pattern_tokens(format, next(iter(format.domains)), (0,) * format.num_levels))
    assert sample


@pytest.mark.parametrize(
    ("text", "items", "num_malformed"),
    [
        ("", [], 0),
        ("nothing here", [], 0),
        ("<a_1><b_2><c_3>", [(1, 2, 3)], 0),
        ("<a_1><b_2>", [], 1),
        ("<b_2><c_3>", [], 1),
        ("<a_1><c_3><b_2>", [], 1),
        ("<a_1> <b_2><c_3>", [], 2),  # a gap ends a run: two broken ones
        ("<a_1><a_1><b_2><c_3>", [(1, 2, 3)], 1),  # the first `a` leads nowhere, the second starts a pattern
        ("<a_1><b_2><c_3><c_3>", [(1, 2, 3)], 1),
        ("<a_256><b_2><c_3>", [], 1),  # 256 codes a level: 0 to 255
        ("<a_255><b_0><c_255>", [(255, 0, 255)], 0),
        ("<a_01><b_2><c_3>", [], 1),  # `<a_01>` is no token; `<b_2><c_3>` is left over
        (f"<a_{'9' * 5000}><b_2><c_3>", [], 1),  # a number too long for int() is refused like any other
        ("<d_1>", [], 1),
    ],
)
def test_parse_of_broken_text_without_markers(text, items, num_malformed):
    parsed = PRESETS["minionerec"].parse(text)
    assert [i.codes for i in parsed.items] == items
    assert parsed.num_malformed == num_malformed


@pytest.mark.parametrize(
    ("text", "items", "num_malformed"),
    [
        ("<s_a_1><s_b_2><s_c_3>", [], 1),  # codes without a begin token name no domain
        ("<|video_begin|>", [], 1),
        ("<|video_begin|> <s_a_1><s_b_2><s_c_3>", [], 2),
        ("<|video_begin|><|ad_begin|><s_a_1><s_b_2><s_c_3>", [("ad", (1, 2, 3))], 1),
        ("<|ad_begin|><s_a_1><s_b_2><s_c_3><|ad_end|>", [("ad", (1, 2, 3))], 0),  # an end it owns but never writes
        ("<|ad_begin|><s_a_1><s_b_2><s_c_3><|video_end|>", [("ad", (1, 2, 3))], 1),
        ("<|sid_begin|><s_a_1><s_b_2><s_c_3><|sid_end|>", [], 1),  # another format's markers are plain text
    ],
)
def test_parse_of_broken_text_with_markers(text, items, num_malformed):
    parsed = PRESETS["onereason"].parse(text)
    assert [(i.domain, i.codes) for i in parsed.items] == items
    assert parsed.num_malformed == num_malformed


def test_a_span_covers_an_end_token_that_is_not_rendered():
    text = "x <|ad_begin|><s_a_1><s_b_2><s_c_3><|ad_end|> y"
    (item,) = PRESETS["onereason"].parse(text).items
    assert text[item.start : item.end] == text[2:-2]


def test_a_missing_end_token_is_malformed_where_patterns_close():
    parsed = PRESETS["openonerec"].parse("<|sid_begin|><s_a_1><s_b_2><s_c_3> and <|sid_begin|><s_a_4>")
    assert (parsed.items, parsed.num_malformed) == ((), 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codes_per_level": ()}, "levels must be 1 to 26, got 0"),
        ({"codes_per_level": (2,) * 27}, "levels must be 1 to 26, got 27"),
        ({"codes_per_level": (4, 0)}, "every level needs at least 1 code"),
        ({"code_token": "<{level}>"}, "once each"),
        ({"code_token": "<{level}_{level}_{code}>"}, "once each"),
        ({"code_token": "<{level}_{code}_{x}>"}, "no other brace"),
        ({"code_token": "1{level}{code}"}, "do not read back"),  # 1a2 then 1b3 is 1a21b3: code 21
        ({"domains": {}}, "at least one domain"),
        ({"domains": {"*": Marker(), "x": Marker("<x>")}}, "stands alone"),
        ({"domains": {"x": Marker("<x>"), "y": Marker("<x>")}}, "begin token of its own"),
        ({"domains": {"x": Marker("<x>"), "y": Marker()}}, "begin token of its own"),
        ({"domains": {"x": Marker("<x>", "<x>")}}, "spelled alike"),
        ({"domains": {"x": Marker("<a_7>")}}, "spelled alike"),
        ({"domains": {"x": Marker("")}}, "is empty"),
        ({"render_end": True}, "render_end needs an end token"),
    ],
)
def test_a_wrong_declaration_is_refused(change, message):
    with pytest.raises(FormatError, match=message):
        replace(PRESETS["minionerec"], **change)


def test_codes_outside_the_format_are_refused():
    format = PRESETS["minionerec"]
    with pytest.raises(FormatError, match=r"sid \[1, 2\] has 2 levels, format 'minionerec' has 3"):
        format.render((1, 2))
    with pytest.raises(FormatError, match=r"code 256 at level b is outside format 'minionerec' \(0 to 255\)"):
        format.render((1, 256, 3))
    with pytest.raises(FormatError, match="domain 'book' is not in format 'onereason'"):
        PRESETS["onereason"].render((1, 2, 3), "book")


def test_domains_in_another_order_are_another_format():
    """The order of domains is the order of ids."""
    first = ItemicFormat("f", (2,), "<{level}_{code}>", {"x": Marker("<x>"), "y": Marker("<y>")})
    second = replace(first, domains=dict(reversed(list(first.domains.items()))))
    assert first != second
    assert first == replace(first) and hash(first) == hash(replace(first))
    assert first != "f"


@pytest.mark.parametrize("levels", [-1, 0, 27])
def test_with_shape_names_the_levels_asked_for(levels):
    with pytest.raises(FormatError, match=f"levels must be 1 to 26, got {levels}"):
        load_format("minionerec", levels, 4)


def test_with_shape():
    format = PRESETS["minionerec"]
    assert format.with_shape(4, 512).codes_per_level == (512,) * 4
    assert format.with_shape(levels=2).codes_per_level == (256, 256)
    assert format.with_shape(codes=8).codes_per_level == (8, 8, 8)
    uneven = replace(format, codes_per_level=(4, 8, 16))
    assert uneven.with_shape() == uneven
    with pytest.raises(FormatError, match="unequal size"):
        uneven.with_shape(levels=2)
    with pytest.raises(FormatError, match="got 0"):
        format.with_shape(levels=0)


def test_load_format_from_yaml(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "name: mine\ncodes_per_level: [4, 8]\ncode_token: '<{level}_{code}>'\n"
        "domains:\n  book: {begin: <|book|>}\n  film: {begin: <|film|>}\n"
    )
    format = load_format(path)
    assert format.render((3, 7), "film") == "<|film|><a_3><b_7>"
    assert load_format(path, levels=3, codes=2).codes_per_level == (2, 2, 2)
    assert load_format("onerec_think", codes=64).codes_per_level == (64,) * 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x", "expected the keys name, codes_per_level, code_token, domains"),
        ("[1, 2]", "expected the keys"),
        ("", "expected the keys"),
        ("a: [", "is not valid YAML"),
        ("{name: x, codes_per_level: '256', code_token: '<{level}_{code}>', domains: {'*': }}", "should be a list"),
        ("{name: x, codes_per_level: [4], code_token: '<{level}_{code}>', domains: [a]}", "domains a mapping"),
        ("{name: x, codes_per_level: [four], code_token: '<{level}_{code}>', domains: {'*': }}", "four"),
        ("{name: x, codes_per_level: [4], code_token: '<{level}_{code}>', domains: {a: {start: b}}}", "start"),
        ("{name: x, codes_per_level: [4], code_token: 'c', domains: {'*': }, size: 3}", r"unknown keys \['size'\]"),
    ],
)
def test_a_malformed_declaration_file_is_refused(tmp_path, text, message):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(FormatError, match=message):
        load_format(path)


def test_an_unknown_name_is_refused():
    with pytest.raises(FormatError, match=r"'onerason' is neither a preset \(onereason, .*\) nor a YAML file"):
        load_format("onerason")
