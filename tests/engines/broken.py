"""A library of another version than is needed."""

from json import no_such_name  # type: ignore[attr-defined]  # noqa: F401
