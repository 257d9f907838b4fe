"""What is told before PyTorch is imported: help, and what is plainly wrong; held together with the real parser."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonargparse
import pytest

from zsvss.commands import before_torch, options, usage
from zsvss.commands.config_files import PACKAGED_CONFIGS
from zsvss.commands.early_checks import look, take_apart
from zsvss.commands.lightning import CommandLine, slots
from zsvss.commands.parser_messages import subclass_names
from zsvss.commands.sweep import grid, read_sweep
from zsvss.run import COMMANDS, main

Mistake = Callable[..., str]
CONFIGS = sorted(path.relative_to(PACKAGED_CONFIGS) for path in PACKAGED_CONFIGS.glob("*.yaml"))
ON_TOP = sorted(path.relative_to(PACKAGED_CONFIGS) for path in PACKAGED_CONFIGS.glob("[ab]*/*.yaml"))


@pytest.fixture
def mistake(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Mistake:
    """Run a command line that must fail; returns what it said, in one line."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "video.mp4").touch()

    def told(*arguments: str) -> str:
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code in (1, 2)
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        return line

    return told


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("predcit video.mp4", "unknown command predcit. Did you mean predict?"),
        ("tset", "unknown command tset. Did you mean test?"),
        ("--config demo.yaml", "--config: the command comes first, such as zsvss test --config ... Known: predict, "),
        ("test --config dmeo", "config 'dmeo' was not found in ., "),
        ("test --config dmeo", "Did you mean demo.yaml?"),
        ("test demo.yaml", "unexpected 'demo.yaml': a config is given by --config demo.yaml"),
        ("test video.mp4", "unexpected 'video.mp4': test takes options alone, such as --data.input video.mp4"),
        (
            "test --config demo --model.num_clusters 8",
            "unknown option --model.num_clusters. Did you mean --model.context",
        ),
        (
            "test --config demo --model.num_clusters=8",
            "unknown option --model.num_clusters. Did you mean --model.context",
        ),
        ("predict --input video.mp4", "unknown option --input. Did you mean --data.input?"),
        ("test --config demo --precision 16-true", "unknown option --precision. Did you mean --trainer.precision?"),
        ("test --config demo --oputput x", "unknown option --oputput. Did you mean --output?"),
        ("test --config demo --zzzz x", "unknown option --zzzz. `--help all` lists all options"),
        ("test --config demo --output", "--output needs a value; found the end of the command"),
        ("test --config demo --output --model.seed 3", "--output needs a value; found --model.seed"),
        (
            "test --config demo --model.context.num_cluster 8",
            "model.context: KNNSceneContext has no option 'num_cluster'",
        ),
        (
            "test --config demo --model.backbone Embeded",
            "model.backbone: there is no class Embeded. Did you mean Embed",
        ),
        (
            "test --config demo --model.refinement.features AttentionFeature",
            "there is no class AttentionFeature. Did you",
        ),
        ("test --config demo --model.refinement.features.blok 3", "unknown option --model.refinement.features.blok."),
        ("predict", "data.input is missing: name a video file or a folder, such as `zsvss predict --data.input video"),
        ("predict nowhere.mp4", "nowhere.mp4 not found; data.input must be a video file, a folder of numbered images"),
        (
            "predict video.mp4 swan.mp4",
            "predict takes one video or folder; found 2: video.mp4, swan.mp4. Give a folder",
        ),
        (
            "predict --data.input video.mp4 --data.input swan",
            "data.input is given 2 times (video.mp4, swan); allowed is",
        ),
        ("predict video.mp4 --data.input swan", "data.input is given 2 times (swan, video.mp4); allowed is one"),
        ("predict --help traner", "there are no options of 'traner'. Did you mean trainer?"),
        (
            "report --per-clas runs",
            "zsvss report: unknown option --per-clas. Did you mean --per-class? `zsvss report --h",
        ),
        (
            "bench --modse exact",
            "zsvss bench: unknown option --modse. Did you mean --modes? `zsvss bench --help` lists ",
        ),
        (
            "sweep --sweep x",
            "zsvss sweep: the following arguments are required: --config `zsvss sweep --help` lists all",
        ),
    ],
)
def test_mistakes(mistake: Mistake, command: str, message: str) -> None:
    assert message in mistake(*command.split())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("modell: {seed: 1}", "own.yaml: unknown key 'modell.seed'. Did you mean model.seed?"),
        (
            "model: {num_clusters: 3}",
            "own.yaml: unknown key 'model.num_clusters'. Did you mean model.context.num_clusters?",
        ),
        ("data: {class_path: CamVd}", "own.yaml: data: there is no class CamVd. Did you mean CamVid?"),
        (
            "data: {class_path: CamVid, init_args: {rot: x}}",
            "own.yaml: data: CamVid has no option 'rot'. Did you mean ro",
        ),
        ("[1, 2]", "own.yaml holds list '[1, 2]'; allowed are keys such as model:"),
        ("model: {a: [}", "own.yaml, line 1, column 13 is not YAML"),
    ],
)
def test_mistakes_in_configs(mistake: Mistake, tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "own.yaml").write_text(content)
    assert message in mistake("test", "--config", "own.yaml")


@pytest.mark.parametrize("arguments", [["--data.input", ""], ["--data.input="], [""]])
def test_an_empty_path_is_not_the_current_folder(mistake: Mistake, arguments: list[str]) -> None:
    assert "--data.input is empty; give a video file or a folder" in mistake("predict", *arguments)


def test_an_empty_path_in_a_config(mistake: Mistake, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text('data: {class_path: VideoFolder, init_args: {input: ""}}')
    expected = "own.yaml: data.input is empty; give a video file or a folder"
    assert expected in mistake("predict", "--config", "predict_embedded.yaml", "--config", "own.yaml")


# What is right is let through.


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_shipped_configs(config: Path) -> None:
    more = ["--data.input", __file__] if config.stem.startswith("predict") else []
    base = ["--config", "demo"] if config.stem in ("fast", "fit_16gb", "paper") else []
    look("test", take_apart([*base, "--config", str(config), *more]))


def test_configs_on_top_and_sweeps() -> None:
    for path in ON_TOP:
        look("test", take_apart(["--config", "camvid_sd", "--config", str(path)]))
    for path in (PACKAGED_CONFIGS / "sweeps").glob("*.yaml"):
        for _, arguments in grid(read_sweep(path)["parameters"]):
            look("test", take_apart(["--config", "camvid_sd", *arguments]))


@pytest.mark.parametrize(
    "arguments",
    [
        "--model.refinement null",
        "--model.modulation.strength=-3",
        "--model.refinement.max_displacement -1",
        "--model.backbone.init_args.weights folder",
        '--model.refinement {"class_path":"CorrespondenceRefinement","init_args":{"features":{"block":7}}}',
        "--model.backbone mine.OwnBackbone --model.backbone.anything 3",
        "--data mine.OwnData --data.disk 3",
        "--trainer.logger WandbLogger --trainer.logger.project x --trainer.callbacks+ Timer",
        "--trainer.strategy.find_unused_parameters false",
        "--model.windows+ 3 --media.videos+ swan",
        "--data.help CamVid",
        "--model.backbone.help",
        "--print_config",
        "--print_config=skip_default",
        "--seed_everything 3",
        "-c fast",
    ],
)
def test_what_it_cannot_judge_is_left_to_the_parser(arguments: str) -> None:
    words = take_apart(["--config", "demo", *arguments.split()])
    look("test", words)
    assert take_apart(words.arguments()) == words


# The sources say what the parser says.


class _BuiltError(Exception):
    pass


@pytest.fixture(scope="module")
def real() -> dict[str, set[str]]:
    """The options of the parser that runs each command, without classes' own."""

    class Parsers(CommandLine):
        def parse_arguments(self, parser: Any, args: Any) -> None:
            raise _BuiltError(parser)

    with pytest.raises(_BuiltError) as built:
        Parsers(["test"])
    subparsers = built.value.args[0]._subcommands_action.choices
    return {name: set(parser._option_string_actions) for name, parser in subparsers.items()}


@pytest.mark.parametrize("command", ["test", "predict"])
def test_options_are_those_of_the_parser(command: str, real: dict[str, set[str]]) -> None:
    groups = {"--help", *(f"--{name}" for name in options.groups())}
    known = {option.removesuffix("+") for option in real[command] if option.startswith("--")}
    assert {option for option in known - groups if not option.endswith(".help")} == {
        f"--{key}" for key in options.fixed_options()
    }
    for option in known - {"--help", "--config"}:
        look(command, take_apart(["--config", "demo", option, *([] if option.endswith(".help") else ["{}"])]))


def test_classes_and_their_options_are_those_of_the_parser(parsing_quietly: None) -> None:
    bases = {key: base for key, base in slots().items() if base.__module__.startswith("zsvss.")}
    assert {key: base.__name__ for key, base in bases.items()} == dict(options.slots())
    packages = tuple(f"zsvss.{package}." for package in options.COMPONENTS)
    for key, base in bases.items():
        names = options.subclasses(options.slots()[key])
        ours = [cls for cls in _subclasses(base) if cls.__module__.startswith(packages)]
        assert names == sorted({cls.__name__ for cls in ours} & set(subclass_names(base)))
        for cls in {cls.__name__: cls for cls in ours if cls.__name__ in names}.values():
            parser = jsonargparse.ArgumentParser()
            parser.add_class_arguments(cls, "x")
            taken = set(vars(parser.get_defaults().get("x", jsonargparse.Namespace())))
            assert taken == set(options.parameters(cls.__name__)), cls


def _subclasses(base: type) -> list[type]:
    return [base, *(cls for sub in base.__subclasses__() for cls in _subclasses(sub))]


# Help


def test_help_names_every_command_in_own_words(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--help"], ["-h"]):
        assert main(arguments) == 0
        said = capsys.readouterr().out
        assert all(f"\n  {name} " in said and command.says in said for name, command in COMMANDS.items())


@pytest.mark.parametrize("command", list(usage.USAGES))
def test_help_begins_with_what_matters(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    said = capsys.readouterr().out
    assert "--data.input" in said
    assert len(said.splitlines()) < 55
    for line, _ in usage.USAGES[command].examples:
        assert line in said
        words = take_apart(line.split()[2:])
        for name, _ in words.given:
            assert name.removeprefix("--") in options.fixed_options() | options.component_options({})
    assert "--model.context.num_clusters K" in said
    assert "[20]" in said


def test_all_options_on_request(capsys: pytest.CaptureFixture[str], real: dict[str, set[str]]) -> None:
    assert main(["predict", "--help", "all"]) == 0
    listed = {line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  --")}
    assert {f"--{key}" for key in options.fixed_options()} <= listed
    assert "--model.modulation.strength" in listed
    assert main(["test", "--help", "trainer"]) == 0
    lines = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  --")]
    assert len(lines) > 40
    assert all(line.startswith("--trainer.") for line in lines)


def test_help_is_cut_short_in_silence() -> None:
    line = f"{sys.executable} -m zsvss.run predict --help all | head -n 1"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("  --config")
    assert done.stderr == ""


def test_nothing_heavy_is_imported() -> None:
    code = """
import sys, time
from zsvss.run import main
for line in ("", "predict --help", "test --help all", "report --help", "sweep --help", "bench --help", "predcit x",
             "test --config dmeo", "test --config demo --model.num_clusters 3", "predict nowhere.mp4", "bench --x"):
    start = time.process_time()
    try:
        main(line.split())
    except SystemExit:
        pass
    assert not {"torch", "lightning", "jsonargparse"} & set(sys.modules), line
    assert time.process_time() - start < 1.5, line
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("name", ["0001", "12:30", "no", "1_000", "a: b"])
def test_a_path_is_text_whatever_it_looks_like(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    look("predict", take_apart(["--data.input", name, "--config", "predict_embedded.yaml"]))


@pytest.mark.parametrize("was_enabled", [True, False])
def test_garbage_is_collected_as_before_after_an_import_that_fails(
    was_enabled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_module.py").write_text("import gc\nassert not gc.isenabled()\n1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = gc.isenabled()
    (gc.enable if was_enabled else gc.disable)()
    try:
        with pytest.raises(ZeroDivisionError):
            before_torch._imported("broken_module")
        assert gc.isenabled() == was_enabled
    finally:
        (gc.enable if before else gc.disable)()


def test_configs_come_first_in_their_order() -> None:
    words = take_apart(["--data.input", "b", "--config=one", "--model.padding", "3", "-c", "two", "--config", "three"])
    expected = ["--config", "one", "-c", "two", "--config", "three", "--data.input", "b", "--model.padding", "3"]
    assert words.with_configs_first().arguments() == expected
