"""YAML file and command line to recipe: jsonargparse checks every value of both the same way."""

from __future__ import annotations

import math
import re
import reprlib
import sys
from argparse import SUPPRESS, ArgumentError
from collections.abc import Collection, Sequence
from dataclasses import fields
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, get_origin, get_type_hints, overload

from jsonargparse import ArgumentParser
from jsonargparse.typing import ClosedUnitInterval

from . import mindcv
from .bounds import GraphSize, PathText, alternatives, choices, in_words, plain_kinds
from .paths import expanded
from .recipe import Recipe, contradictions
from .recipe_file import RecipeError, read_recipe, unknown_key

COMMAND_LINE = "command line"
PRINT_CONFIG = "--print_config"
HIDDEN = "Every key of a recipe is accepted as a flag: train.py --help lists them."
T = TypeVar("T")  # a script's own flags
# Other spellings of one thing; the recipe holds the right-hand one.
SYNONYMS = {
    ("dataset", ""): "imagenet",
    ("re_value", "random"): "pixel",
    ("scheduler", "warmup_cosine_decay"): "cosine_decay",
}


# Two keys that say one thing in different ways.
_PAIRS = (("lr", "lr_base"), ("ckpt_path", "pretrained"))
_INSTEAD = (*_PAIRS, *(pair[::-1] for pair in _PAIRS))
_DIGITS = r"(0|[1-9][0-9]*(_[0-9]+)*)"
_NUMBER = re.compile(rf"[-+]?({_DIGITS}(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
_AMBIGUOUS = re.compile(r"[-+]?(0[0-9bBoOxX][0-9A-Fa-f_.]*|[0-9_]+(:[0-9_.]+)+)")

LARGEST = 2**31 - 1  # of any integer; MindSpore takes seeds of 32 bits, and the rank is added

_brief = reprlib.Repr()  # of what was found: a line is no place for all of a long or deep value
_brief.maxlevel, _brief.maxstring, _brief.maxlong = 2, 200, 40


@overload
def parse_recipe(
    argv: Sequence[str] | None, *, description: str, default_config: str
) -> Recipe: ...


@overload
def parse_recipe(
    argv: Sequence[str] | None,
    *,
    description: str,
    default_config: str,
    options: type[T],
    shown: Collection[str] | None = None,
) -> tuple[Recipe, T]: ...


def parse_recipe(
    argv: Sequence[str] | None,
    *,
    description: str,
    default_config: str,
    options: type[T] | None = None,
    shown: Collection[str] | None = None,
) -> Recipe | tuple[Recipe, T]:
    """The recipe that a command line asks for: defaults < ``--config`` file < flags.

    Args:
        argv: the words after the script's name, None for those of this process.
        description: the script's purpose, first lines of ``--help``.
        default_config: recipe file where no ``--config`` is given.
        options: dataclass of the script's own flags, documented under ``Args:`` as the sections
            are, each with a default; its keys do not belong in a recipe file.
        shown: keys of the recipe that ``--help`` lists, None for all. The others count as well.

    Returns:
        the recipe, or with ``options`` the recipe and an instance of ``options``.

    ``--help`` and ``--print_config`` exit with 0.

    Raises:
        RecipeError: a mistake in file or flags.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    sections = get_type_hints(Recipe)
    groups = [*sections.values(), *([options] if options else [])]
    parser = _build_parser(groups, description, default_config)
    if {"-h", "--help"} & set(words):
        if shown is not None:
            _hide(parser, {key for group in sections.values() for key in _keys(group)} - {*shown})
        parser.parse_args(["--help"])
    prints = PRINT_CONFIG in words
    words = [word for word in words if word != PRINT_CONFIG]
    values = _merge(parser, words, default_config, sections, groups)
    recipe = Recipe(**{name: _build(group, values) for name, group in sections.items()})
    for line in contradictions(recipe):
        raise RecipeError(line)
    if prints:
        print(recipe.to_yaml(), end="")
        sys.exit(0)
    return (recipe, _build(options, values)) if options else recipe


def _build_parser(groups: list[type], description: str, default_config: str) -> ArgumentParser:
    parser = ArgumentParser(description=description, exit_on_error=False, allow_abbrev=False)
    parser.add_argument(
        "-c",
        "--config",
        type=str,
        default=default_config,
        metavar="FILE",
        help="recipe; its keys override the defaults below, flags override its keys",
    )
    parser.add_argument(
        PRINT_CONFIG, action="store_true", help="print the whole recipe, and do nothing else"
    )
    for group in groups:
        parser.add_class_arguments(group, None)
    return parser


def _hide(parser: ArgumentParser, keys: Collection[str]) -> None:
    """Leave keys out of ``--help``, which says that they are accepted."""
    parser.description = f"{parser.description}\n{HIDDEN}"
    for action in parser._actions:
        if action.dest in keys:
            action.help = SUPPRESS


def _keys(group: type) -> set[str]:
    return {field.name for field in fields(group)}


def _build(group: type, values: dict[str, Any]) -> Any:
    names = _keys(group)
    return group(**{name: value for name, value in values.items() if name in names})


def _merge(
    parser: ArgumentParser,
    words: list[str],
    default_config: str,
    sections: dict[str, type],
    groups: list[type],
) -> dict[str, Any]:
    """Every value that the recipe and the flags give, checked: bases < file < flags.

    Who gives one of a pair such as lr and lr_base also takes out the other one of those before.
    """
    kinds = {key: kind for group in groups for key, kind in get_type_hints(group).items()}
    flags = _read_flags(words, {**kinds, "config": str})
    path = _expanded("config", flags.pop("config", default_config), COMMAND_LINE)
    recipe_keys = [field.name for section in sections.values() for field in fields(section)]
    values: dict[str, Any] = {}
    files = read_recipe(Path(path), recipe_keys, mindcv.KEYS)
    for source, given in (*files, (COMMAND_LINE, flags)):
        given = mindcv.translated(given, source)
        factor = given.pop(mindcv.WARMUP_FACTOR, None)
        checked = {key: _check_value(parser, key, given[key], kinds[key], source) for key in given}
        for key, other in _INSTEAD:
            if checked.get(key):
                values.pop(other, None)
        values |= checked
        if factor is not None:
            values[mindcv.WARMUP_FACTOR] = _factor(factor, source)
        elif "warmup_lr" in checked:
            values.pop(mindcv.WARMUP_FACTOR, None)
    if mindcv.WARMUP_FACTOR in values:
        values["warmup_lr"] = _warmup_lr(values.pop(mindcv.WARMUP_FACTOR), values.get("lr"))
    return values


def _factor(text: Any, source: str) -> float:
    if not isinstance(text, str) or not _NUMBER.fullmatch(text) or not 0 <= float(text) <= 1:
        kind = in_words(ClosedUnitInterval)
        raise RecipeError(
            f"{mindcv.WARMUP_FACTOR}: found {_shown(text)}, expected {kind} ({source})"
        )
    return float(text)


def _warmup_lr(factor: float, lr: float | None) -> float:
    """MindCV's warm-up starts at this part of the learning rate."""
    if factor and lr is None:
        raise RecipeError(
            f"{mindcv.WARMUP_FACTOR}: found {factor} without lr, expected it with lr, or warmup_lr"
        )
    return factor * (lr or 0.0)


def _read_flags(words: list[str], kinds: dict[str, Any]) -> dict[str, str]:
    """The text of each flag: ``--key text``, ``--key=text``, ``--key 1 2`` or ``--boolean``.

    argparse alone cannot take a boolean without a value, a list without brackets or -1e-3.
    """
    given: dict[str, list[str]] = {}
    key = None
    for word in words:
        if re.match("--?[A-Za-z_]", word):
            name, equals, text = word.partition("=")
            key = "config" if name == "-c" else name.removeprefix("--")
            if key not in kinds and key not in mindcv.KEYS:
                raise RecipeError(unknown_key(key, kinds, COMMAND_LINE))
            given[key] = [text] if equals else []
        elif key is None:
            raise RecipeError(f"{word!r}: found before any flag, expected --key value")
        else:
            given[key].append(word)
    return {
        key: _flag_text(key, texts, kinds.get(key, bool if not texts else str))
        for key, texts in given.items()
    }


def _flag_text(key: str, texts: list[str], kind: Any) -> str:
    members = alternatives(kind)
    text = ", ".join(texts)
    if not texts:
        if bool in members:
            return "true"
        raise RecipeError(f"{key}: found no value, expected {in_words(kind)} ({COMMAND_LINE})")
    takes_list = any(get_origin(member) is tuple for member in members)
    if takes_list and not text.startswith("[") and (len(members) == 1 or "," in text):
        return f"[{text}]"
    if len(texts) > 1:
        raise RecipeError(f"{key}: found {text!r}, expected one value ({COMMAND_LINE})")
    return text


def _check_value(parser: ArgumentParser, key: str, value: Any, kind: Any, source: str) -> Any:
    """``value`` as type ``kind`` in plain Python types, checked by jsonargparse."""
    found = value
    members = value if isinstance(value, list) else [value]
    try:
        if any(isinstance(member, (list, dict)) for member in members):
            raise ValueError
        value = _spelled(value, kind)
        if isinstance(value, str) and kind in (str, PathText):
            checked: Any = value  # jsonargparse takes no bytes that are not UTF-8
        else:
            checked = _plain(parser.parse_object({key: value}, defaults=False)[key])
        # parse_object alone lets null pass for every type, and 3.0 for an integer
        if checked is None and NoneType not in alternatives(kind):
            raise ValueError
        if isinstance(checked, int) and isinstance(value, float):
            raise ValueError
        if isinstance(checked, str) and "\0" in checked:  # no path can hold it
            raise ValueError
    except _NotDecimal:
        raise RecipeError(
            f"{key}: found {_shown(found)}, expected {in_words(kind)}, in decimal digits ({source})"
        ) from None
    except (ArgumentError, ValueError, OverflowError):
        raise RecipeError(
            f"{key}: found {_shown(found)}, expected {in_words(kind)} ({source})"
        ) from None
    if isinstance(checked, int) and checked > LARGEST:
        raise RecipeError(f"{key}: found {found}, expected {LARGEST} at most ({source})")
    if isinstance(checked, (str, Path)) and {PathText, Path} & plain_kinds(kind):
        checked = type(checked)(_expanded(key, str(checked), source))
    if key == "opt":
        checked = checked.lower()
    return SYNONYMS.get((key, checked), checked) if isinstance(checked, str) else checked


class _NotDecimal(ValueError):
    """A number that is read as different ones: 010 is 8 or 10, 1:30 is 90 or none."""


def _spelled(value: Any, kind: Any) -> Any:
    """``value`` with its texts as ``kind`` has them: lists, null, words of any letter case."""
    if isinstance(value, list):  # but for those, there are no lists but of numbers
        member_kind = GraphSize if GraphSize in plain_kinds(kind) else float
        return [_spelled(member, member_kind) for member in value]
    if not isinstance(value, str):
        return value
    if value == "None" and NoneType in alternatives(kind):
        return None
    if any(get_origin(member) is tuple for member in alternatives(kind)):
        if value.startswith("[") and value.endswith("]"):
            return _spelled([part.strip() for part in value[1:-1].split(",")], kind)
    for word in choices(kind):
        if value.casefold() == word.casefold():
            return word
    numeric = all(
        one in (NoneType, bool) or issubclass(one, (int, float)) for one in plain_kinds(kind)
    )
    if numeric and any(map(str.isdigit, value)) and not _NUMBER.fullmatch(value):
        raise _NotDecimal if _AMBIGUOUS.fullmatch(value) else ValueError
    return value


def _shown(value: Any) -> str:
    """What was found, as it was written and in one line."""
    shown = _brief.repr(value)
    return shown.replace("'", "") if isinstance(value, list) else shown


def _expanded(key: str, text: str, source: str) -> str:
    try:
        return expanded(text)
    except ValueError as error:
        raise RecipeError(
            f"{key}: found {text!r} with {error}, expected a path ({source})"
        ) from None


def _plain(value: Any) -> Any:
    """jsonargparse's bounded numbers and texts as Python's own; ValueError where not finite."""
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(value)
    for builtin in (int, float, str):
        if isinstance(value, builtin) and not isinstance(value, bool):
            return builtin(value)
    return value
