"""Addresses on the web: which are allowed, how secrets enter them, and what of them may be shown or stored."""

import os
import re
from collections.abc import Callable
from pathlib import PurePosixPath
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from stages.errors import InputError

PLACEHOLDER = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
ADDRESS = re.compile(r"(\w+://)(?:[^\s'\"]*@)?([^\s'\"?#]*)(?:[?#][^\s'\"]*)?")
MAX_NAME = 100
PLAIN_NAME = re.compile(r"[^A-Za-z0-9._-]+")


def public(url: str) -> str:
    """Return an address without userinfo, query and fragment: what may be shown, logged and stored."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def origin(url: str) -> str:
    """Return scheme, host and port of an address: what may be shown where a server chose the path, or repeats it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def without_secrets(text: str) -> str:
    """Return a text whose addresses have lost userinfo, query and fragment, fit for a message about what is wrong."""
    return ADDRESS.sub(r"\1\2", text)


def check_https(url: str, what: str, show: Callable[[str], str] = public) -> None:
    """Let https pass alone: over anything else, another's bytes could be pinned at first sight.

    `show` returns what of the address may be told.

    Raises:
        InputError: another scheme, no host, a port that is none, a character that cannot be printed; the address is
            shown without its secrets.
    """
    reason = _refusal(url, show)
    if reason:
        raise InputError(f"{what} {reason}")


def _refusal(url: str, show: Callable[[str], str]) -> str:
    if not url.isprintable():
        return "holds a character that cannot be printed"
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # whose text holds the part that is wrong, which may be a password
        return "is no address; expected https://host/path or https://host:port/path"
    if parts.scheme != "https":
        return f"is {show(url)}: {parts.scheme or 'no scheme'} is not allowed, only https"
    if not parts.hostname:
        return "names no host; expected https://host/path"
    return "" if _is_host(parts.hostname) else f"names {parts.hostname}, which is no host; expected https://host/path"


def _is_host(name: str) -> bool:
    try:
        name.encode("idna")
    except UnicodeError:  # an empty part, or one of more than 63 letters
        return False
    return True


def check_no_password(url: str, what: str) -> None:
    """Refuse a password written out; params.yaml is in Git and is published.

    Raises:
        InputError: there is userinfo other than a `${NAME}` of the environment.
    """
    userinfo = urlsplit(url).netloc.rpartition("@")[0]
    if PLACEHOLDER.sub("", userinfo).strip(":"):
        raise InputError(f"{what} is {public(url)} with a user or password; write ${{NAME}}@ and export NAME")


def filled(url: str, what: str) -> str:
    """Put the environment's values in the place of `${NAME}` in an address.

    Raises:
        InputError: the environment has no such name.
    """

    def value(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise InputError(f"{what} names ${{{found[1]}}}, which the environment does not have; export it")
        return quote(os.environ[found[1]], safe="")

    return PLACEHOLDER.sub(value, url)


def file_name(url: str) -> str:
    """Return the last part of an address's path as a plain file name of at most 100 characters."""
    name = PLAIN_NAME.sub("-", unquote(PurePosixPath(urlsplit(url).path).name)).lstrip(".-")
    return name[-MAX_NAME:] or "archive"
