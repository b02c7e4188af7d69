"""What every group of settings is made of: strictness, common kinds of values, and one line for each wrong one."""

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stages.addresses import without_secrets
from stages.errors import InputError

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Level = Annotated[int, Field(ge=0, le=255)]
Model = TypeVar("Model", bound=BaseModel)


class Strict(BaseModel):
    """A group of settings in which an unknown name is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def validated(kind: type[Model], raw: dict[str, Any], prefix: str) -> Model:
    """Check raw values against a kind of settings; `prefix` is where they stand in params.yaml.

    Raises:
        InputError: every unknown, missing or impossible value, by name.
    """
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        lines = (_explain(kind, prefix, entry) for entry in error.errors())
        raise InputError(without_secrets("; ".join(lines))) from None  # pydantic's own text shows values as they are


def _explain(kind: type[BaseModel], prefix: str, entry: Any) -> str:
    """Turn one pydantic error into `name: what was found, what is allowed`."""
    where = ".".join(part for part in (prefix, *map(str, entry["loc"])) if part)
    if entry["type"] == "extra_forbidden":
        return f"{where}: unknown setting; allowed: {', '.join(_siblings(kind, entry['loc']))}"
    if entry["type"] == "missing":
        return f"{where}: missing"
    message = entry["msg"].removeprefix("Value error, ")
    if not where:
        return message
    return f"{where}: {message}" if isinstance(entry["input"], dict) else f"{where} is {entry['input']!r}: {message}"


def _siblings(kind: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Return the names that are allowed where an unknown one was found."""
    for part in location[:-1]:
        field = kind.model_fields.get(str(part))
        if field is None:  # an entry of a mapping such as select: its annotation holds the entry's type
            continue
        arguments = [a for a in getattr(field.annotation, "__args__", ()) if isinstance(a, type)]
        candidates = [a for a in [field.annotation, *arguments] if isinstance(a, type) and issubclass(a, BaseModel)]
        if candidates:
            kind = candidates[0]
    return list(kind.model_fields)
