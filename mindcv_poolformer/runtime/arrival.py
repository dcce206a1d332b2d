"""Calls that wait for a module: what is needed once MindSpore is there, and not before."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType


def after_import(name: str, call: Callable[[], object]) -> None:
    """Call once a module has been imported, or at once if it has."""
    if name in sys.modules:
        call()
    else:
        sys.meta_path.insert(0, _Awaited(name, call))


class _Awaited(MetaPathFinder):
    """Finds nothing of its own; has whatever loads the module call afterwards."""

    def __init__(self, name: str, call: Callable[[], object]) -> None:
        self._name, self._call, self._asking = name, call, False

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != self._name or self._asking:
            return None
        self._asking = True
        try:
            spec = find_spec(name)  # the others'; who asks need not import it
        finally:
            self._asking = False
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_call(module: ModuleType) -> None:
                execute(module)
                sys.meta_path.remove(self)
                self._call()

            spec.loader.exec_module = execute_and_call  # type: ignore[method-assign]
        return spec
