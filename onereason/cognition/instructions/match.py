"""Group `match`: what items share, which domain, which caption."""

from __future__ import annotations

from onereason.cognition.instructions.base import Exercise, Scene, join_json, numbered

MIN_LIST, MAX_LIST = 3, 8


def _pair(scene: Scene, alike: bool) -> tuple[int, int]:
    """Two items with different patterns where there are such: with one first code, or any."""
    first = scene.one()
    for _ in range(4):
        second = scene.alike(first) if alike else scene.one()
        if scene.patterns[second] != scene.patterns[first]:
            break
    return first, second


def _fields(scene: Scene, first: int, second: int) -> dict[str, str | int]:
    return {"first": scene.patterns[first], "second": scene.patterns[second]}


def same_first_code(scene: Scene) -> Exercise:
    first, second = _pair(scene, alike=bool(scene.stream.below(2)))
    codes = scene.stock.first_codes
    steps = []
    if scene.think:
        tokens = [scene.stock.format.code_name(0, codes[item]) for item in (first, second)]
        steps = [scene.say("first_code", item=scene.patterns[first], token=tokens[0])]
        steps.append(scene.say("first_code", item=scene.patterns[second], token=tokens[1]))
    return Exercise(_fields(scene, first, second), scene.yes_no(codes[first] == codes[second]), steps=steps)


def same_item(scene: Scene) -> Exercise:
    first, second = _pair(scene, alike=True)
    if scene.stream.below(2):
        second = first
    steps = [scene.reading(first), scene.reading(second)] if scene.think else []
    return Exercise(
        _fields(scene, first, second), scene.yes_no(scene.patterns[first] == scene.patterns[second]), steps=steps
    )


def same_domain(scene: Scene) -> Exercise:
    first, domains = scene.one(), scene.stock.domains
    of_domain = scene.stock.of_domain
    chosen = domains[first] if scene.stream.below(2) else scene.stream.pick(list(of_domain))
    second = scene.stream.pick(of_domain[chosen])
    steps = scene.notes([first, second], [domains[first], domains[second]]) if scene.think else []
    return Exercise(_fields(scene, first, second), scene.yes_no(domains[first] == domains[second]), steps=steps)


def which_domain(scene: Scene) -> Exercise:
    item = scene.one()
    domain = scene.stock.domains[item]
    steps = [scene.say("begin", token=scene.stock.format.marker(domain).begin)] if scene.think else []
    return Exercise({"item": scene.patterns[item]}, domain, steps=steps)


def group_by_domain(scene: Scene) -> Exercise | None:
    items = scene.draw(MIN_LIST, MAX_LIST)
    if items is None:
        return None
    domains = [scene.stock.domains[item] for item in items]
    groups: dict[str, list[str]] = {}
    for item, domain in zip(items, domains, strict=True):
        groups.setdefault(domain, []).append(scene.patterns[item])
    named = [f"{scene.stock.domain_json[domain]}: {join_json(members)}" for domain, members in groups.items()]
    steps = scene.notes(items, domains) if scene.think else []
    return Exercise({}, "{" + ", ".join(named) + "}", scene.listing(scene.of(items)), steps=steps)


def shared_codes(scene: Scene) -> Exercise:
    first, second = _pair(scene, alike=scene.stream.below(3) > 0)
    a, b = scene.codes(first), scene.codes(second)
    shared = next((level for level, (x, y) in enumerate(zip(a, b, strict=True)) if x != y), len(a))
    steps = []
    if scene.think:
        for letter, x, y in list(zip(scene.stock.letters, a, b, strict=True))[: shared + 1]:
            steps.append(f"{letter}: {x}, {y}: {scene.word('same' if x == y else 'different')}")
    return Exercise(_fields(scene, first, second), str(shared), steps=steps)


def with_first_code(scene: Scene) -> Exercise | None:
    items = scene.draw(MIN_LIST, MAX_LIST - 2)
    if items is None:
        return None
    given = scene.one()
    for _ in range((scene.stream.below(5) + 1) // 2):
        near = scene.alike(given)
        if scene.patterns[near] not in scene.of(items):
            items.insert(scene.stream.below(len(items) + 1), near)
    codes = scene.stock.first_codes
    chosen = [item for item in items if codes[item] == codes[given]]
    steps = []
    if scene.think:
        tokens = [scene.stock.format.code_name(0, codes[item]) for item in items]
        places = [n for n, item in enumerate(items, 1) if codes[item] == codes[given]]
        steps = [*scene.notes(items, tokens), scene.say("fit", places=scene.places(places))]
    return Exercise(
        {"item": scene.patterns[given]},
        scene.lines(chosen),
        scene.listing(scene.of(items)),
        steps=steps,
        answer_items=chosen,
    )


def captions(scene: Scene) -> Exercise | None:
    drawn = scene.draw(2, 6)
    if drawn is None:
        return None
    names = scene.stock.names
    items = list({names[item]: item for item in drawn if names[item]}.values())[:4]
    if len(items) < 2:
        return None
    order = scene.stream.sample(len(items), len(items))  # caption k of the second list is that of items[order[k]]
    place = {index: n for n, index in enumerate(order, 1)}
    steps = scene.notes(items, [names[item] for item in items]) if scene.think else []
    return Exercise(
        {},
        ", ".join([str(place[index]) for index in range(len(items))]),
        numbered(scene.of(items)),
        numbered([names[items[index]] for index in order]),
        steps=steps,
    )
