"""The words of the simulated world: domains, topics with their facets, personas, styles, brands.

A topic's line gives its name, its neighbourhood, four words of its own, and two phrases for each facet. Facets are the
same three sides of every topic (how to begin, what to own, where and with whom).
"""

from __future__ import annotations

from dataclasses import dataclass

DOMAINS = ("video", "prod", "ad", "living")
FACETS = ("basics", "gear", "scene")
STYLES = ("budget", "premium", "technical", "playful", "minimal", "bold")
RELATIONS = ("neighbour", "complement", "successor")
"""How one topic leads to another: a close substitute, something that goes with it, what comes after it."""

KINDS = ("stay", "trigger", "widen", "narrow", "saturate", "echo", "noise")
"""What an event does to the interest. `widen`, `echo`, `saturate` are moves, by the last relation that is taken."""
MOVE_KINDS = ("widen", "echo", "saturate")
"""The kind of a move by its last relation, in the order of `RELATIONS`."""

ACTIONS = {
    "video": ("play", "like"),
    "prod": ("click", "buy"),
    "ad": ("click", "convert"),
    "living": ("watch", "follow"),
}
"""The weak and the strong action of each domain."""


@dataclass(frozen=True)
class Topic:
    name: str
    group: str
    words: tuple[str, ...]
    facets: tuple[tuple[str, ...], ...]


def _topic(group: str, line: str) -> Topic:
    name, words, *facets = (part.strip() for part in line.split("|"))
    return Topic(name, group, tuple(words.split()), tuple(tuple(p.strip() for p in f.split(",")) for f in facets))


TOPICS: tuple[Topic, ...] = tuple(
    _topic(group, line)
    for group, lines in {
        "outdoors": (
            "trail running | ridge stride singletrack elevation | uphill pacing, downhill footwork | grippy "
            "shoes, hydration vest | mountain race, running club",
            "camping | campsite campfire wilderness overnight | pitching a shelter, reading the weather | tent "
            "poles, camp stove | lakeside site, scout weekend",
            "cycling | pedal saddle peloton gravel | gear shifting, puncture repair | carbon wheels, bike "
            "helmet | alpine pass, group ride",
            "fishing | river trout angler bait | casting a line, tying a hook | fly rod, tackle box | harbour "
            "pier, angling contest",
        ),
        "kitchen": (
            "home baking | dough oven sourdough crust | kneading by hand, proofing times | stand mixer, loaf "
            "tin | village bakery, bake sale",
            "coffee brewing | espresso beans roast crema | dialling the grind, pouring in circles | burr "
            "grinder, gooseneck kettle | corner cafe, tasting bar",
            "street food | noodles skewers wok dumplings | folding wrappers, quick marinades | charcoal grill, "
            "steamer basket | night market, food truck",
            "fermentation | kimchi kombucha brine cultures | salting vegetables, feeding a starter | fermenting"
            " crock, airlock jar | pickle fair, brewing circle",
        ),
        "house": (
            "houseplants | leaves monstera soil foliage | watering rhythm, rooting cuttings | grow lamp, "
            "ceramic planter | plant swap, greenhouse visit",
            "woodworking | timber oak joinery grain | cutting a dovetail, sanding smooth | hand plane, "
            "workbench vise | maker shed, carpenter guild",
            "home renovation | plaster walls tiles paint | priming a surface, laying a floor | paint roller, "
            "tile cutter | old farmhouse, renovation crew",
            "smart home | sensors lighting automation hub | pairing devices, writing routines | motion "
            "detector, voice speaker | show apartment, automation forum",
        ),
        "play": (
            "board games | dice meeples strategy tabletop | learning the rules, opening tactics | card sleeves,"
            " wooden insert | game cafe, convention hall",
            "retro gaming | console pixel cartridge arcade | beating the boss, cleaning contacts | crt monitor,"
            " arcade stick | arcade museum, speedrun meetup",
            "model trains | locomotive track scale diorama | wiring a loop, weathering wagons | signal decoder,"
            " rail cutter | club layout, steam festival",
            "cosplay | costume armour wig character | sewing a seam, shaping foam | heat gun, prop sword | fan "
            "expo, photo parade",
        ),
        "body": (
            "yoga | asana stretch balance flow | sun salutation, breathing count | cork mat, yoga block | "
            "seaside retreat, morning circle",
            "strength training | barbell squat muscle reps | bracing the core, adding weight | lifting belt, "
            "kettlebell set | iron gym, lifting meet",
            "skincare | serum cleanser skin moisture | layering products, patch testing | jade roller, "
            "sunscreen tube | beauty counter, spa evening",
            "meditation | mindfulness silence calm awareness | counting breaths, body scan | floor cushion, "
            "singing bowl | forest temple, silent weekend",
        ),
        "craft": (
            "film photography | darkroom negative shutter exposure | metering light, developing a roll | "
            "rangefinder camera, enlarger lens | street walk, print exhibition",
            "jazz guitar | chords swing solo fretboard | comping patterns, walking bass | archtop guitar, tube "
            "amp | basement club, jam session",
            "pottery | clay kiln glaze wheel | centring a lump, trimming a foot | throwing tools, kiln shelf | "
            "craft market, shared studio",
            "urban sketching | pencil watercolour sketchbook perspective | loose lines, quick washes | brush "
            "pen, travel palette | old town square, drawing group",
        ),
        "animals": (
            "dog training | puppy leash obedience recall | sitting on cue, loose walking | clicker whistle, "
            "treat pouch | agility field, puppy class",
            "aquarium keeping | fish tank aquascape shrimp | cycling water, planting moss | canister filter, "
            "led bar | aquascape show, breeder visit",
            "birdwatching | binoculars warbler plumage migration | telling songs apart, keeping a list | "
            "spotting scope, field guide | wetland hide, dawn count",
            "beekeeping | hive honey queen nectar | inspecting frames, calming with smoke | bee suit, honey "
            "extractor | rooftop apiary, keepers association",
        ),
    }.items()
    for line in lines
)


@dataclass(frozen=True)
class Persona:
    """A kind of person.

    Attributes:
        name: what it is called.
        style: the style of item this persona likes best.
        plan: the relation (index into `RELATIONS`) along which an interest moves, by the facet last seen.
        narrow: chance that a further event on the same interest keeps to the facet last seen.
        moves: fewest and most moves before another interest is triggered.
        evolve: chance that an interest, left after its moves, is replaced by where they led.
        domains: habit over `DOMAINS`.
        facets: habit over `FACETS`.
    """

    name: str
    style: str
    plan: tuple[int, int, int]
    narrow: float
    moves: tuple[int, int]
    evolve: float
    domains: tuple[float, float, float, float]
    facets: tuple[float, float, float]


PERSONAS: tuple[Persona, ...] = (
    Persona("bargain hunter", "budget", (0, 1, 2), 0.2, (4, 6), 0.4, (0.2, 0.4, 0.3, 0.1), (0.3, 0.4, 0.3)),
    Persona("connoisseur", "premium", (1, 2, 0), 0.5, (3, 5), 0.3, (0.3, 0.4, 0.1, 0.2), (0.25, 0.4, 0.35)),
    Persona("tinkerer", "technical", (2, 0, 1), 0.4, (4, 6), 0.5, (0.4, 0.3, 0.2, 0.1), (0.4, 0.4, 0.2)),
    Persona("entertainer", "playful", (0, 2, 1), 0.1, (5, 6), 0.6, (0.4, 0.1, 0.2, 0.3), (0.3, 0.25, 0.45)),
    Persona("minimalist", "minimal", (1, 0, 2), 0.3, (3, 5), 0.2, (0.3, 0.3, 0.1, 0.3), (0.4, 0.2, 0.4)),
    Persona("trailblazer", "bold", (2, 1, 0), 0.1, (5, 6), 0.7, (0.2, 0.2, 0.3, 0.3), (0.3, 0.3, 0.4)),
)

STYLE_WORDS: dict[str, tuple[str, ...]] = {
    "budget": ("affordable", "thrifty", "cheap", "low-cost"),
    "premium": ("luxurious", "refined", "exclusive", "handcrafted"),
    "technical": ("precise", "detailed", "measured", "engineered"),
    "playful": ("funny", "cheerful", "silly", "colourful"),
    "minimal": ("simple", "quiet", "plain", "uncluttered"),
    "bold": ("daring", "extreme", "adventurous", "wild"),
}
PRICE_BUCKETS = ("low", "mid", "high")
PRICE_BY_STYLE = {"budget": 0, "playful": 0, "minimal": 1, "bold": 1, "technical": 1, "premium": 2}

BRANDS: dict[str, tuple[str, ...]] = {
    "outdoors": ("Fellhawk", "Norrvik", "Tarnway"),
    "kitchen": ("Crumbline", "Saltmoor", "Brassica"),
    "house": ("Oakhand", "Plumbline", "Hearthly"),
    "play": ("Pixelbarn", "Rookery", "Dicewell"),
    "body": ("Stillpond", "Ironleaf", "Lumenza"),
    "craft": ("Kilnfield", "Bluenote", "Halide"),
    "animals": ("Pawmere", "Reedwing", "Combwright"),
}
