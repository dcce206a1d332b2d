"""The network in a checkpoint of training: under what prefix it is, and what is beside it.

DistributedDataParallel, torch.compile, Lightning and MindSpore's step cells put words before the
names of parameters; optimizers keep moments, and averages, under such names too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

import numpy as np

from ..runtime.errors import UserError
from .names import NAMINGS, Naming
from .read import Source

# What is known to hold a network goes before what else a module may be called, such as "model_ema".
# "optimizer" is what MindCV's step with accumulated gradients calls the parameters.
WRAPPERS = frozenset(
    "module _orig_mod _forward_module model net network backbone _backbone optimizer".split()
)
EMA_PREFIX = "ema."


def find_network(source: Source) -> tuple[Naming, str]:
    """Give the naming of a file's network, and the prefix of its names, empty or such as "module.".

    Raises:
        UserError: the names are nobody's, or there are networks under several prefixes.
    """
    found = [(naming, prefix) for naming in NAMINGS for prefix in _prefixes(naming, source)]
    known = [(naming, prefix) for naming, prefix in found if _is_known(prefix)]
    of_mindspore = source.path.suffix == ".ckpt" and not source.taken
    if known or of_mindspore:  # whose optimizers name moments in this way
        found = known
    if not found:
        labels = ", ".join(dict.fromkeys(naming.label for naming in NAMINGS))
        raise UserError(
            f"{source.path}: found parameters named {_some(source.values)}, expected those of a "
            f"PoolFormer or MetaFormer as {labels} name them"
        )
    naming, prefix = min(found, key=lambda pair: len(pair[1]))
    others = [
        other
        for same, other in found
        if same is naming and other != prefix and not f".{other}".endswith(f".{prefix}")
    ]
    if others:
        raise UserError(
            f"{source.path}: found a network under {prefix}* and one under {others[0]}*, expected "
            "one: which is meant, the file does not tell"
        )
    return naming, prefix


def _prefixes(naming: Naming, source: Source) -> list[str]:
    ends = [n.removesuffix(naming.stem) for n in source.values if n.endswith(naming.stem)]
    return [
        prefix
        for prefix in ends
        if (not prefix or prefix.endswith(".")) and naming.fits(source.values, prefix)
    ]


def _is_known(prefix: str) -> bool:
    return WRAPPERS.issuperset(prefix.split(".")[:-1])


def unwrap(source: Source, prefix: str) -> Source:
    """Give the parameters below a prefix, without it; the others are left."""
    if not prefix:
        return source
    inside = {k.removeprefix(prefix): v for k, v in source.values.items() if k.startswith(prefix)}
    outside = [name for name in source.values if not name.startswith(prefix)]
    return replace(source, values=inside, left=(*source.left, *outside))


def without_state(source: Source, expected: Collection[str]) -> Source:
    """Leave what training keeps beside the weights.

    These are the numbers of a step, such as ``global_step``, and what has a parameter's name after
    a word, such as ``adam_m.norm.gamma``.

    Args:
        source: with the names of a network.
        expected: the names of its parameters.
    """
    words = {name.partition(".")[0] for name in expected}

    def of_training(name: str, value: np.ndarray) -> bool:
        word, dot, rest = name.partition(".")
        if name in expected or word in words:
            return False
        return rest in expected if dot else value.size == 1

    state = [name for name, value in source.values.items() if of_training(name, value)]
    values = {name: value for name, value in source.values.items() if name not in set(state)}
    return replace(source, values=values, left=(*source.left, *state))


def told(source: Source, prefix: str) -> str:
    """Give one line on what was taken of a training checkpoint and what was left; else empty."""
    parts = []
    if source.taken:
        parts.append(f"taken is {source.taken}")
    if prefix:
        parts.append(f"the names are taken without {prefix}")
    if source.left:
        parts.append(f"left out: {', '.join(_grouped(source.left))}")
    if any(name.startswith(EMA_PREFIX) for name in source.left):
        parts.append("extract_ema would take the average, ema.*")
    return "; ".join(parts)


def averages(values: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Give the moving averages in MindCV's checkpoints by the names of what they are of."""
    found = {k.removeprefix(EMA_PREFIX): v for k, v in values.items() if k.startswith(EMA_PREFIX)}
    return {name if name in values else f"{prefix}{name}": v for name, v in found.items()}


def _grouped(names: Iterable[str]) -> list[str]:
    """Names as people read them: those that begin alike once, at most a dozen."""
    groups: dict[str, int] = {}
    for name in names:
        word, dot, _ = name.partition(".")
        groups[f"{word}.*" if dot else word] = groups.get(f"{word}.*" if dot else word, 0) + 1
    listed = [f"{name} ({count})" if count > 1 else name for name, count in groups.items()]
    return listed if len(listed) <= 12 else [*listed[:12], f"and {len(listed) - 12} more"]


def _some(names: Collection[str]) -> str:
    listed = ", ".join(sorted(names)[:3])
    return f"{listed}, ... ({len(names)} in all)" if len(names) > 3 else listed or "nothing"
