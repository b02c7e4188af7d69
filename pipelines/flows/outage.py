"""What a Prefect server that stops answering costs: its own pages, never a stage's work."""

import os
from collections.abc import Callable, Iterator
from typing import TypeVar

import httpx

from stages.errors import StageError

REASON_LENGTH = 200
SERVER_FAULT = 500
# Prefect's words for a server that it cannot reach or start, which have no type of their own
WORDS = ("Failed to reach API", "Timed out while attempting to connect", "server failed to start", "ephemeral server")
# Prefect waits a minute for each answer and asks six times; a run that has ended need not wait so long to be told of
PATIENCE = {"PREFECT_API_REQUEST_TIMEOUT": "20", "PREFECT_CLIENT_MAX_RETRIES": "2"}

T = TypeVar("T")


def set_patience() -> None:
    """Bound how long Prefect waits for its server, before prefect is imported; what the user has set stays."""
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)


def is_outage(error: BaseException) -> bool:
    """Return whether an error, or one that led to it, says that Prefect's server does not answer."""
    return any(_is_unanswered(cause) for cause in causes(error))


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that led to it, the latest first."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__


def _is_unanswered(error: BaseException) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code >= SERVER_FAULT
    words = isinstance(error, RuntimeError) and any(word in str(error) for word in WORDS)
    return isinstance(error, httpx.TransportError) or words


def describe_outage(error: BaseException) -> str:
    """Return in one line why Prefect's server could not be told."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return f"Prefect's server does not answer ({reason[:REASON_LENGTH]})"


def or_without(ask: Callable[[], T], instead: Callable[[], T], tell: Callable[[str], None]) -> T:
    """Do something through Prefect, or without it where its server does not answer, which is told."""
    try:
        return ask()
    except StageError:
        raise
    except Exception as error:
        if not is_outage(error):
            raise
        tell(f"{describe_outage(error)}; going on without it")
        return instead()
