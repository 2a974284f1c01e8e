"""Itemic instructions: exercises that teach to handle itemic patterns as data, in six groups.

| group | what it asks for |
|---|---|
| `convert` | another form, an edited list |
| `retrieve` | items picked out of a list |
| `match` | what two items share, which domain, which caption |
| `compare` | counts, and two lists against each other |
| `verify` | whether something holds; lists that follow a rule |
| `control` | an answer in exactly the form that is asked for |

Every answer follows from the question alone (`match.captions` from the catalog as well). Wording stands in the prompt
set `instruction`.
"""

from onereason.cognition.instructions.base import Exercise, Scene, Stock
from onereason.cognition.instructions.groups import GROUPS, Kind, available_kinds, build_exercise, kind_of_unit

__all__ = ["GROUPS", "Exercise", "Kind", "Scene", "Stock", "available_kinds", "build_exercise", "kind_of_unit"]
