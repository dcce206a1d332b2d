"""Which output a class folder stands for: by names where there are any, else by order, and said."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from ..runtime.counted import counted
from ..runtime.errors import UserError
from . import imagenet
from .model_weights import ModelWeights


def folders_of(classes: Sequence[str], found: Sequence[str]) -> tuple[str, ...] | None:
    """Give the class folders that outputs with names for people stand for.

    Args:
        classes: the names of all outputs.
        found: the class folders that there are.

    Returns:
        a folder for each output: the names themselves, see :func:`respelled`, where all of
        ``found`` are among them, or ImageNet's WordNet ids, see :func:`imagenet.folders_of`; None
        if neither can be told.
    """
    names = respelled(classes, found)
    times = Counter(names)
    if found and all(times[folder] == 1 for folder in found):
        return names
    return imagenet.folders_of(classes, found)


def respelled(classes: Sequence[str], found: Sequence[str]) -> tuple[str, ...]:
    """Give the names of outputs, each as a folder spells it that has no output otherwise."""
    strange = [folder for folder in found if folder not in classes]
    times = Counter(map(_plain, strange))
    alike = {_plain(folder): folder for folder in strange if times[_plain(folder)] == 1}
    return tuple(name if name in found else alike.get(_plain(name), name) for name in classes)


def _plain(name: str) -> str:
    """A name without what file systems and tools change: case, Unicode's form, what parts words."""
    return " ".join(re.sub(r"[_-]", " ", unicodedata.normalize("NFKC", name).casefold()).split())


def match(
    weights: ModelWeights, found: Sequence[str], num_classes: int | None
) -> tuple[tuple[str, ...] | None, str]:
    """Give the folders that a classifier's outputs stand for, and what has to be said of it.

    Args:
        weights: of the classifier.
        found: the class folders, in the order that counts where no names tell.
        num_classes: the outputs that a recipe asks for, None if it does not.

    Returns:
        a folder for each output, None where the order of ``found`` tells; and one line, empty where
        names tell, or outputs without names are as many as the folders.

    Raises:
        UserError: there is no classifier; there are more folders than outputs, or fewer and
            ``num_classes`` does not ask for that; or some folders have names of outputs, and their
            order is another.
    """
    outputs = weights.num_classes
    if not outputs:
        raise UserError(f"{weights.path}: found no classifier, expected one")
    if weights.folders:
        return weights.folders, ""
    if folders := folders_of(weights.classes, found):
        return folders, ""
    ids = imagenet.folders()
    if not weights.classes and outputs == len(ids) and set(ids).issuperset(found):
        return ids, (
            f"labels: the weights name none of their {counted(outputs, 'output')}, which are taken "
            "for ImageNet-1K's, since the folders have its WordNet ids"
        )
    names = "such a name" if weights.classes else "a name"
    fact = (
        f"{counted(len(found), 'class folder')}, {counted(outputs, 'output')}, not all of "
        f"which have {names}"
    )
    if len(found) > outputs or (len(found) != outputs and not num_classes):
        remedy = f"; num_classes {outputs} takes the folders for the first {len(found)} of them"
        raise UserError(
            f"{weights.path}: found {fact}, expected weights that name the folders, or as many "
            f"outputs{remedy if len(found) < outputs else ''}"
        )
    if said := order_tells(respelled(weights.classes, found), found, weights.path):
        return None, said
    if len(found) == outputs:
        return None, strangers(weights.classes, found)
    return None, (
        f"labels: found {fact}: the folders are taken for outputs 0 to {len(found) - 1} in their "
        "order; where these are other classes, the scores mean nothing"
    )


def strangers(classes: Sequence[str], found: Sequence[str]) -> str:
    """Give what to say where as many folders as outputs have names, but none in common."""
    if not classes:
        return ""
    return (
        f"labels: no class folder has the name of an output ({found[0]} is none of them), so the "
        "folders' order tells"
    )


def order_tells(classes: Sequence[str], found: Sequence[str], place: object) -> str:
    """Give what to say where not all folders have names of outputs, so that their order tells.

    Args:
        classes: the names of the outputs, as :func:`respelled` gives them.
        found: the class folders.
        place: where the classes are from, for the error.

    Returns:
        one line; empty if no folder has the name of an output.

    Raises:
        UserError: some have, and stand at another place in their order.
    """
    common = [folder for folder in found if folder in classes]
    if not common:
        return ""
    odd = next(folder for folder in found if classes.count(folder) != 1)
    fact = f"{len(common)} of {len(found)} class folders are names of outputs, {odd} is "
    fact += "none" if odd not in classes else "one of several"
    for number, folder in enumerate(found):
        if folder in common and classes[number : number + 1] != (folder,):
            raise UserError(
                f"{place}: found {fact}, and {folder}, output {classes.index(folder)}, is class "
                f"{number} in the folders' order; expected all or none of the names"
            )
    return f"labels: {fact}, so the folders' order tells"
