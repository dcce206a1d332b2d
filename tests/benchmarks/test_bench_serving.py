"""What the server is held against."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from benchmarks.rounds import ROOT

# In a process of its own: tritonclient's messages and MLServer's have the same names.
SCRIPT = """
from benchmarks.load import Load, answers_per_second
from benchmarks.serving import middle, print_targets

def row(name, clients, rate, p99=None):
    return Load(name, clients, rate, p99 and p99 / 2, p99, 0, 0.0)

loads = [row("batching", 1, 17.0, 70.0), row("one by one", 1, 1.0, 70.0), row("bare loop", 1, 20.0)]
loads += [row("batching", 8, 35.9, 9.0), row("bare loop", 8, 40.0)]
loads += [row("batching", 16, 39.0, 9.0), row("bare loop", 16, 40.0)]
print_targets(loads, row("batching", 1, 19.5, 100.0), images=1)
rounds = [
    Load("batching", 4, 30.0, 100.0, 150.0, 0, 0.0),
    Load("batching", 4, 10.0, 900.0, 990.0, 2, 0.7),
    Load("batching", 4, 32.0, 90.0, 130.0, 0, 0.1),
]
assert middle(rounds) == Load("batching", 4, 30.0, 100.0, 150.0, 2, 0.7)
assert middle([row("bare loop", 4, 35.0)]) == row("bare loop", 4, 35.0)
bursts = [number * 0.4 + which / 1e4 for number in range(20) for which in range(16)]
for opens in (1.0, 1.1, 1.3):  # 16 answers every 0.4 s
    assert abs(answers_per_second(bursts, opens, opens + 4) - 40.0) < 1e-9
assert answers_per_second([2.0, 3.0], 1.0, 5.0) == 1.0
assert answers_per_second([0.5], 1.0, 5.0) == 0.0
"""


def test_medians_of_rounds_are_judged_by_the_worst_and_the_bare_latency() -> None:
    pytest.importorskip("tritonclient", reason="needs tritonclient, which the benchmark asks with")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[3:] == [
        "| fewer than 8 clients, share of the bare loop | 85% | 85% to 85% | pass |",
        "| 8 clients and more, share of the bare loop | 90% | 89% to 97% | short |",
        "| p99 at half load (19.5 images/s), of the bare latency | 2x | 2.00x (100 ms) | pass |",
    ]
