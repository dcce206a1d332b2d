"""Where the authors publish the weights of each variant."""

from __future__ import annotations

from .variants import VARIANTS, Variant

HUB = "https://huggingface.co"
RELEASE = "https://github.com/sail-sg/poolformer/releases/download/v1.0"


def _place(name: str, variant: Variant) -> str:
    if variant.family is None:
        return f"sail/{name}"
    if variant.is_metaformer:
        return f"sail/dl/resolve/main/{variant.family}/{name}.pth"
    return f"{RELEASE}/{name}.pth.tar"


# By variant, relative to the hub or a mirror of it: of PoolFormers repositories, of MetaFormers
# files of one, and of hybrids addresses elsewhere. The hub publishes their SHA-256. Variants of
# one's own have none.
PUBLISHED = {name: _place(name, variant) for name, variant in VARIANTS.items()}
