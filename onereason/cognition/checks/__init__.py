"""Checks of traces: what a trace gives away, cites, holds, and whether it keeps to its form.

| module | question |
|---|---|
| `leakage` | does a trace give its answer away |
| `citations` | are the items it cites in the catalog, and in the history |
| `structure` | are the stages there, once, in order, within bounds |
| `json_checks` | is a logic chain or a selection well formed, and about the timeline |
| `prefix` | is everything it rests on older than the target |

All are pure functions of their arguments. A check returns what it found; an empty list means that it passed.
"""
