from __future__ import annotations

import ast
import base64
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mindcv
import nbformat
import numpy as np
import pytest
from ipykernel.kernelspec import write_kernel_spec
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

from mindcv_poolformer.models import VARIANTS

ROOT = Path(__file__).parents[2]
TOUR = ROOT / "notebooks" / "tour.ipynb"
SHOWING = {"print", "script", "show", "tell"}  # what the cells call to show something
COMMITTED = nbformat.read(TOUR, 4)
CELLS = [cell for cell in COMMITTED.cells if cell.cell_type == "code"]


def text_of(cell: NotebookNode) -> str:
    """All that a cell has written to standard output."""
    return "".join(o.text for o in cell.outputs if o.output_type == "stream" and o.name == "stdout")


def pictures_of(cell: NotebookNode) -> list[Image.Image]:
    encoded = [o.data["image/png"] for o in cell.outputs if "image/png" in o.get("data", {})]
    return [Image.open(io.BytesIO(base64.b64decode(text))) for text in encoded]


def calls_at_once(source: str) -> Iterator[str]:
    """The names that a cell calls itself, not only in a function that it defines."""
    for statement in ast.parse(source).body:
        if not isinstance(statement, ast.FunctionDef):
            for node in ast.walk(statement):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    yield node.func.id


def without_numbers(text: str) -> str:
    """Text as it is in every run: speeds, losses and accuracies may differ."""
    return " ".join(re.sub(r"\d+(\.\d+)?(e[+-]?\d+)?", "#", text).split())


def test_the_committed_notebook_is_valid_and_small() -> None:
    nbformat.validate(COMMITTED)
    assert TOUR.stat().st_size < 400_000


def test_the_committed_notebook_was_run_from_top_to_bottom() -> None:
    assert [cell.execution_count for cell in CELLS] == list(range(1, len(CELLS) + 1))


@pytest.mark.parametrize("cell", CELLS, ids=[cell.id for cell in CELLS])
def test_each_cell_that_shows_something_has_its_output(cell: NotebookNode) -> None:
    shows = not SHOWING.isdisjoint(calls_at_once(cell.source))
    assert bool(text_of(cell) or pictures_of(cell)) == shows


@pytest.mark.parametrize("cell", CELLS, ids=[cell.id for cell in CELLS])
def test_the_committed_outputs_hold_nothing_but_results(cell: NotebookNode) -> None:
    assert {o.output_type for o in cell.outputs} <= {"stream", "display_data"}  # no error
    assert {o.get("name", "stdout") for o in cell.outputs} <= {"stdout"}  # no warning
    said = text_of(cell)
    assert "Traceback" not in said and "error" not in said
    assert re.findall(r"(?:^|[\s'\"(=:])/\w+", said, re.MULTILINE) == []  # no absolute path


@pytest.mark.parametrize("place", [".", "notebooks"])
def test_it_finds_the_clone_and_goes_to_a_temporary_folder(place: str, tmp_path: Path) -> None:
    source = f"{CELLS[0].source}\nprint(root, Path.cwd(), sys.path[0], sep='\\n')"
    ended = subprocess.run(
        [sys.executable, "-c", source],
        cwd=ROOT / place,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        text=True,
        capture_output=True,
        check=True,
    )
    root, here, first = ended.stdout.splitlines()
    assert root == first == str(ROOT)
    assert Path(here).parent == tmp_path


def test_it_lists_the_classifiers(capsys: pytest.CaptureFixture[str]) -> None:
    (cell,) = [cell for cell in CELLS if cell.id == "list"]
    exec(cell.source, {"mindcv": mindcv, "VARIANTS": VARIANTS})
    assert capsys.readouterr().out == text_of(cell)


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, NotebookNode]:
    """The notebook's code cells by id, after a run in a kernel of this Python.

    It must leave nothing behind: no file in the clone, none in the folder for temporary ones.
    """
    folder = tmp_path_factory.mktemp("tour")
    temporary = folder / "tmp"
    temporary.mkdir()
    write_kernel_spec(folder / "kernels" / "of_the_tests")
    notebook = nbformat.from_dict(COMMITTED)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    before = files_of_the_clone()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(folder))
        patch.setenv("TMPDIR", str(temporary))
        NotebookClient(
            notebook,
            kernel_name="of_the_tests",
            timeout=600,
            resources={"metadata": {"path": str(TOUR.parent)}},
        ).execute()
    assert files_of_the_clone() == before
    assert list(temporary.iterdir()) == []
    return {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}


def files_of_the_clone() -> set[Path]:
    return {*ROOT.iterdir(), *TOUR.parent.iterdir()} - {ROOT / ".pytest_cache"}


def numbers(pattern: str, cell: NotebookNode) -> list[tuple[float, ...]]:
    """The groups of each match in what a cell has printed."""
    found = [match.groups() for match in re.finditer(pattern, text_of(cell), re.MULTILINE)]
    return [tuple(map(float, groups)) for groups in found]


@pytest.mark.rare
def test_it_says_what_its_committed_outputs_say(executed: dict[str, NotebookNode]) -> None:
    for cell in CELLS:
        ran = executed[cell.id]
        assert without_numbers(text_of(ran)) == without_numbers(text_of(cell)), cell.id
        assert len(pictures_of(ran)) == len(pictures_of(cell)), cell.id


@pytest.mark.rare
def test_the_backbone_and_the_head_have_learnt(executed: dict[str, NotebookNode]) -> None:
    ((backbone,),) = numbers(r"^best: top-1 ([\d.]+) %", executed["train"])
    assert backbone > 90
    ((before,),) = numbers(r"^before: top-1 ([\d.]+)%", executed["tune-head"])
    ((after,),) = numbers(r"^after: top-1 ([\d.]+)%", executed["tune-head"])
    assert before < 60 < 85 < after  # five classes: 20 % by chance


@pytest.mark.rare
@pytest.mark.parametrize("name", ["top5", "save"])
def test_the_classes_are_those_of_the_folders(executed: dict[str, NotebookNode], name: str) -> None:
    found = numbers(r"/val/(\d)/\d+\.png +(\d) ", executed[name])
    assert len(found) == 5
    assert sum(folder == predicted for folder, predicted in found) >= 4


@pytest.mark.rare
def test_the_bundle_answers_as_its_checkpoint(executed: dict[str, NotebookNode]) -> None:
    ((agreement,),) = numbers(r"^self test .* top-1 equal on (\d+)%$", executed["bundle"])
    assert agreement == 100
    ((same, images),) = numbers(r"agree on (\d+) of (\d+) images", executed["compare"])
    assert same == images > 10


@pytest.mark.rare
@pytest.mark.parametrize("name", ["show-maps", "show-cam"])
def test_the_pictures_show_something(executed: dict[str, NotebookNode], name: str) -> None:
    (picture,) = pictures_of(executed[name])
    pixels = np.asarray(picture.convert("RGB"), np.float64)
    assert picture.width > 300
    assert pixels.std() > 30
    coloured = np.ptp(pixels, axis=2).max() > 100
    assert coloured == (name == "show-cam")  # features are grey, Grad-CAM lies over them in colour
