"""The errors a user can cause. Each says what was read, where, what was expected and the way out.

The command line prints the message as one line and exits with code 2; everything else is our own mistake and shows a
traceback.
"""

from __future__ import annotations


class OnereasonError(Exception):
    """Root of the family: catch it to tell a user's mistake from a fault of the toolkit."""


class ConfigError(OnereasonError, ValueError):
    """A configuration file, an override or a command-line value is wrong."""


class DataError(OnereasonError, ValueError):
    """An input table or file is missing, malformed or breaks the schema."""


class FormatError(OnereasonError, ValueError):
    """An itemic format is declared wrongly, or codes / text / a tokenizer do not fit it."""


class CatalogError(OnereasonError, ValueError):
    """A catalog is missing, malformed, or lacks items that are asked of it."""


class ModelError(OnereasonError, ValueError):
    """A model folder is incomplete or does not match the format, catalog or tokenizer it is used with."""


class RewardError(OnereasonError, ValueError):
    """A reward cannot be computed from the rollouts it is given, or gives something that is no reward."""


class CollapseError(OnereasonError, RuntimeError):
    """A run of reinforcement was stopped because one of the figures it is watched by collapsed."""


class StageError(OnereasonError, RuntimeError):
    """A stage of a pipeline failed."""


class StorageError(OnereasonError, RuntimeError):
    """An output cannot be written: no space, no permission, or it exists already."""


def first_line(error: BaseException) -> str:
    """What an error of a library says, in one line; its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
