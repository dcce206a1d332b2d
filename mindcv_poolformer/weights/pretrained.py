"""Published weights: where they are, and how they come into the cache folder, whole or not at all.

The cache is --cache_dir, or else $MINDCV_POOLFORMER_CACHE, or else ~/.cache/mindcv_poolformer.
"""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import replace
from pathlib import Path
from urllib.parse import urljoin, urlsplit, urlunsplit

from ..config import ModelConfig
from ..config.paths import expanded
from ..models.published import HUB, PUBLISHED
from ..runtime.errors import UserError
from .download import NotThere, download
from .huggingface import CONFIG
from .imagenet import published
from .load import Network, start_from
from .model_weights import ModelWeights
from .read import FOLDER_FILES, SUFFIXES
from .recognise import read_weights
from .variant import backbone_of, kind_of, same_network

# MindCV's weights, by what --ckpt_path takes for them. Their SHA-256 are not published.
MINDCV_FILES = {
    "mindcv/poolformer_s12": (
        "https://download.mindspore.cn/toolkits/mindcv/poolformer/poolformer_s12-5be5c4e4.ckpt"
    ),
    "mindcv/poolformer_s12-910v2": (
        "https://download-mindspore.osinfra.cn/toolkits/mindcv/poolformer/"
        "poolformer_s12-c7e14eea-910v2.ckpt"
    ),
}
DEFAULT_CACHE = "~/.cache/mindcv_poolformer"
_log = logging.getLogger(__name__)


def find_weights(model: ModelConfig, default: str | Path | None = None) -> ModelWeights:
    """Read the weights that a recipe names: the published ones, ``ckpt_path``, or ``default``.

    Args:
        model: its ``ckpt_path`` is a file or folder that :func:`read_weights` takes, the http(s)
            address of such a file or of a repository of the hub, or a key of ``MINDCV_FILES``.
        default: the file or folder to read if the recipe names none, of weights to use as they are.
            Without it they are to start from, and those of another kind of network will do for
            their backbone. Of segmentation models and detectors backbones alone are published:
            ``pretrained`` tells what they start from, and nothing else.

    Raises:
        UserError: as :func:`fetch` and :func:`read_weights`, or the weights are of another network
            than the model's. Models for other image sizes or classes may share a network.
    """
    if model.pretrained and (default is None or kind_of(model.model) == "classifier"):
        return read_published(model.model, model.cache_dir)
    source = str(model.ckpt_path or default or "")
    if not Path(source).exists():
        source = MINDCV_FILES.get(source, source)
    remote = source.lower().startswith(("https://", "http://"))
    path = fetch(source, model.cache_dir) if remote else Path(source)
    weights = read_weights(path, model.model)
    if remote and published(source):  # the cache has no folder of a repository's name
        weights = weights.with_imagenet_names()
    if default is not None:
        weights.check_kind(kind_of(model.model))
    return _of_network(weights, model.model)


def read_published(model: str, cache_dir: str = "") -> ModelWeights:
    """Read the weights that its authors publish for a variant; they name ImageNet-1K's classes.

    For a segmentation model or detector they are its backbone's.

    Raises:
        UserError: they publish none, or as :func:`fetch` and :func:`read_weights`.
    """
    backbone = backbone_of(model)
    if backbone not in PUBLISHED:
        raise UserError(f"pretrained: found no published weights of {backbone}, expected ckpt_path")
    hub = os.environ.get("HF_ENDPOINT") or HUB  # Hugging Face's own variable; it names a mirror
    path = fetch(urljoin(f"{hub.rstrip('/')}/", PUBLISHED[backbone]), cache_dir)
    weights = _of_network(read_weights(path, backbone).with_imagenet_names(), backbone)
    if model == backbone:
        return weights
    note = "; ".join(filter(None, (weights.note, f"published for ImageNet, as {backbone}")))
    return replace(weights, note=note)


def load_pretrained(network: Network, model: str) -> None:
    """Fill a network with published weights, for ``create_model(pretrained=True)``.

    What does not fit its classes, channels or ``features_only`` is as :func:`start_from` has it.

    Raises:
        UserError: as :func:`read_published`, or the network is not the published one otherwise.
    """
    weights = read_published(model)
    said = start_from(network, weights, any_channels=True)
    _log.log(logging.WARNING if ";" in said else logging.INFO, "%s", said)


def fetch(url: str, cache_dir: str = "") -> Path:
    """Give the weights file at an address, from the cache; it is downloaded into it first.

    Args:
        url: of a file; or of a repository of the hub, whose model.safetensors is taken, or where
            there is none, its pytorch_model.bin.
        cache_dir: the cache, empty for the environment's.

    Raises:
        UserError: as :func:`download`; it tells the command to do it by hand.
    """
    try:
        name = Path(urlsplit(url).path)
    except ValueError as error:
        raise UserError(f"{url}: found no address ({error}), expected http(s)://…") from None
    if name.suffix in SUFFIXES:
        return _fetch_file(url, cache_dir)
    best, other = (f"{url.rstrip('/')}/resolve/main/{name}" for name in FOLDER_FILES)
    if _place(other, cache_dir).is_file():
        return _place(other, cache_dir)
    try:
        return _fetch_file(best, cache_dir)
    except NotThere:
        _log.warning("%s: has no %s, taking its %s", url, *FOLDER_FILES)
        return _fetch_file(other, cache_dir)


def _fetch_file(url: str, cache_dir: str) -> Path:
    place = _place(url, cache_dir)
    if place.is_file():
        return place
    by_hand = f"curl -fL --create-dirs -o weights/{place.name} {url}"
    if place.name not in FOLDER_FILES:
        download(url, place, f"{by_hand}, then --ckpt_path weights/{place.name}")
        return place
    parts = urlsplit(url)
    config = urlunsplit(parts._replace(path=f"{parts.path.rpartition('/')[0]}/{CONFIG}"))
    by_hand += f" -o weights/{CONFIG} {config}, then --ckpt_path weights"
    try:
        download(config, place.with_name(CONFIG), by_hand)
    except NotThere:
        pass  # only Hugging Face's own weights need it, and reading them says so
    download(url, place, by_hand)
    return place


def _place(url: str, cache_dir: str) -> Path:
    """Where the cache has a file: in a folder for all that are beside it on the server."""
    given = cache_dir or os.environ.get("MINDCV_POOLFORMER_CACHE") or DEFAULT_CACHE
    try:
        cache = Path(expanded(given))
    except ValueError as error:
        raise UserError(
            f"cache_dir: found {given!r} with {error}, expected a folder: give cache_dir, or set "
            "MINDCV_POOLFORMER_CACHE"
        ) from None
    parts = urlsplit(url)
    folder, _, name = parts.path.rpartition("/")
    key = hashlib.sha256(f"{parts.netloc}{folder}?{parts.query}".encode()).hexdigest()[:12]
    return cache / f"{parts.hostname}-{key}" / name


def _of_network(weights: ModelWeights, model: str) -> ModelWeights:
    if same_network(weights.model, model):
        return weights
    if weights.kind == kind_of(model):
        raise UserError(f"model: found {model} for {weights.path}, expected its {weights.model}")
    raise UserError(
        f"model: found {model} for {weights.path}, a {weights.model}, expected one with the same "
        "backbone"
    )
