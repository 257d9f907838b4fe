"""What is shipped."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_wheel_holds_configs_and_weights(wheel_names: set[str]) -> None:
    configs = {f"zsvss/configs/{path.relative_to(ROOT / 'configs')}" for path in (ROOT / "configs").rglob("*.yaml")}
    assert len(configs) > 5
    assert configs <= wheel_names
    embedded = ROOT / "zsvss" / "backbones" / "embedded"
    weights = {f"zsvss/backbones/embedded/{path.relative_to(embedded)}" for path in embedded.rglob("*.safetensors")}
    assert {name.split("/")[-2] for name in weights} >= {"unet", "vae"}
    assert weights <= wheel_names
    assert {"zsvss/py.typed", "zsvss/stages/newcomers.npz"} <= wheel_names
    pages = (ROOT / "zsvss" / "viz" / "templates", ROOT / "zsvss" / "studio" / "page")
    templates = [path for page in pages for path in page.rglob("*") if path.is_file()]
    assert {path.suffix for path in templates} == {".html", ".css", ".js"}
    assert {str(path.relative_to(ROOT)) for path in templates} <= wheel_names


def test_wheel_holds_nothing_else(wheel_names: set[str]) -> None:
    assert {name.split("/")[0] for name in wheel_names if ".dist-info" not in name} == {"zsvss"}


def test_public_names_are_found_and_nothing_else_is_imported() -> None:
    check = (
        "import sys, zsvss; assert 'torch' not in sys.modules; "
        "assert all(getattr(zsvss, name).__name__ == name for name in zsvss.__all__); "
        "assert not hasattr(zsvss, 'Nothing')"
    )
    subprocess.run([sys.executable, "-c", check], check=True)


def test_every_dependency_is_pinned() -> None:
    tomllib = pytest.importorskip("tomllib", reason="reading pyproject.toml needs Python 3.11")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    names = {name.split(";")[0].split(">")[0].split("[")[0].strip().lower() for name in wanted}
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    assert names <= pinned


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_opens_with_what_it_is(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    assert first.startswith("# ")
    assert len(first) > 20


def test_imports_run_one_way() -> None:
    """The contracts in ``pyproject.toml``."""
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout
