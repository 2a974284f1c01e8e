"""Group `compare`: counts over a list, and two lists against each other."""

from __future__ import annotations

from collections.abc import Callable

from onereason.cognition.instructions.base import Exercise, Scene

MIN_LIST, MAX_LIST = 4, 10


def count_by_domain(scene: Scene) -> Exercise | None:
    items = scene.draw(MIN_LIST, MAX_LIST)
    if items is None:
        return None
    domains = [scene.stock.domains[item] for item in items]
    names = scene.stock.domain_json
    counts = [f"{names[domain]}: {domains.count(domain)}" for domain in dict.fromkeys(domains)]
    steps = scene.notes(items, domains) if scene.think else []
    return Exercise({}, "{" + ", ".join(counts) + "}", scene.listing(scene.of(items)), steps=steps)


def _repeated(scene: Scene) -> list[int] | None:
    """A list in which one item stands more often than any other."""
    items = scene.draw(3, 5)
    if items is None:
        return None
    most = scene.stream.between(2, 3)
    found = [items[0]] * most
    for item in items[1:]:
        found += [item] * scene.stream.between(1, most - 1)
    scene.stream.shuffle(found)
    return found


def most_frequent_item(scene: Scene) -> Exercise | None:
    items = _repeated(scene)
    if items is None:
        return None
    best = max(items, key=items.count)
    steps = []
    if scene.think:
        steps = [scene.say("times", item=scene.patterns[i], count=items.count(i)) for i in dict.fromkeys(items)]
    return Exercise({}, scene.patterns[best], scene.listing(scene.of(items)), steps=steps, answer_items=[best])


def count_item(scene: Scene) -> Exercise | None:
    items = _repeated(scene)
    if items is None:
        return None
    given = scene.stream.pick(items)
    steps = []
    if scene.think:
        places = [n for n, item in enumerate(items, 1) if item == given]
        steps = [scene.say("fit", places=scene.places(places))]
    return Exercise(
        {"item": scene.patterns[given]}, str(items.count(given)), scene.listing(scene.of(items)), steps=steps
    )


def count_distinct(scene: Scene) -> Exercise | None:
    items = _repeated(scene)
    if items is None:
        return None
    steps = []
    if scene.think:
        seen = [scene.word("again" if item in items[:at] else "new") for at, item in enumerate(items)]
        steps = scene.notes(items, seen)
    return Exercise({}, str(len(set(items))), scene.listing(scene.of(items)), steps=steps)


def most_frequent_code(scene: Scene) -> Exercise | None:
    items = scene.draw(3, 7)
    if items is None:
        return None
    for _ in range(2):
        near = scene.alike(items[0])
        if near not in items:
            items.insert(scene.stream.below(len(items) + 1), near)
    first = scene.stock.first_codes
    codes = [first[item] for item in items]
    best = max(codes, key=codes.count)  # of several, the one that stands first
    if codes.count(best) < 2:
        return None
    name = scene.stock.format.code_name
    steps = []
    if scene.think:
        steps = [scene.say("times", item=name(0, code), count=codes.count(code)) for code in dict.fromkeys(codes)]
    return Exercise({}, name(0, best), scene.listing(scene.of(items)), steps=steps)


# -- two lists --------------------------------------------------------------------------------------------------------


def longer_list(scene: Scene) -> Exercise | None:
    first = scene.draw(2, 8)
    if first is None:
        return None
    second = scene.others(len(first) if scene.stream.below(4) == 0 else scene.stream.between(2, 8), first)
    if not second:
        return None
    winner = "equal" if len(first) == len(second) else "first_list" if len(first) > len(second) else "second_list"
    steps = [scene.say("lengths", first=len(first), second=len(second))] if scene.think else []
    return Exercise(
        {}, scene.word(winner), scene.listing(scene.of(first)), scene.listing(scene.of(second)), steps=steps
    )


def _two_lists(
    scene: Scene, result: Callable[[list[int], list[int]], list[int]], notes_of_second: bool
) -> Exercise | None:
    """Two lists that share some items, and what a set operation makes of them, in the order of the first list."""
    first = scene.draw(3, 7)
    if first is None:
        return None
    shared = [first[at] for at in scene.stream.sample(len(first), scene.stream.below(len(first)))]
    second = shared + scene.others(scene.stream.between(1, 4), first)
    scene.stream.shuffle(second)
    if not second:
        return None
    chosen = result(first, second)
    steps = []
    if scene.think:
        listed, other = (second, first) if notes_of_second else (first, second)
        steps = scene.notes(listed, [scene.word("in_both" if item in other else "in_one") for item in listed])
    return Exercise(
        {},
        scene.lines(chosen),
        scene.listing(scene.of(first)),
        scene.listing(scene.of(second)),
        steps=steps,
        answer_items=chosen,
    )


def intersection(scene: Scene) -> Exercise | None:
    return _two_lists(scene, lambda a, b: [item for item in a if item in b], notes_of_second=False)


def union(scene: Scene) -> Exercise | None:
    return _two_lists(scene, lambda a, b: a + [item for item in b if item not in a], notes_of_second=True)


def difference(scene: Scene) -> Exercise | None:
    return _two_lists(scene, lambda a, b: [item for item in a if item not in b], notes_of_second=False)
