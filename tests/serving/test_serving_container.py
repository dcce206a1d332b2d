"""The Dockerfile, step by step without Docker: its image's packages, and its server in them."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scripts import ROOT

pytest.importorskip("tritonclient", reason="needs the extra serving")

# isort: split
from service import MODEL, Service, over_grpc  # noqa: E402

pytestmark = pytest.mark.long

Step = tuple[str, str]
MEGABYTES = 400  # of the packages
RESIDENT = 250  # MB, of the server


@pytest.fixture(scope="module")
def steps() -> list[Step]:
    lines = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    words = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    return [(keyword, rest) for keyword, rest in words]


def last(steps: list[Step], keyword: str) -> str:
    return [rest for found, rest in steps if found == keyword][-1]


@pytest.fixture(scope="module")
def python(steps: list[Step], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What "python" is in the image: COPY and RUN are done beside an environment of its own.

    With the pip that is here: to put one there takes seconds.
    """
    folder = tmp_path_factory.mktemp("image")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    place = folder
    for keyword, rest in steps:
        if keyword == "WORKDIR":
            place = folder / rest.lstrip("/")
            place.mkdir(parents=True, exist_ok=True)
        elif keyword == "COPY":
            *sources, target = shlex.split(rest)
            if sources[0] == "--from=packages":  # the one environment here is both stages'
                assert sources[1:] == [target]
                continue
            for source in sources:
                if (ROOT / source).is_dir():
                    ignored = shutil.ignore_patterns("__pycache__")
                    shutil.copytree(ROOT / source, place / target, ignore=ignored)
                else:
                    shutil.copy(ROOT / source, place / target)
        elif keyword == "RUN":
            assert rest.startswith("python -m pip ")
            words = [*pip_of(python), *shlex.split(rest)[3:]]
            subprocess.run(words, check=True, cwd=place)
    return python


def pip_of(python: Path) -> list[str]:
    return [sys.executable, "-m", "pip", "--python", str(python)]


def test_the_packages_are_few(python: Path) -> None:
    words = [*pip_of(python), "list", "--format", "freeze"]
    listed = subprocess.run(words, capture_output=True, text=True)
    names = {line.partition("==")[0].lower() for line in listed.stdout.splitlines()}
    assert {"mindcv_poolformer", "onnxruntime", "mlserver"} <= names
    assert not {"mindspore", "mindcv", "torch", "opencv-python-headless"} & names
    site = next((python.parents[1] / "lib").glob("python*/site-packages"))
    size = sum(file.stat().st_size for file in site.rglob("*") if file.is_file())
    assert 100e6 < size < MEGABYTES * 1e6


def test_it_serves_a_mounted_bundle_read_only_and_without_root(
    steps: list[Step], python: Path, served: Path, tmp_path: Path
) -> None:
    entry, arguments = eval(last(steps, "ENTRYPOINT")), eval(last(steps, "CMD"))
    health = eval(last(steps, "HEALTHCHECK").partition("CMD ")[2])
    assert (entry[0], health[0], arguments) == ("python", "python", ["/bundle"])
    user, group = last(steps, "USER").split(":")
    assert int(user) and int(group)
    variables = dict(rest.split("=") for keyword, rest in steps if keyword == "ENV")
    command = (str(python), *entry[1:])
    if os.geteuid() == 0:  # which sees its packages where others may not look
        command = (
            *("unshare", "--mount", "sh", "-c", 'mount -o remount,bind,ro / && exec "$@"', "sh"),
            *("setpriv", "--reuid", user, "--regid", group, "--clear-groups"),
            *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
            *command,
        )
    service = Service(served, tmp_path, command=command, variables=variables)
    try:
        service.wait()
        images = np.zeros((2, 3, 32, 32), np.float32)
        answer = service.grpc.infer(MODEL, [over_grpc("images", images, "FP32")])
        assert answer.as_numpy("probabilities").shape == (2, 10)
        told = service.http.get_model_metadata(MODEL)
        assert told["versions"][0].startswith("onnxruntime/")
        assert service.resident() < RESIDENT
        port = service.root.rpartition(":")[2]
        asked, elsewhere = [str(python), *health[1:]], {**os.environ, "MLSERVER_HTTP_PORT": port}
        assert subprocess.run(asked, env=elsewhere).returncode == 0
        assert service.end() == 0
        assert subprocess.run(asked, env=elsewhere, stderr=subprocess.DEVNULL).returncode == 1
    finally:
        service.running.kill()


def test_predict_takes_little_memory(python: Path, served: Path) -> None:
    program = (
        "import re, runpy, sys; sys.argv[1:] = ['--bundle', sys.argv[1], '--self_test']\n"
        f"try: runpy.run_path({str(ROOT / 'predict.py')!r}, run_name='__main__')\n"
        "finally: print(re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1])"
    )
    done = subprocess.run(
        [python, "-c", program, served], cwd=served, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    said, kilobytes = done.stdout.splitlines()
    assert said.startswith("self test at 32 px: ")
    assert int(kilobytes) * 1024 < RESIDENT * 1e6
