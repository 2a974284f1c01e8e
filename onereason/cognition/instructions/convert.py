"""Group `convert`: other forms of items, and edited lists."""

from __future__ import annotations

from onereason.cognition.instructions.base import Exercise, Scene, join_json

MIN_LIST, MAX_LIST = 3, 8


def to_json(scene: Scene) -> Exercise:
    item = scene.one()
    steps = [scene.reading(item)] if scene.think else []
    return Exercise(
        {"item": scene.patterns[item]}, scene.as_object(item), steps=steps, text=scene.kind_text("convert.to_json")
    )


def from_json(scene: Scene) -> Exercise:
    item = scene.one()
    steps = []
    if scene.think:
        tokens = [
            f"{letter}={code}: {scene.stock.format.code_name(level, code)}"
            for level, (letter, code) in enumerate(zip(scene.stock.letters, scene.codes(item), strict=True))
        ]
        begin = scene.stock.format.marker(scene.stock.domains[item]).begin
        steps = [scene.say("begin", token=begin), *tokens] if begin else tokens
    return Exercise({"object": scene.as_object(item)}, scene.patterns[item], steps=steps, answer_items=[item])


def list_to_json(scene: Scene) -> Exercise | None:
    items = scene.draw(MIN_LIST, MAX_LIST)
    if items is None:
        return None
    patterns = scene.of(items)
    steps = [scene.say("count", number=len(items)), scene.say("quote")] if scene.think else []
    return Exercise({}, join_json(patterns), scene.listing(patterns), steps=steps, answer_items=items)


def _csv(scene: Scene, items: list[int]) -> tuple[str, str]:
    """Header and lines of items as comma-separated values."""
    header = ",".join((["domain"] if scene.stock.tells_domains else []) + scene.stock.letters)
    rows = []
    for item in items:
        codes = ",".join(map(str, scene.codes(item)))
        rows.append(f"{scene.stock.domains[item]},{codes}" if scene.stock.tells_domains else codes)
    return header, "\n".join(rows)


def list_to_csv(scene: Scene) -> Exercise | None:
    items = scene.draw(2, 5)
    if items is None:
        return None
    header, rows = _csv(scene, items)
    steps = [scene.reading(item) for item in items] if scene.think else []
    return Exercise({"header": header}, f"{header}\n{rows}", scene.listing(scene.of(items)), steps=steps)


def csv_to_list(scene: Scene) -> Exercise | None:
    items = scene.draw(2, 5)
    if items is None:
        return None
    header, rows = _csv(scene, items)
    steps = []
    if scene.think:
        steps = [scene.say("count", number=len(items)), scene.say("columns", columns=header.replace(",", ", "))]
    return Exercise({}, scene.lines(items), f"{header}\n{rows}", steps=steps, answer_items=items)


def to_lines(scene: Scene) -> Exercise | None:
    items = scene.draw(MIN_LIST, MAX_LIST)
    if items is None:
        return None
    patterns = scene.of(items)
    listed = (", ".join(patterns), "".join(patterns), " ".join(patterns), join_json(patterns))[scene.stream.below(4)]
    steps = [scene.say("count", number=len(items)), scene.say("one_a_line")] if scene.think else []
    return Exercise({}, scene.lines(items), listed, steps=steps, answer_items=items)


# -- edits ------------------------------------------------------------------------------------------------------------


def _edited(
    scene: Scene, items: list[int], fields: dict[str, str | int], order: list[int | str], new: int = -1
) -> Exercise:
    """An edit that gives the places of `order` (from 1), a text among them standing for the item `new`."""
    result = [new if isinstance(place, str) else items[place - 1] for place in order]
    steps = []
    if scene.think:
        steps = [scene.say("count", number=len(items)), scene.say("order", places=scene.places(order))]
    return Exercise(fields, scene.lines(result), scene.listing(scene.of(items)), steps=steps, answer_items=result)


def _places(items: list[int]) -> list[int | str]:
    return list(range(1, len(items) + 1))


def replace(scene: Scene) -> Exercise | None:
    items = scene.draw(MIN_LIST, MAX_LIST)
    if items is None:
        return None
    new, order = scene.one(), _places(items)
    place = scene.stream.between(1, len(items))
    order[place - 1] = scene.word("new")
    return _edited(scene, items, {"n": place, "item": scene.patterns[new]}, order, new)


def insert(scene: Scene) -> Exercise | None:
    items = scene.draw(2, MAX_LIST - 1)
    if items is None:
        return None
    new, order = scene.one(), _places(items)
    place = scene.stream.between(1, len(items) + 1)
    order.insert(place - 1, scene.word("new"))
    return _edited(scene, items, {"n": place, "item": scene.patterns[new]}, order, new)


def delete(scene: Scene) -> Exercise | None:
    items = scene.draw(MIN_LIST, MAX_LIST)
    if items is None:
        return None
    place, order = scene.stream.between(1, len(items)), _places(items)
    del order[place - 1]
    return _edited(scene, items, {"n": place}, order)


def remove(scene: Scene) -> Exercise | None:
    items = scene.draw(MIN_LIST, MAX_LIST - 2)
    if items is None:
        return None
    gone = scene.stream.pick(items)
    for _ in range(scene.stream.below(3)):  # it may stand there several times
        items.insert(scene.stream.below(len(items) + 1), gone)
    order: list[int | str] = [n for n, item in enumerate(items, 1) if item != gone]
    return _edited(scene, items, {"item": scene.patterns[gone]}, order)


def reverse(scene: Scene) -> Exercise | None:
    items = scene.draw(MIN_LIST, MAX_LIST)
    return None if items is None else _edited(scene, items, {}, _places(items)[::-1])


def deduplicate(scene: Scene) -> Exercise | None:
    items = scene.draw(2, 5)
    if items is None:
        return None
    for _ in range(scene.stream.between(1, 3)):
        items.insert(scene.stream.below(len(items) + 1), scene.stream.pick(items))
    first: dict[int, int] = {}
    for n, item in enumerate(items, 1):
        first.setdefault(item, n)
    return _edited(scene, items, {}, list(first.values()))


def swap(scene: Scene) -> Exercise | None:
    items = scene.draw(MIN_LIST, MAX_LIST)
    if items is None:
        return None
    m, n = sorted(scene.stream.sample(len(items), 2))
    order = _places(items)
    order[m], order[n] = order[n], order[m]
    return _edited(scene, items, {"m": m + 1, "n": n + 1}, order)
