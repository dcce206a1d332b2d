"""What a key may hold: the bounded types, and each type in words for the error lines."""

from __future__ import annotations

from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from jsonargparse.typing import (
    ClosedUnitInterval,
    NonNegativeFloat,
    NonNegativeInt,
    OpenUnitInterval,
    PositiveFloat,
    PositiveInt,
    restricted_number_type,
    restricted_string_type,
)

from ..runtime.image_modes import CHANNELS, MODES

# The first argument is what --help prints as the type.
ZeroOrOne = restricted_number_type("0 <= int <= 1", int, [(">=", 0), ("<=", 1)])
ImageSize = restricted_number_type("int >= 32", int, (">=", 32))
ImageChannels = restricted_number_type(
    CHANNELS, int, [("==", channels) for channels in MODES], join="or"
)
TwoOrMore = restricted_number_type("int >= 2", int, (">=", 2))
FourOrMore = restricted_number_type("int >= 4", int, (">=", 4))
FloatFromOne = restricted_number_type("float >= 1", float, (">=", 1))
FractionBelowOne = restricted_number_type("0 <= float < 1", float, [(">=", 0), ("<", 1)])
FractionAboveZero = restricted_number_type("0 < float <= 1", float, [(">", 0), ("<=", 1)])
# timm's syntax, https://github.com/huggingface/pytorch-image-models timm/data/auto_augment.py
RandAugmentPolicy = restricted_string_type(
    "RandAugmentPolicy",
    r"^rand(aug)?(-m\d+(\.\d+)?|-mstd\d+(\.\d+)?|-inc[01]|-n[1-9]\d*)*$",
)
PathText = restricted_string_type("path", r"(?s).*")  # ~ and $NAME in it are expanded
GraphSize = restricted_string_type("edge or HxW", r"^[1-9]\d{0,4}(x[1-9]\d{0,4})?$")
OptimizerName = restricted_string_type("adamw or lamb", r"^(?i:adamw|lamb)$")

_WORDS = {
    NoneType: "null",
    bool: "true or false",
    int: "an integer",
    float: "a finite number",
    str: "text",
    Path: "a path",
    PathText: "text",
    ZeroOrOne: "0 or 1",
    PositiveInt: "an integer >= 1",
    NonNegativeInt: "an integer >= 0",
    TwoOrMore: "an integer >= 2",
    FourOrMore: "an integer >= 4",
    FloatFromOne: "a finite number >= 1",
    ImageSize: "an integer >= 32",
    ImageChannels: CHANNELS,
    PositiveFloat: "a finite number > 0",
    NonNegativeFloat: "a finite number >= 0",
    ClosedUnitInterval: "a number >= 0 and <= 1",
    OpenUnitInterval: "a number > 0 and < 1",
    FractionBelowOne: "a number >= 0 and < 1",
    FractionAboveZero: "a number > 0 and <= 1",
    RandAugmentPolicy: "a RandAugment policy such as 'rand-m9-mstd0.5-inc1'",
    GraphSize: "an edge such as 512, or height x width such as 512x683",
    OptimizerName: "'adamw' or 'lamb'",
}


def in_words(kind: Any) -> str:
    """The values that type ``kind`` allows, as a phrase to follow "expected"."""
    parts = get_args(kind)
    match get_origin(kind):
        case None:
            return _WORDS[kind]
        case origin if origin is Literal:
            return "one of " + ", ".join(map(repr, parts))
        case origin if origin in (Union, UnionType):
            return " or ".join(map(in_words, parts))
        case _:  # tuple[X, ...] of any length, tuple[X, X] of that length
            count = "" if Ellipsis in parts else f" of {len(parts)}"
            return f"a list{count} (each {in_words(parts[0])})"


def alternatives(kind: Any) -> tuple[Any, ...]:
    """The members of a union, or ``kind`` alone."""
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def plain_kinds(kind: Any) -> set[Any]:
    """The types that values of ``kind`` are made of, without unions, tuples and literals."""
    if get_origin(kind) is Literal:
        return set()
    parts = [part for part in get_args(kind) if part is not Ellipsis]
    return set().union(*map(plain_kinds, parts)) if parts else {kind}


def choices(kind: Any) -> list[str]:
    """The words that ``kind`` is a choice of, empty where it is none."""
    literals = [member for member in alternatives(kind) if get_origin(member) is Literal]
    return [word for member in literals for word in get_args(member)]
