"""Options of queries that narrow tables."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement
from sqlalchemy.orm import with_loader_criteria


def criteria_of(kind: type[Any], condition: ColumnElement[bool]) -> Any:  # noqa: ANN401 - an option
    """Return the option of a query by which it finds the rows with a condition alone."""
    return with_loader_criteria(kind, condition, include_aliases=True)


def options_of(conditions: Mapping[type[Any], ColumnElement[bool]]) -> tuple[Any, ...]:
    """Return the options that narrow each table by its condition."""
    return tuple(criteria_of(kind, each) for kind, each in conditions.items())
