"""The page under its former name: ``python -m mindcv_poolformer.page`` is the same."""

from ..page.__main__ import main
from ..runtime.errors import run

if __name__ == "__main__":
    run(main)
