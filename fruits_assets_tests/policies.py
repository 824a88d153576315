"""What policies of IAM decide about a request, as far as the policies of the stack go.

Emulators of AWS ignore conditions. The rules are those of the IAM User Guide ("IAM JSON policy
elements: Condition operators", "Multivalued context keys", "Policy evaluation logic"); an operator
that is not here fails.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Context = Mapping[str, str | Sequence[str]]
"""Keys of a request -> their value; a key that has several has a list of them."""


def _like(found: str, pattern: str) -> bool:
    """IAM's wildcards: `*` is any text, slashes included, and `?` any one character."""
    parts = (".*" if it == "*" else "." if it == "?" else re.escape(it) for it in pattern)
    return re.fullmatch("".join(parts), found, re.DOTALL) is not None


OPERATORS: Mapping[str, Callable[[str, str], bool]] = {
    "ArnEquals": _like,
    "ArnLike": _like,
    "Bool": lambda found, wanted: found.lower() == wanted.lower(),
    "NumericLessThan": lambda found, wanted: float(found) < float(wanted),
    "StringEquals": lambda found, wanted: found == wanted,
    "StringLike": _like,
}
"""Name -> whether a value of the request fits a value of the policy."""


def holds(operator: str, found: str | Sequence[str] | None, wanted: Sequence[str]) -> bool:
    """Whether one condition holds.

    Args:
        operator: as a policy names it.
        found: what the request says; None where it says nothing.
        wanted: what the policy says: one of these.
    """
    if operator == "Null":
        return (found is None) == (wanted[0] == "true")
    quantifier, _, plain = operator.rpartition(":")
    if plain.endswith("IfExists"):
        if found is None:
            return True
        plain = plain.removesuffix("IfExists")
    negated = "Not" in plain
    fits = OPERATORS[plain.replace("Not", "")]
    values = [] if found is None else [found] if isinstance(found, str) else list(found)
    answers = [any(fits(value, it) for it in wanted) != negated for value in values]
    if quantifier == "ForAllValues":
        return all(answers)  # of no values, too
    if quantifier == "ForAnyValue":
        return any(answers)
    assert not quantifier, operator
    return all(answers) if answers else negated


def _applies(statement: Mapping[str, Any], action: str, resource: str, context: Context) -> bool:
    named = any(
        _like(action.lower(), it.lower())
        for it in _list(statement.get("Action", statement.get("NotAction")))
    )
    return (
        named == ("Action" in statement)
        and any(_like(resource, it) for it in _list(statement["Resource"]))
        and all(
            holds(operator, context.get(key), _list(wanted))
            for operator, keys in statement.get("Condition", {}).items()
            for key, wanted in keys.items()
        )
    )


def effects(
    statements: Iterable[Mapping[str, Any]], action: str, resource: str, context: Context
) -> set[str]:
    """Allow, Deny, both or none: what the statements that apply to a request say."""
    return {it["Effect"] for it in statements if _applies(it, action, resource, context)}


def allowed(
    statements: Iterable[Mapping[str, Any]], action: str, resource: str, context: Context
) -> bool:
    """Whether a request goes through: something allows it, and nothing denies it."""
    return effects(statements, action, resource, context) == {"Allow"}


def _list(value: Any) -> list[str]:
    return list(value) if isinstance(value, list) else [value]
