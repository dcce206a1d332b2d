"""Calls that wait for a module: what is needed once MindSpore is there, and not before."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_arrived: set[str] = set()


def after_import(name: str, call: Callable[[], object]) -> None:
    """Call once a module has been imported, or at once if it has."""
    if name in sys.modules:
        _arrived.add(name)
        call()
    else:
        sys.meta_path.insert(0, _Awaited(name, call))


def has_arrived(name: str) -> bool:
    """Whether a module that a call waits for has been imported to its end, and not only begun."""
    return name in _arrived


class _Awaited(MetaPathFinder):
    """Finds nothing of its own; has whatever loads the module call afterwards."""

    def __init__(self, name: str, call: Callable[[], object]) -> None:
        self._name, self._call = name, call

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != self._name:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        found = (finder.find_spec(name, path, target) for finder in others)
        spec = next((one for one in found if one is not None), None)  # who asks need not import it
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_call(module: ModuleType) -> None:
                execute(module)
                sys.meta_path.remove(self)
                _arrived.add(name)
                self._call()

            spec.loader.exec_module = execute_and_call  # type: ignore[method-assign]
        return spec
