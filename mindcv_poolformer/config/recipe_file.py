"""A recipe's YAML file, and those that it stands on."""

from __future__ import annotations

import os
from argparse import ArgumentError
from collections.abc import Collection
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from .paths import expanded

BASE = "base"
MOST_BYTES = 1_000_000  # of a recipe; a device or a pipe may have no end


class RecipeError(ArgumentError):
    """One line: the key, what was found, what was expected."""

    def __init__(self, line: str) -> None:
        super().__init__(None, line)


def read_recipe(
    path: Path, known: Collection[str], foreign: Collection[str] = ()
) -> list[tuple[str, dict[str, Any]]]:
    """Read a recipe and the chain of its bases.

    ``base: imagenet.yaml`` names the file that a recipe stands on, relative to its own.

    Args:
        path: of the recipe.
        known: the keys that a recipe may have.
        foreign: further ones, which are proposed to nobody.

    Returns:
        (file, its keys and values), the last base first, so that later ones count.

    Raises:
        RecipeError: a file cannot be read, is no recipe, or is a base of itself.
    """
    chain: list[tuple[Path, dict[str, Any]]] = []
    while True:
        content = _read_file(path, known, foreign)
        chain.insert(0, (path, content))
        if BASE not in content:
            return [(str(file), values) for file, values in chain]
        base = content.pop(BASE)
        if not isinstance(base, str) or not base:
            raise RecipeError(f"base: found {base!r}, expected the path of a recipe ({path})")
        try:
            child, path = path, path.parent / expanded(base)
        except ValueError as error:
            raise RecipeError(
                f"base: found {base!r} with {error}, expected a path ({path})"
            ) from None
        if not os.path.isfile(path):  # also of a name that the system refuses
            raise RecipeError(f"base: found no file {str(path)!r}, expected a recipe ({child})")
        if any(path.resolve() == file.resolve() for file, _ in chain):
            raise RecipeError(f"base: found {str(path)!r} to stand on itself ({child})")


class _TextLoader(yaml.SafeLoader):
    """YAML whose scalars are null or text, as flags are: a key's type says what they mean.

    YAML 1.1 would make 8 of 010, 90 of 1:30, a date of 2024-01-01 and text of 1e-3. A repeated key
    is an error instead of the last one winning.
    """

    yaml_implicit_resolvers = {
        first: [pair for pair in pairs if pair[0].rpartition(":")[2] in ("null", "merge")]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                continue
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"key {key_node.value!r} found twice, expected once",
                    problem_mark=key_node.start_mark,
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def _read_file(path: Path, known: Collection[str], foreign: Collection[str]) -> dict[str, Any]:
    """The mapping in the YAML file ``path``, every key of it known, foreign or the base."""
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1)
        if len(text) > MOST_BYTES:
            raise RecipeError(
                f"config: found more than {MOST_BYTES:,} bytes in {str(path)!r}, expected a recipe"
            )
        content = yaml.load(text, _TextLoader)
    except OSError as error:
        raise RecipeError(
            f"config: found {error.strerror!r} at {str(path)!r}, expected a recipe file"
        ) from None
    except yaml.MarkedYAMLError as error:
        place = f"line {error.problem_mark.line + 1}" if error.problem_mark else "unknown line"
        raise RecipeError(f"config: {path}, {place}: {error.problem}") from None
    except yaml.YAMLError as error:
        raise RecipeError(f"config: {path}: {str(error).splitlines()[0]}") from None
    # PyYAML answers values that are not what they look like, or are tagged as, with any of these.
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise RecipeError(
            f"config: found no YAML in {str(path)!r} ({error}), expected lines of key: value"
        ) from None
    if not isinstance(content, dict):
        found = "nothing" if content is None else type(content).__name__
        raise RecipeError(f"config: found {found} in {str(path)!r}, expected lines of key: value")
    for key in content:
        if key not in known and key not in foreign and key != BASE:
            raise RecipeError(unknown_key(str(key), [*known, BASE], str(path)))
    return content


def unknown_key(key: str, known: Collection[str], source: str) -> str:
    """One line on a key that is not among the known ones, with the nearest of them."""
    close = get_close_matches(key, known, n=1, cutoff=0.7)
    expected = f"a known key, perhaps {close[0]}" if close else "a key that --help lists"
    return f"{key}: found an unknown key, expected {expected} ({source})"
