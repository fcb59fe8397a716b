"""How a value that a person gave is refused: one sentence with its name, the value and the rule."""

from __future__ import annotations

from operator import index


class UserError(Exception):
    """A mistake a person can mend: one sentence with the name, the value and the remedy. Exit code 2."""


def require(ok: bool, name: str, value: object, rule: str) -> None:
    """Raise UserError "`name` (=value) rule." unless ok."""
    if not ok:
        raise UserError(f"`{name}` (={value}) {rule}.")


def whole(spec: object, *names: str) -> None:
    """Make these fields int: equal numbers give equal names of runs, and JSON knows no other kind of whole number. Raises UserError."""
    for name in names:
        value = getattr(spec, name)
        try:
            object.__setattr__(spec, name, int(index(value)))
        except TypeError:
            raise UserError(f"`{name}` (={value!r}) must be a whole number.") from None


def yes_or_no(spec: object, *names: str) -> None:
    """Make these fields bool, as `whole` does. Raises UserError."""
    for name in names:
        value = getattr(spec, name)
        require(value in (False, True), name, repr(value), "must be True or False")
        object.__setattr__(spec, name, bool(value))
