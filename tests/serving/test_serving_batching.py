"""Who runs with whom, and what each gets back."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from mindcv_poolformer.serving.batching import Batcher, BusyError, SideBySide, quickest, sizes_up_to


class Network:
    """Doubles numbers, one run at a time, each of which waits for `go`."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.runs: list[int] = []
        self.go = threading.Semaphore(0)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.begun.append(len(images))
        self.go.acquire(timeout=20)
        self.runs.append(len(images))
        if (images < 0).any():
            raise ValueError("found a negative number")
        return images * 2


async def begun(network: Network, sizes: list[int]) -> None:
    """Wait until runs of these sizes have begun, and no others."""
    deadline = time.monotonic() + 20
    while len(network.begun) < len(sizes) and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    assert network.begun == sizes


def ask(batcher: Batcher, *numbers: float) -> asyncio.Task[np.ndarray]:
    async def asked() -> np.ndarray:
        with batcher.place(len(numbers)):
            return await batcher.answer(np.array(numbers))

    return asyncio.ensure_future(asked())


def run(test: Callable[[Network], Awaitable[None]]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(test(Network()), 30)

    asyncio.run(limited())


def test_what_waits_runs_together_and_gets_its_own_rows() -> None:
    async def test(network: Network) -> None:
        batcher = Batcher(network, 4, 0.0, 99)
        asked = [ask(batcher, 1)]
        await asyncio.sleep(0.1)  # it runs
        asked += [ask(batcher, *numbers) for numbers in ([2, 3], [4], [5, 6], [7])]
        await asyncio.sleep(0.1)  # they wait
        network.go.release(9)
        answers = [list(rows) for rows in await asyncio.gather(*asked)]
        assert answers == [[2], [4, 6], [8], [10, 12], [14]]
        assert network.runs == [1, 3, 3]

    run(test)


def test_a_large_request_runs_alone() -> None:
    async def test(network: Network) -> None:
        batcher = Batcher(network, 2, 0.0, 99)
        network.go.release(9)
        assert list(await ask(batcher, 1, 2, 3, 4, 5)) == [2, 4, 6, 8, 10]
        assert network.runs == [5]

    run(test)


def test_an_error_is_for_those_who_ran_and_the_next_run_goes_on() -> None:
    async def test(network: Network) -> None:
        batcher = Batcher(network, 1, 0.0, 99)
        network.go.release(9)
        asked = [ask(batcher, 1), ask(batcher, -1), ask(batcher, 3)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert answers[0] == [2] and answers[2] == [6]
        assert str(answers[1]) == "found a negative number"

    run(test)


@pytest.mark.parametrize("rows", [None, np.zeros(1)], ids=["none", "too few"])
def test_a_run_that_gives_no_rows_is_an_error_and_the_next_goes_on(rows: Any) -> None:
    async def test(network: Network) -> None:
        given = [rows, np.ones(2)]
        batcher = Batcher(lambda images: given.pop(0), 4, 0.0, 99)
        with pytest.raises((TypeError, ValueError), match="len|found 1, expected 2"):
            await ask(batcher, 1, 2)
        assert list(await ask(batcher, 3, 4)) == [1, 1]

    run(test)


def test_who_leaves_is_not_run_and_holds_up_nobody() -> None:
    async def test(network: Network) -> None:
        batcher = Batcher(network, 8, 0.0, 99)
        first = ask(batcher, 1)
        await asyncio.sleep(0.1)
        leaves, stays = ask(batcher, 2), ask(batcher, 3)
        await asyncio.sleep(0.1)
        leaves.cancel()
        await asyncio.sleep(0.1)
        network.go.release(9)
        assert list(await first) == [2] and list(await stays) == [6]
        assert network.runs == [1, 1]
        await batcher.drained()

    run(test)


def test_no_more_than_may_wait() -> None:
    async def test(network: Network) -> None:
        batcher = Batcher(network, 8, 0.0, 3)
        asked = [ask(batcher, 1, 2), ask(batcher, 3)]
        await asyncio.sleep(0.1)
        with pytest.raises(BusyError, match="found 3 images under way and 1 more, expected at"):
            await ask(batcher, 4)
        drained = asyncio.ensure_future(batcher.drained())
        await asyncio.sleep(0.1)
        assert not drained.done()
        network.go.release(9)
        await asyncio.gather(*asked, drained)
        assert list(await ask(batcher, 4)) == [8]

    run(test)


def test_waits_for_as_many_as_last_time() -> None:
    async def test(network: Network) -> None:
        batcher = Batcher(network, 8, 20.0, 99)
        network.go.release(1)
        await ask(batcher, 1)  # alone, at once, despite 20 seconds
        first = ask(batcher, 1)
        await asyncio.sleep(0.1)
        pair = [ask(batcher, 2), ask(batcher, 3)]
        await asyncio.sleep(0.1)
        network.go.release(9)
        await asyncio.gather(first, *pair)
        one = ask(batcher, 4)
        await asyncio.sleep(0.2)
        assert network.runs == [1, 1, 2]  # the last was a pair, so one waits for another
        await asyncio.gather(one, ask(batcher, 5))
        assert network.runs == [1, 1, 2, 2]

    run(test)


def refused(images: np.ndarray) -> np.ndarray:
    raise AssertionError("expected runs of one core")


def test_as_many_runs_as_may_go_side_by_side_whosever_they_are() -> None:
    async def test(network: Network) -> None:
        beside, lock, under_way = threading.Barrier(2), threading.Lock(), [0]

        def meet(images: np.ndarray) -> np.ndarray:
            with lock:
                under_way.append(under_way[-1] + 1)
            beside.wait(10)
            time.sleep(0.01)  # a third would come in
            with lock:
                under_way.append(under_way[-1] - 1)
            return images * 2

        batchers = [Batcher(meet, 1, 0.0, 99, SideBySide(meet, 1, 2)) for _ in range(2)]
        asked = [ask(batchers[number // 3], number) for number in range(6)]
        answers = await asyncio.gather(*asked)
        assert [list(rows) for rows in answers] == [[0], [2], [4], [6], [8], [10]]
        assert max(under_way) == 2

    run(test)


def test_one_request_has_all_cores_and_others_share_what_has_come_meanwhile() -> None:
    async def test(network: Network) -> None:
        beside = Network()
        batcher = Batcher(network, 8, 0.0, 99, SideBySide(beside, 3, 2))
        asked = [ask(batcher, 0)]
        await begun(network, [1])
        asked += [ask(batcher, number) for number in range(1, 10)]
        await asyncio.sleep(0.1)
        await begun(beside, [])
        network.go.release()
        await begun(beside, [3, 3])
        beside.go.release(2)
        await begun(beside, [3, 3, 2, 1])  # half of those that waited, and the last
        beside.go.release(2)
        answers = await asyncio.gather(*asked)
        assert [list(rows) for rows in answers] == [[2 * number] for number in range(10)]
        network.go.release()
        assert list(await ask(batcher, 7)) == [14] and network.runs == [1, 1]

    run(test)


def test_few_requests_have_all_cores_together() -> None:
    async def test(network: Network) -> None:
        batcher = Batcher(network, 8, 0.0, 99, SideBySide(refused, 8, 4))
        first = ask(batcher, 1)
        await asyncio.sleep(0.1)
        asked = [ask(batcher, number) for number in (2, 3, 4)]
        await asyncio.sleep(0.1)
        network.go.release(2)
        await asyncio.gather(first, *asked)
        assert network.runs == [1, 3]

    run(test)


def test_a_large_request_has_all_cores_once_those_under_way_have_ended() -> None:
    async def test(network: Network) -> None:
        beside = Network()
        batcher = Batcher(network, 8, 0.0, 99, SideBySide(beside, 2, 2))
        asked = [ask(batcher, 0)]
        await begun(network, [1])
        asked += [ask(batcher, *numbers) for numbers in ([1], [2], [3, 4, 5], [6])]
        leaves = ask(batcher, 7)
        await asyncio.sleep(0.1)
        leaves.cancel()
        network.go.release(2)
        await begun(beside, [2])
        await asyncio.sleep(0.1)
        await begun(network, [1])
        beside.go.release()
        answers = await asyncio.gather(*asked)
        assert [list(rows) for rows in answers] == [[0], [2], [4], [6, 8, 10], [12]]
        assert (beside.runs, network.runs) == ([2], [1, 4])
        await batcher.drained()

    run(test)


def test_fewer_requests_than_cores_wait_for_all_of_them() -> None:
    async def test(network: Network) -> None:
        beside = Network()
        batcher = Batcher(network, 8, 0.0, 99, SideBySide(beside, 2, 3))
        asked = [ask(batcher, 0)]
        await begun(network, [1])
        asked += [ask(batcher, number) for number in (1, 2, 3)]
        await asyncio.sleep(0.1)
        network.go.release(2)
        await begun(beside, [1, 1, 1])
        beside.go.release(2)
        await asyncio.sleep(0.1)
        asked.append(ask(batcher, 4))
        await asyncio.sleep(0.1)
        await begun(beside, [1, 1, 1])
        asked.append(ask(batcher, 5))  # which makes three with the one under way
        await begun(beside, [1] * 5)
        beside.go.release(3)
        answers = await asyncio.gather(*asked)
        assert [list(rows) for rows in answers] == [[2 * number] for number in range(6)]
        assert network.runs == [1]

    run(test)


def test_quickest_runs() -> None:
    flat = quickest({1: 1.0, 2: 2.0, 4: 4.0}, 7)  # filling up costs, splitting does not
    assert [sum(sizes) for sizes in flat] == list(range(8))
    steep = quickest({1: 1.0, 4: 1.1}, 9)  # a full run costs hardly more than one image
    assert steep[1:] == [(1,), (4,), (4,), (4,), (4, 1), (4, 4), (4, 4), (4, 4), (4, 4, 1)]
    assert quickest({8: 1.0}, 9)[9] == (8, 8)


@pytest.mark.parametrize(
    ("largest", "sizes"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (16, [1, 2, 4, 8, 16])]
)
def test_sizes(largest: int, sizes: list[int]) -> None:
    assert sizes_up_to(largest) == sizes
