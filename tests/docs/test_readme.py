from __future__ import annotations

import re
from itertools import groupby, product
from pathlib import Path

import pytest

from mindcv_poolformer.data.folder import IMAGE_EXTENSIONS
from mindcv_poolformer.models import POOLFORMERS, VARIANTS
from mindcv_poolformer.models.variants import FAMILIES

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [*sorted(ROOT.glob("*.md")), *DOCS]
READMES = [ROOT / "README.md", ROOT / "README_CN.md"]
TABLED = [*READMES, ROOT / "docs" / "models.md"]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
each_tabled = pytest.mark.parametrize("page", TABLED, ids=lambda page: page.name)


@each_tabled
@pytest.mark.parametrize("name", POOLFORMERS)
def test_the_model_table_is_the_table_of_variants(page: Path, name: str) -> None:
    variant = VARIANTS[name]
    row = (
        f"| {name} | {variant.parameters:,} | {variant.gmacs:.2f} G | "
        f"{variant.published_top1} % | {variant.drop_path_rate} | {variant.crop_pct:.2f} |"
    )
    assert row in page.read_text()


@each_tabled
@pytest.mark.parametrize("family", [f for f, parts in FAMILIES.items() if not parts.hybrid])
def test_the_families_are_those_of_the_table(page: Path, family: str) -> None:
    cells = []
    for name, variant in VARIANTS.items():
        if variant.family == family and name.count("_") == 1:
            larger = VARIANTS.get(f"{name}_384")
            at_384 = f" ({larger.published_top1})" if larger else ""
            cells.append(f"{name.partition('_')[2]} {variant.published_top1}{at_384}")
    assert f"| {family} | {mixers_of(family)} | {', '.join(cells)} |" in page.read_text()


@each_tabled
@pytest.mark.parametrize(
    "name", [n for n, v in VARIANTS.items() if v.family and not v.is_metaformer]
)
def test_the_hybrids_are_those_of_the_table(page: Path, name: str) -> None:
    variant = VARIANTS[name]
    row = (
        f"| {name} | {mixers_of(variant.family)} | {variant.parameters:,} | "
        f"{variant.gmacs:.1f} G | {variant.published_top1} % |"
    )
    assert row in page.read_text()


def mixers_of(family: str) -> str:
    mixers = groupby(FAMILIES[family].token_mixers)
    return ", ".join(f"{mixer} x {len([*same])}" for mixer, same in mixers)


def test_the_recipes_are_those_of_the_table() -> None:
    listed: set[Path] = set()
    text = (ROOT / "docs" / "recipes.md").read_text()
    for pattern in re.findall(r"^\| `(\S+_\S+\.yaml)`", text, re.MULTILINE):
        parts = [part.split(",") for part in re.split(r"[{}]", pattern)]
        listed |= {ROOT / "configs" / "".join(names) for names in product(*parts)}
    recipes = {path for path in (ROOT / "configs").rglob("*.yaml") if "base" not in str(path)}
    assert listed == recipes


def test_the_endings_of_images_are_those_of_the_code() -> None:
    assert set(IMAGE_EXTENSIONS) <= set(
        re.findall(r"`(\.[a-z]+)`", (ROOT / "docs" / "training.md").read_text())
    )


@each_page
def test_every_file_named_is_there(page: Path) -> None:
    text = page.read_text()
    for name in re.findall(r"\b(?:configs|docs|notebooks|benchmarks)/[\w/.-]+\.\w+", text):
        assert (ROOT / name).is_file(), name
    for name in re.findall(r"python (\w[\w/]*\.py)", text):
        assert (ROOT / name).is_file(), name
    for name in re.findall(r"python -m ((?:mindcv_poolformer|benchmarks)[\w.]*\w)", text):
        path = ROOT / name.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), name


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(without_code(page)):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        found = (page.parent / name).resolve() if name else page
        assert found.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", without_code(found), re.MULTILINE)
            assert anchor in {anchor_of(heading) for heading in headings}, target


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_the_readmes_lead_to_every_page(page: Path) -> None:
    for readme in READMES:
        assert f"](docs/{page.name})" in readme.read_text()


def test_both_readmes_have_the_same_commands() -> None:
    english, chinese = map(blocks_of, READMES)
    assert english == chinese


def test_both_readmes_have_the_same_figures_and_names() -> None:
    english, chinese = map(facts_of, READMES)
    assert english == chinese
    assert len(english) > 30


def test_both_readmes_have_the_same_pictures_and_links() -> None:
    english, chinese = (
        [target for target in LINK.findall(without_code(page)) if not target.startswith("README")]
        for page in READMES
    )
    assert english == chinese


def without_code(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchor_of(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def blocks_of(page: Path) -> list[list[str]]:
    """The code blocks of a page, line by line, without the comments."""
    blocks = re.findall(r"^```\w*\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [[line.partition("#")[0].rstrip() for line in block.splitlines()] for block in blocks]


def facts_of(page: Path) -> list[list[tuple[str, ...]]]:
    """What each row of the tables holds beside words: figures, names of models, code, addresses."""
    fact = re.compile(r"`[^`]+`|\([^)\s]+\.md\)|\d+(?:[.,]\d+)*|\b\w+_\w+\b|\*\*", re.ASCII)
    rows = re.findall(r"^\|.*\|$", without_code(page), re.MULTILINE)
    return [[tuple(sorted(fact.findall(cell))) for cell in row.split("|")] for row in rows]
