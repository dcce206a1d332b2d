"""Serve a bundle: MLServer, with limits at its edge, on this machine alone.

python -m mindcv_poolformer.serving runs/digits/bundle

Host, ports, workers and the rest are MLServer's settings: settings.json in the folder, or variables
such as MLSERVER_HTTP_PORT.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import socket
import sys
from importlib.util import find_spec
from pathlib import Path

if find_spec("mlserver") is None:
    sys.exit('error: mlserver: found no such package, expected it: pip install ".[serving]"')

# isort: split
from mlserver import Settings
from mlserver.errors import MLServerError
from mlserver.repository import ModelRepositoryFactory
from mlserver.utils import install_uvloop_event_loop

from ..runtime.arguments import OneLineParser, at_least_one
from ..runtime.cores import share_among
from ..runtime.errors import UserError, run
from .server import Server
from .settings import BundleRepository, read_settings
from .workers import end_workers

# Where neither settings.json nor a variable says otherwise. Worker processes cost each request a
# trip through a pipe, and both runtimes use all cores from one process.
DEFAULTS = {
    "host": "127.0.0.1",
    "parallel_workers": 0,
    "debug": False,
    "model_repository_implementation": BundleRepository,
}


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = OneLineParser(
        prog="python -m mindcv_poolformer.serving",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("folder", help="a bundle of export.py, or a folder with several versions")
    parser.add_argument(
        "--max_request_bytes", type=at_least_one, default=32 << 20, help="longer ones get 413"
    )
    parser.add_argument(
        "--max_requests", type=at_least_one, default=128, help="more at once get 429"
    )
    return parser.parse_args()


def main() -> None:
    """Serve a folder."""
    arguments = parse_arguments()
    if not Path(arguments.folder).is_dir():
        raise UserError(f"{arguments.folder}: found no such folder, expected a bundle")
    install_uvloop_event_loop()
    try:
        asyncio.run(serve(arguments.folder, arguments.max_request_bytes, arguments.max_requests))
    finally:
        end_workers()


async def serve(folder: str, max_request_bytes: int, max_requests: int) -> None:
    """Serve until a signal asks for the end.

    Raises:
        UserError: settings cannot be read, there is nothing to serve, a bundle cannot be loaded, or
            a port is taken.
    """
    settings = with_defaults(read_settings(folder), max_request_bytes)
    settings.model_repository_root = folder
    try:
        models = await ModelRepositoryFactory.resolve_model_repository(settings).list()
    except MLServerError as error:
        raise UserError(str(error)) from None
    if not models:
        raise UserError(f"{folder}: found no model-settings.json, expected one of export.py")
    check_ports(settings)
    share_among(settings.parallel_workers)
    server = Server(settings, max_request_bytes, max_requests)
    gc.freeze()  # what is imported stays; going through it would hold up all answers
    logging.getLogger("mlserver").setLevel(logging.INFO)
    await server.start(models if settings.load_models_at_startup else [])
    if server.failure is not None:
        raise UserError(f"{folder}: found a bundle that cannot be loaded ({server.failure})")


def with_defaults(settings: Settings, max_request_bytes: int) -> Settings:
    """Fill in what the user has left open."""
    defaults = {**DEFAULTS, "grpc_max_message_length": max_request_bytes}
    for name, value in defaults.items():
        if name not in settings.model_fields_set:
            setattr(settings, name, value)
    return settings


def check_ports(settings: Settings) -> None:
    """Hold the ports against what listens already, before worker processes start.

    Raises:
        UserError: the server could not listen on one.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    names = ["http_port", "grpc_port", *(["metrics_port"] if settings.metrics_endpoint else [])]
    with contextlib.ExitStack() as held:  # at once: two may be the same
        for name in names:
            port = getattr(settings, name)
            try:
                held.enter_context(socket.create_server((settings.host, port), family=family))
            except OverflowError:
                expected = f"expected a port from 0 to 65535: MLSERVER_{name.upper()}=..."
                raise UserError(f"{name}: found {port}, {expected}") from None
            except OSError as error:
                reason = (error.strerror or str(error)).partition(" (while")[0]  # the address again
                raise UserError(
                    f"{name}: cannot listen on {settings.host}:{port} ({reason}), "
                    f"expected a free port: MLSERVER_{name.upper()}=..."
                ) from error


if __name__ == "__main__":
    run(main)
