from __future__ import annotations

import re
from dataclasses import fields
from itertools import groupby, product
from pathlib import Path
from typing import get_type_hints

import pytest

from mindcv_poolformer.config import Recipe, parse_recipe
from mindcv_poolformer.config.parse import RecipeError
from mindcv_poolformer.data.folder import IMAGE_EXTENSIONS
from mindcv_poolformer.models import POOLFORMERS, VARIANTS
from mindcv_poolformer.models.variants import FAMILIES

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [*sorted(ROOT.glob("*.md")), *DOCS]
READMES = [ROOT / "README.md", ROOT / "README_CN.md"]
MODELS = ROOT / "docs" / "models.md"
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@pytest.mark.parametrize("page", READMES, ids=lambda page: page.name)
@pytest.mark.parametrize("name", POOLFORMERS)
def test_the_model_table_is_the_table_of_variants(page: Path, name: str) -> None:
    variant = VARIANTS[name]
    row = (
        f"| {name} | {variant.parameters:,} | {variant.gmacs:.2f} G | "
        f"{variant.published_top1} % | {variant.drop_path_rate} | {variant.crop_pct:.2f} |"
    )
    assert row in page.read_text()


@pytest.mark.parametrize("family", [f for f, parts in FAMILIES.items() if not parts.hybrid])
def test_the_families_are_those_of_the_table(family: str) -> None:
    cells = []
    for name, variant in VARIANTS.items():
        if variant.family == family and name.count("_") == 1:
            larger = VARIANTS.get(f"{name}_384")
            at_384 = f" ({larger.published_top1})" if larger else ""
            cells.append(f"{name.partition('_')[2]} {variant.published_top1}{at_384}")
    assert f"| {family} | {mixers_of(family)} | {', '.join(cells)} |" in MODELS.read_text()


@pytest.mark.parametrize(
    "name", [n for n, v in VARIANTS.items() if v.family and not v.is_metaformer]
)
def test_the_hybrids_are_those_of_the_table(name: str) -> None:
    variant = VARIANTS[name]
    row = (
        f"| {name} | {mixers_of(variant.family)} | {variant.parameters:,} | "
        f"{variant.gmacs:.1f} G | {variant.published_top1} % |"
    )
    assert row in MODELS.read_text()


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


def test_the_keys_that_are_not_taken_are_those_of_the_table() -> None:
    keys = {field.name for part in get_type_hints(Recipe).values() for field in fields(part)}
    rows = rows_below("| MindCV's key | take instead |")
    assert len(rows) == 2
    for theirs, ours in rows:
        assert not keys & set(re.findall(r"`(\w+)`", theirs))
        assert set(re.findall(r"`(\w+)[`:]", ours)) <= keys


def test_the_values_that_are_not_taken_are_those_of_the_table() -> None:
    rows = rows_below("| MindCV's value | taken |")
    for row, _ in rows:
        for part in row.split(", `"):
            key, *values = re.findall(r"[\w.]+", part)
            for value in [value for value in values if value not in ("and", "others")]:
                with pytest.raises(
                    RecipeError, match=f"^{key}: found .*{value}|^{key}: found None"
                ):
                    recipe_of(f"--{key}", value)


def test_the_values_that_are_taken_are_those_of_the_table() -> None:
    for theirs, ours in rows_below("| MindCV's value | taken |")[:4]:
        key = re.findall(r"\w+", theirs)[0]
        for value in ours.split(", "):
            recipe_of(f"--{key}", value)


def test_every_flag_of_the_tables_is_a_key() -> None:
    keys = {field.name for part in get_type_hints(Recipe).values() for field in fields(part)}
    text = (ROOT / "docs" / "coming_from.md").read_text()
    ours = [row.split("|")[2] for row in text.splitlines() if row.startswith("| ")]
    flags = set(re.findall(r"--(\w+)", " ".join(ours)))
    assert len(flags) > 15
    assert flags <= keys


def recipe_of(*flags: str) -> Recipe:
    recipe = str(ROOT / "configs" / "poolformer_s12_digits.yaml")
    return parse_recipe(flags, description="", default_config=recipe)


def rows_below(head: str) -> list[tuple[str, str]]:
    """The two cells of each row of a table of docs/coming_from.md."""
    text = (ROOT / "docs" / "coming_from.md").read_text()
    rows = text.partition(head + "\n|---|---|\n")[2].partition("\n\n")[0].splitlines()
    cells = [row.strip("| ").split(" | ") for row in rows]
    return [(first, second) for first, second in cells]


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
