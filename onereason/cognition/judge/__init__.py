"""Judges: whether a trace, a pair of items or a logic chain is good enough to teach.

| module | judges |
|---|---|
| `traces` | traces: safety, consistency, logic, factuality, informativeness, by rules |
| `safety` | what must not be inferred about a person |
| `claims` | whether what is said of cited items is so |
| `endpoint` | traces, by a language model behind a teacher |
| `relations` | pairs of items: explicitly related, uncertain, unrelated |
| `chains` | logic chains |
"""
