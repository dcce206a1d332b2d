"""settings.json and each bundle's model-settings.json, read for MLServer: mistakes are a line."""

from __future__ import annotations

import json
from glob import glob
from itertools import combinations
from pathlib import Path

from mlserver import ModelSettings, Settings
from mlserver.cli.serve import DEFAULT_SETTINGS_FILENAME
from mlserver.errors import MLServerError
from mlserver.repository.load import load_model_settings
from mlserver.repository.repository import SchemalessModelRepository
from pydantic import ValidationError

from ..export.settings import SETTINGS
from ..runtime.errors import UserError

Models = list[ModelSettings]
_UNREADABLE = (OSError, ValueError, TypeError)  # no JSON, no object, or values of no meaning


def read_settings(folder: str) -> Settings:
    """MLServer's own settings: a folder's settings.json, and else variables.

    Raises:
        UserError: they cannot be read.
    """
    path, sources = Path(folder, DEFAULT_SETTINGS_FILENAME), "variables MLSERVER_..."
    try:
        if not path.is_file():
            return Settings()
        sources = f"{path}, {sources}"
        return Settings(**json.loads(path.read_bytes()))
    except OSError as error:
        raise UserError(f"{error.filename or path}: cannot be read ({error.strerror})") from None
    except _UNREADABLE as error:
        raise UserError(f"{sources}: cannot be read ({_first_reason(error)})") from None


class BundleRepository(SchemalessModelRepository):
    """The bundles below a folder, all of them.

    MLServer's own leaves out what it cannot read, and has one of two of the same name and version
    take the other's place; of a name with no version it unloads others.
    """

    async def list(self) -> Models:
        """The settings of each, in the order of their paths.

        Raises:
            MLServerError: 422, those of one cannot be read, or it shares a name and has no version
                of its own.
        """
        return _read_all(Path(self._root)) or await super().list()  # which knows variables


def _read_all(root: Path) -> Models:
    paths = sorted(glob(f"**/{SETTINGS}", root_dir=root, recursive=True))
    models = [_read(root.absolute() / path) for path in paths]
    for one, other in combinations(models, 2):
        told_apart = one.version and other.version and one.version != other.version
        if one.name == other.name and not told_apart:
            raise MLServerError(
                f"{other._source}: found {other.name} of version {other.version} beside version "
                f"{one.version} in {one._source}, expected parameters.version to tell them apart",
                422,
            )
    return models


def _read(path: Path) -> ModelSettings:
    try:
        return load_model_settings(str(path))
    except _UNREADABLE as error:
        raise MLServerError(f"{path}: cannot be read ({_first_reason(error)})", 422) from None


def _first_reason(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    found = "nothing" if first["type"] == "missing" else f"{first['input']!r:.60}"
    return f"{'.'.join(map(str, first['loc']))}: found {found}: {first['msg']}"
