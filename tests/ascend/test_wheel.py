"""Whether the installed MindSpore has what graphs for Ascend call, by names in its libraries.

The x86-64 wheel holds the plugin for Ascend whole.
"""

from __future__ import annotations

import re
from pathlib import Path

import mindspore
import pytest
import yaml

PRIMITIVES = yaml.safe_load(Path(__file__).with_name("primitives.yaml").read_text())
LIBRARIES = [
    "lib/plugin/libmindspore_ascend.so.2",
    "lib/plugin/libmindspore_ops_ascend.so",
    "lib/plugin/ascend/libmindspore_graph_ir.so",
    "lib/plugin/ascend/libmindspore_ascend_res_manager.so",
]


@pytest.fixture(scope="module")
def names() -> set[str]:
    """All that reads as a name in the libraries, whole or within a mangled one."""
    found = set()
    for library in LIBRARIES:
        content = (Path(mindspore.__file__).parent / library).read_bytes()
        found |= set(re.findall(rb"(?<![A-Za-z0-9_])[A-Za-z][A-Za-z0-9_]{2,60}(?=\0)", content))
        for length, rest in re.findall(rb"N2ge2op(\d+)([A-Za-z0-9_]+)", content):
            found.add(rest[: int(length)])
    return {name.decode() for name in found}


def _version(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")[:2]))


def test_each_kernel_and_operator_is_in_the_wheel(names: set[str]) -> None:
    wanted = {
        (primitive, entry[device])
        for primitive, entry in PRIMITIVES.items()
        for device in ("A2", "910")
        if not entry[device].startswith("unknown")
        and _version(mindspore.__version__) > _version(entry.get("after", "0"))
    }
    assert len(wanted) > 60
    assert sorted((p, name) for p, name in wanted if name not in names) == []
    assert "aclnnNoSuchKernel" not in names
