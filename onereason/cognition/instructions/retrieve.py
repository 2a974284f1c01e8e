"""Group `retrieve`: items picked out of a list."""

from __future__ import annotations

from onereason.cognition.instructions.base import Exercise, Scene, day_name

MIN_LIST, MAX_LIST = 4, 10


def _fitting(
    scene: Scene, items: list[int], fields: dict[str, str | int], notes: list[str], fits: list[bool], listed: str
) -> Exercise:
    """The items that fit, in the order of the list; the trace notes what decides for each of them."""
    chosen = [item for item, fit in zip(items, fits, strict=True) if fit]
    steps = []
    if scene.think:
        places = [n for n, fit in enumerate(fits, 1) if fit]
        steps = [*scene.notes(items, notes), scene.say("fit", places=scene.places(places))]
    return Exercise(fields, scene.lines(chosen), listed, steps=steps, answer_items=chosen)


def _counted(scene: Scene, items: list[int], fields: dict[str, str | int], places: range) -> Exercise:
    """The items at places (from 1) of a list."""
    chosen = [items[place - 1] for place in places]
    steps = []
    if scene.think:
        steps = [scene.say("count", number=len(items)), scene.say("asked", places=scene.places(places))]
    return Exercise(fields, scene.lines(chosen), scene.listing(scene.of(items)), steps=steps, answer_items=chosen)


def nth(scene: Scene) -> Exercise | None:
    items = scene.draw(MIN_LIST, MAX_LIST)
    if items is None:
        return None
    n = scene.stream.between(1, len(items))
    return _counted(scene, items, {"n": n}, range(n, n + 1))


def nth_last(scene: Scene) -> Exercise | None:
    items = scene.draw(MIN_LIST, MAX_LIST)
    if items is None:
        return None
    n = scene.stream.between(1, len(items))
    place = len(items) + 1 - n
    return _counted(scene, items, {"n": n}, range(place, place + 1))


def first_k(scene: Scene) -> Exercise | None:
    items = scene.draw(MIN_LIST, MAX_LIST)
    if items is None:
        return None
    k = scene.stream.between(2, len(items) - 1)
    return _counted(scene, items, {"k": k}, range(1, k + 1))


def last_k(scene: Scene) -> Exercise | None:
    items = scene.draw(MIN_LIST, MAX_LIST)
    if items is None:
        return None
    k = scene.stream.between(2, len(items) - 1)
    return _counted(scene, items, {"k": k}, range(len(items) - k + 1, len(items) + 1))


def of_domain(scene: Scene) -> Exercise | None:
    items = scene.draw(MIN_LIST, MAX_LIST)
    if items is None:
        return None
    domains = [scene.stock.domains[item] for item in items]
    # a domain that the list lacks has an answer too: none
    asked = scene.stream.pick(list(scene.stock.of_domain) if scene.stream.below(5) == 0 else domains)
    fits = [domain == asked for domain in domains]
    return _fitting(scene, items, {"domain": asked}, domains, fits, scene.listing(scene.of(items)))


def _dated(scene: Scene) -> tuple[list[int], list[str]] | None:
    """A piece of a history, and the dates of its items."""
    span = scene.span(MIN_LIST, MAX_LIST)
    if span is None or scene.stock.days is None:
        return None
    days = scene.stock.days[span[0] : span[1]].tolist()
    return scene.stock.items[span[0] : span[1]].tolist(), [day_name(day) for day in days]


def _limit(scene: Scene, dates: list[str], dividing: list[str]) -> str:
    """A date to compare with: mostly one that divides the list, now and then one that leaves nothing."""
    return scene.stream.pick(dates if not dividing or scene.stream.below(5) == 0 else dividing)


def before_date(scene: Scene) -> Exercise | None:
    found = _dated(scene)
    if found is None:
        return None
    items, dates = found
    limit = _limit(scene, dates, [date for date in dates if date > dates[0]])
    fits = [date < limit for date in dates]
    notes = [f"{date} < {limit}: {scene.yes_no(fit)}" for date, fit in zip(dates, fits, strict=True)]
    return _fitting(scene, items, {"date": limit}, notes, fits, scene.beside(items, dates))


def after_date(scene: Scene) -> Exercise | None:
    found = _dated(scene)
    if found is None:
        return None
    items, dates = found
    limit = _limit(scene, dates, [date for date in dates if date < dates[-1]])
    fits = [date > limit for date in dates]
    notes = [f"{date} > {limit}: {scene.yes_no(fit)}" for date, fit in zip(dates, fits, strict=True)]
    return _fitting(scene, items, {"date": limit}, notes, fits, scene.beside(items, dates))


def of_theme(scene: Scene) -> Exercise | None:
    items = scene.draw(MIN_LIST, MAX_LIST)
    if items is None:
        return None
    themes = [scene.stock.themes[item] for item in items]
    if not all(themes):
        return None
    asked = scene.stream.pick(themes)
    fits = [theme == asked for theme in themes]
    return _fitting(scene, items, {"theme": asked}, themes, fits, scene.beside(items, themes))


def next_after(scene: Scene) -> Exercise | None:
    items = scene.draw(MIN_LIST, MAX_LIST)
    if items is None:
        return None
    place = scene.stream.between(1, len(items) - 1)
    given = scene.patterns[items[place - 1]]
    steps = [scene.say("stands", item=given, place=place), scene.say("asked", places=place + 1)] if scene.think else []
    return Exercise(
        {"item": given},
        scene.patterns[items[place]],
        scene.listing(scene.of(items)),
        steps=steps,
        answer_items=[items[place]],
    )


def position_of(scene: Scene) -> Exercise | None:
    items = scene.draw(MIN_LIST, MAX_LIST)
    if items is None:
        return None
    place = scene.stream.between(1, len(items))
    steps = []
    if scene.think:
        same = [scene.word("same" if n == place else "different") for n in range(1, place + 1)]
        steps = scene.notes(items[:place], same)
    given = scene.patterns[items[place - 1]]
    return Exercise({"item": given}, str(place), scene.listing(scene.of(items)), steps=steps)
