"""Group `verify`: whether something holds, and lists that follow a rule."""

from __future__ import annotations

from onereason.cognition.instructions.base import Exercise, Scene, day_name, numbered

MIN_LIST, MAX_LIST = 3, 8


def pattern_tokens(scene: Scene, item: int) -> list[str]:
    """The tokens of an item's pattern."""
    format = scene.stock.format
    marker = format.marker(scene.stock.domains[item])
    tokens = [format.code_name(level, code) for level, code in enumerate(scene.codes(item))]
    if marker.begin is not None:
        tokens.insert(0, marker.begin)
    if format.render_end and marker.end is not None:
        tokens.append(marker.end)
    return tokens


def break_pattern(scene: Scene, item: int) -> tuple[str, str]:
    """A malformed pattern made of an item, and the word for its fault: `missing`, `twice` or `misplaced` tokens."""
    tokens, format = pattern_tokens(scene, item), scene.stock.format
    first = int(format.has_begin)
    levels = format.num_levels
    fault = scene.stream.below(3)
    if fault == 0:  # any token may be missing: a code, the begin token, the end token
        del tokens[scene.stream.below(len(tokens))]
        return "".join(tokens), "missing"
    if fault == 1:
        place = first + scene.stream.below(levels)
        tokens.insert(place, tokens[place])
        return "".join(tokens), "twice"
    a, b = scene.stream.sample(levels, 2)
    tokens[first + a], tokens[first + b] = tokens[first + b], tokens[first + a]
    return "".join(tokens), "misplaced"


def well_formed(scene: Scene) -> Exercise:
    item = scene.one()
    whole = bool(scene.stream.below(2))
    text, fault = (scene.patterns[item], "whole") if whole else break_pattern(scene, item)
    steps = []
    if scene.think:
        steps = [scene.say("parts", parts=_expected(scene)), scene.say("found", fault=scene.word(fault))]
    return Exercise({"item": text}, scene.yes_no(whole), steps=steps)


def _expected(scene: Scene) -> str:
    """What a whole pattern consists of, in words."""
    format = scene.stock.format
    parts = [scene.word("begin_token")] if format.has_begin else []
    parts += [scene.say("level", letter=letter) for letter in scene.stock.letters]
    return ", ".join([*parts, scene.word("end_token")] if format.render_end else parts)


def count_well_formed(scene: Scene) -> Exercise | None:
    items = scene.draw(3, 6)
    if items is None:
        return None
    made = [(scene.patterns[i], "whole") if scene.stream.below(5) < 3 else break_pattern(scene, i) for i in items]
    steps = []
    if scene.think:
        steps = [f"{n}. {text}: {scene.word(fault)}" for n, (text, fault) in enumerate(made, 1)]
    whole = sum(fault == "whole" for _, fault in made)
    return Exercise({}, str(whole), numbered([text for text, _ in made]), steps=steps)


def repair(scene: Scene) -> Exercise | None:
    item = scene.one()
    tokens = pattern_tokens(scene, item)
    first, levels = int(scene.stock.format.has_begin), scene.stock.format.num_levels
    order = scene.stream.sample(levels, levels)
    if order == sorted(order):
        order = order[::-1]
    shuffled = [*tokens[:first], *[tokens[first + level] for level in order], *tokens[first + levels :]]
    steps = []
    if scene.think:
        letters = [scene.stock.letters[level] for level in order]
        steps = [scene.say("levels_are", letters=", ".join(letters)), scene.say("parts", parts=_expected(scene))]
    return Exercise({"item": "".join(shuffled)}, scene.patterns[item], steps=steps, answer_items=[item])


def continue_cycle(scene: Scene) -> Exercise | None:
    items = scene.draw(2, 3)
    if items is None:
        return None
    shown, k = scene.stream.between(2 * len(items), 3 * len(items)), scene.stream.between(2, 4)
    listed = [items[n % len(items)] for n in range(shown)]
    answer = [items[n % len(items)] for n in range(shown, shown + k)]
    steps = []
    if scene.think:
        steps = [scene.say("cycle", length=len(items)), scene.say("count", number=shown)]
        steps.append(scene.say("asked", places=scene.places([n % len(items) + 1 for n in range(shown, shown + k)])))
    return Exercise({"k": k}, scene.lines(answer), scene.listing(scene.of(listed)), steps=steps, answer_items=answer)


def sort_by_codes(scene: Scene) -> Exercise | None:
    items = scene.draw(MIN_LIST, 6)
    if items is None:
        return None
    answer = sorted(items, key=scene.codes)
    steps = []
    if scene.think:
        places = [items.index(item) + 1 for item in answer]
        steps = [scene.reading(item) for item in items]
        steps.append(scene.say("order", places=scene.places(places)))
    return Exercise({}, scene.lines(answer), scene.listing(scene.of(items)), steps=steps, answer_items=answer)


def most_common_theme(scene: Scene) -> Exercise | None:
    items = scene.history(4, 10)
    if items is None:
        return None
    themes = [scene.stock.themes[item] for item in items]
    best = max(themes, key=themes.count)  # of several, the one that stands first
    if not all(themes) or themes.count(best) < 2:
        return None
    k = scene.stream.between(2, themes.count(best))
    places = [n for n, theme in enumerate(themes, 1) if theme == best][:k]
    answer = [items[n - 1] for n in places]
    steps = []
    if scene.think:
        steps = [scene.say("times", item=theme, count=themes.count(theme)) for theme in dict.fromkeys(themes)]
        steps.append(scene.say("fit", places=scene.places(places)))
    return Exercise({"k": k}, scene.lines(answer), scene.beside(items, themes), steps=steps, answer_items=answer)


def no_duplicates(scene: Scene) -> Exercise | None:
    items = scene.draw(MIN_LIST, MAX_LIST)
    if items is None:
        return None
    unique = bool(scene.stream.below(2))
    if not unique:
        items.insert(scene.stream.below(len(items) + 1), scene.stream.pick(items))
    steps = []
    if scene.think:
        seen = [scene.word("again" if item in items[:at] else "new") for at, item in enumerate(items)]
        steps = scene.notes(items, seen)
    return Exercise({}, scene.yes_no(unique), scene.listing(scene.of(items)), steps=steps)


def ordered_by_date(scene: Scene) -> Exercise | None:
    span = scene.span(MIN_LIST, MAX_LIST)
    if span is None or scene.stock.days is None:
        return None
    days = scene.stock.days[span[0] : span[1]].tolist()
    items = scene.stock.items[span[0] : span[1]].tolist()
    if scene.stream.below(2):
        a, b = scene.stream.sample(len(items), 2)
        items[a], items[b] = items[b], items[a]
        days[a], days[b] = days[b], days[a]
    fall = next((at for at in range(1, len(days)) if days[at] < days[at - 1]), None)
    steps = []
    if scene.think:
        for at in range(1, len(days) if fall is None else fall + 1):
            rises = scene.yes_no(days[at - 1] <= days[at])
            steps.append(f"{day_name(days[at - 1])} <= {day_name(days[at])}: {rises}")
    return Exercise({}, scene.yes_no(fall is None), scene.beside(items, list(map(day_name, days))), steps=steps)


def ordered_by_first_code(scene: Scene) -> Exercise | None:
    items = scene.draw(MIN_LIST, MAX_LIST)
    if items is None:
        return None
    codes = scene.stock.first_codes
    if scene.stream.below(2):
        items.sort(key=codes.__getitem__)
    fall = next((at for at in range(1, len(items)) if codes[items[at]] < codes[items[at - 1]]), None)
    steps = []
    if scene.think:
        for at in range(1, len(items) if fall is None else fall + 1):
            a, b = codes[items[at - 1]], codes[items[at]]
            steps.append(f"{a} <= {b}: {scene.yes_no(a <= b)}")
    return Exercise({}, scene.yes_no(fall is None), scene.listing(scene.of(items)), steps=steps)


def all_of_domain(scene: Scene) -> Exercise | None:
    items = scene.draw(MIN_LIST, MAX_LIST)
    if items is None:
        return None
    domains = scene.stock.domains
    asked = domains[items[0]]
    if scene.stream.below(2):
        items = [item for item in items if domains[item] == asked]
        if len(items) < 2:
            return None
    of_list = [domains[item] for item in items]
    steps = scene.notes(items, of_list) if scene.think else []
    holds = all(domain == asked for domain in of_list)
    return Exercise({"domain": asked}, scene.yes_no(holds), scene.listing(scene.of(items)), steps=steps)
