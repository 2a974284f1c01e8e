"""A good trace about three items, and what judges need to know of it."""

from __future__ import annotations

from types import SimpleNamespace

from onereason.cognition.checks.patterns import PatternReader
from onereason.cognition.judge.claims import FactTable
from onereason.cognition.judge.traces import TraceContext, TraceJudge
from onereason.itemic.format import PRESETS

HEADINGS = ("Persona:", "Interests:", "Transition:")
V1, V2, V3 = (f"<|video_begin|><s_a_{n}><s_b_2><s_c_3>" for n in (1, 2, 3))
FACTS = FactTable(
    SimpleNamespace(
        patterns=[V1, V2, V2],
        titles=["Pour Over", "Sourdough", "Rye"],
        attributes=[
            {"category": ("coffee brewing",), "style": ("technical",)},
            {"category": ("home baking",), "style": ("minimal",)},
            {"category": ("home baking",), "style": ("bold",)},
        ],
    )
)
READER = PatternReader(PRESETS["onereason"])
JUDGE = TraceJudge(READER, FACTS)
TRACE = f"""Persona: the choices lean to technical videos about drinks, mostly short clips in the evening.
Interests:
1. coffee brewing: it leads the recent steps, as in {V1} (coffee brewing, technical)
2. home baking: seen earlier with {V2} (home baking)
Transition: coffee brewing has had its run, and from there viewers often go on to home baking, which goes with it."""
CONTEXT = TraceContext(HEADINGS, domain="video", prompt="Which video comes next? History: " + V1 + V2)
