"""onereason: turn a Qwen3 language model into a recommender that thinks before it recommends.

Importing the package imports no torch; the rooms that need it import it themselves.
"""

__version__ = "0.1.0"
