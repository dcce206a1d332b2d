"""Changing bundles for the tests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def redescribe(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the content of a bundle's model.json."""
    description = json.loads((folder / "model.json").read_text())
    change(description)
    (folder / "model.json").write_text(json.dumps(description))


def sign(folder: Path, name: str) -> None:
    """Put the size and checksum of a file as it is now into model.json."""
    content = (folder / name).read_bytes()
    facts = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    redescribe(folder, lambda description: description["files"].update({name: facts}))
