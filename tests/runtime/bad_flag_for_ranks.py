"""A job for test_launch.py that ends at its flags, before it has imported MindSpore."""

import argparse

from mindcv_poolformer.runtime.errors import run, said_once


def main() -> None:
    with said_once():
        raise argparse.ArgumentError(None, "bad flag")


if __name__ == "__main__":
    run(main)
