"""Group `control`: easy questions whose answer must have exactly the form that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from onereason.cognition.instructions.base import Exercise, Scene, join_json, numbered

MIN_LIST, MAX_LIST = 4, 9


def _some(scene: Scene, form: str, write: Callable[[Sequence[str]], str], last: bool, backwards: bool = False):
    """The first or last k items of a list, in a form."""
    items = scene.draw(MIN_LIST, MAX_LIST)
    if items is None:
        return None
    k = scene.stream.between(2, len(items) - 1)
    places = list(range(len(items) - k + 1, len(items) + 1) if last else range(1, k + 1))
    if backwards:
        places.reverse()
    chosen = [items[place - 1] for place in places]
    steps = []
    if scene.think:
        steps = [scene.say("count", number=len(items)), scene.say("asked", places=scene.places(places))]
        steps.append(scene.say(form))
    return Exercise({"k": k}, write(scene.of(chosen)), scene.listing(scene.of(items)), steps=steps, answer_items=chosen)


def json_list(scene: Scene) -> Exercise | None:
    return _some(scene, "quote", join_json, last=False)


def comma(scene: Scene) -> Exercise | None:
    return _some(scene, "with_commas", ", ".join, last=True)


def numbered_lines(scene: Scene) -> Exercise | None:
    return _some(scene, "with_numbers", numbered, last=False)


def exactly_k(scene: Scene) -> Exercise | None:
    return _some(scene, "one_a_line", "\n".join, last=True, backwards=True)


def upper_keys(scene: Scene) -> Exercise:
    item = scene.one()
    steps = [scene.reading(item), scene.say("capitals")] if scene.think else []
    return Exercise(
        {"item": scene.patterns[item]},
        scene.as_object(item, "DOMAIN", "CODES"),
        steps=steps,
        text=scene.kind_text("control.upper_keys"),
    )


def _captioned(scene: Scene) -> list[int] | None:
    items = scene.draw(3, 6)
    return items if items is not None and all(scene.stock.names[item] for item in items) else None


def with_captions(scene: Scene) -> Exercise | None:
    items = _captioned(scene)
    if items is None:
        return None
    k = scene.stream.between(2, len(items))
    names = [scene.stock.names[item] for item in items]
    answer = [f"{scene.patterns[item]} ({name})" for item, name in zip(items[:k], names, strict=False)]
    steps = []
    if scene.think:
        steps = [scene.say("count", number=len(items)), scene.say("asked", places=scene.places(range(1, k + 1)))]
        steps.append(scene.say("in_brackets"))
    return Exercise({"k": k}, "\n".join(answer), scene.beside(items, names), steps=steps, answer_items=items[:k])


def without_captions(scene: Scene) -> Exercise | None:
    items = _captioned(scene)
    if items is None:
        return None
    k = scene.stream.between(2, len(items))
    places = range(len(items) - k + 1, len(items) + 1)
    steps = []
    if scene.think:
        steps = [scene.say("count", number=len(items)), scene.say("asked", places=scene.places(places))]
        steps.append(scene.say("one_a_line"))
    return Exercise(
        {"k": k},
        scene.lines(items[-k:]),
        scene.beside(items, [scene.stock.names[item] for item in items]),
        steps=steps,
        answer_items=items[-k:],
    )


def codes_only(scene: Scene) -> Exercise | None:
    items = scene.draw(2, 5)
    if items is None:
        return None
    steps = [scene.reading(item) for item in items] if scene.think else []
    answer = "\n".join(["-".join(map(str, scene.codes(item))) for item in items])
    return Exercise({}, answer, scene.listing(scene.of(items)), steps=steps)
