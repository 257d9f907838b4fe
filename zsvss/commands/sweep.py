"""``zsvss sweep``: a grid of settings, each cell a test run in a folder of its own; the file is a W&B sweep too.

::

    <sweep folder>/sweep.json           the cells: name, folder, arguments
    <sweep folder>/table.md             their results
    <sweep folder>/jobs/                logs of the workers, where a launcher started them
    <sweep folder>/<cell>-<hash>/       run folder of a cell; the hash is of what decides its numbers
    <sweep folder>/<cell>-<hash>/screen.txt, failed.json   what the cell said, and why it failed
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import os
import re
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from rich.console import Console

from zsvss.commands.config_files import find_config, resolve_configs
from zsvss.commands.interruption import ending_in_order
from zsvss.commands.logs import quiet_console
from zsvss.commands.parser_messages import refusal
from zsvss.commands.refusals import OneLineParser
from zsvss.commands.sweep_cells import Cell, failure, is_finished, last_error, mark_failed, work
from zsvss.commands.sweep_table import describe, markdown_table, problems, result_table
from zsvss.results.atomic_files import write_atomically

# What needs PyTorch is imported where it is used: help and mistakes are told at once.
if TYPE_CHECKING:
    from zsvss.commands.lightning import Rehearsal

INCOMPLETE = 3
"""Exit code if a cell failed or lacks videos."""

_DAY = 60 * 24
_LONGEST_NAME = 150  # file systems allow 255 bytes; the hash tells apart what is cut


def main(arguments: Sequence[str]) -> int:
    """Run the subcommand; returns the exit code."""
    parser = OneLineParser(
        prog="zsvss sweep",
        description="Run each cell of a grid of settings as a test run in a folder of its own, and print the table.\n"
        "The sweep file is a W&B sweep too. Started again, it goes on with the cells that are not finished.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Other options are given to every cell, such as --data.root FOLDER.",
    )
    parser.add_argument("--config", action="append", required=True, help="of every cell; again for a config on top")
    parser.add_argument("--sweep", required=True, help="sweep file, such as sweeps/components.yaml")
    parser.add_argument("--output", type=Path, help="sweep folder (default: runs/<config>-<name of the sweep>)")
    parser.add_argument("--launcher", choices=("local", "slurm"), help="start workers through submitit")
    parser.add_argument("--workers", type=int, default=1, help="how many (default: 1)")
    parser.add_argument(
        "--slurm",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="of each worker's job, as submitit names it: partition=gpu, gpus_per_node=1, timeout_min=600 (a day)",
    )
    options, rest = parser.parse_known_args(arguments)
    if options.workers < 1 or (options.workers > 1 and options.launcher is None):
        parser.error(f"--workers {options.workers}: one or more, and for more than one --launcher local or slurm")
    try:
        return sweep(options, rest)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def sweep(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Run the cells that are not finished and print the table; returns the exit code.

    Raises:
        ValueError: the sweep file cannot be used.
        FileNotFoundError: it, or a config, is not there.
    """
    path = find_config(options.sweep)
    settings = read_sweep(path)
    configs = [str(find_config(config)) for config in options.config]
    base = [*(part for config in configs for part in ("--config", config)), *rest]
    name = str(settings.get("name", path.stem))
    folder: Path = options.output or Path("runs") / f"{Path(configs[0]).stem}-{name}"
    cells, hopeless = rehearsed(settings["parameters"], base, folder)
    refuse_if_none_can_run(path, cells, hopeless)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "sweep.json", json.dumps({"name": name, "cells": listed(cells, folder)}, indent=2) + "\n")
    os.environ.setdefault("WANDB_RUN_GROUP", folder.name)

    start = uuid.uuid4().hex
    for cell in cells:
        if reason := hopeless.get(cell.name):
            mark_failed(cell, start, reason)
    for reason in dict.fromkeys(hopeless.values()):
        names = [name for name, why in hopeless.items() if why == reason]
        print(f"{len(names)} of {len(cells)} cells cannot run ({', '.join(names)}): {reason}", flush=True)
    for number, cell in enumerate(cells, 1):
        if is_finished(cell):
            print(f"[{number}/{len(cells)}] {describe(cell)}", flush=True)
    todo = [cell for cell in cells if cell.name not in hopeless and not is_finished(cell)]
    with ending_in_order(lambda: stopped(cells, folder)):
        if todo and options.launcher is None:
            work(
                todo, start, lambda cell: print(f"[{cells.index(cell) + 1}/{len(cells)}] {describe(cell)}", flush=True)
            )
        elif todo:
            launch(todo, start, folder / "jobs", options.launcher, options.workers, slurm_settings(options.slurm))
    Console().print(result_table(name, cells))
    for line in problems([cell for cell in cells if cell.name not in hopeless]):
        print(line)
    write_atomically(folder / "table.md", markdown_table(cells))
    print(f"table and run folders in {folder}")
    return 0 if all(is_finished(cell) for cell in cells) else INCOMPLETE


def refuse_if_none_can_run(path: Path, cells: Sequence[Cell], hopeless: Mapping[str, str]) -> None:
    """Say a reason that stops every cell once, before anything is written."""
    reasons = set(hopeless.values())
    if len(reasons) == 1 and all(cell.name in hopeless for cell in cells):
        raise ValueError(f"no cell of {path} can run: {reasons.pop()}")


def stopped(cells: Sequence[Cell], folder: Path) -> str:
    """What a sweep that is stopped now leaves, and how to go on, in one sentence."""
    finished = sum(is_finished(cell) for cell in cells)
    return (
        f"stopped: {finished} of {len(cells)} cells finished and kept in {folder}, with every finished video of the "
        "others; the same command goes on with the rest"
    )


# The file


def read_sweep(path: Path) -> dict[str, Any]:
    """Read a W&B sweep file that lists all values of its parameters.

    Raises:
        ValueError: it is no such file.
    """
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {error}") from error
    if not isinstance(settings, dict) or not isinstance(settings.get("parameters"), dict) or not settings["parameters"]:
        raise ValueError(f"{path} has no 'parameters'; see configs/sweeps/components.yaml for a sweep file")
    if settings.get("method") != "grid":
        raise ValueError(
            f"{path}: method is {settings.get('method')!r}; this command runs every cell of a 'grid'. W&B chooses the "
            f"values of other methods: `wandb sweep {path}`, then `wandb agent`"
        )
    for key, parameter in settings["parameters"].items():
        values = parameter.get("values") if isinstance(parameter, dict) else None
        if not (isinstance(parameter, dict) and ("value" in parameter or (isinstance(values, list) and values))):
            raise ValueError(f"{path}: parameters.{key} is {parameter!r}; a grid needs 'values: [...]' or 'value: ...'")
    return settings


def grid(parameters: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Name and arguments of every cell, the last parameter varying fastest.

    >>> seeds = {"model.seed": {"values": [0, 1]}}
    >>> list(grid({"config": {"values": ["ablations/full.yaml"]}, "data.split": {"value": "val"}, **seeds}))
    [('full+seed=0', ['--config=ablations/full.yaml', '--data.split=val', '--model.seed=0']),
     ('full+seed=1', ['--config=ablations/full.yaml', '--data.split=val', '--model.seed=1'])]
    >>> list(grid({"model.modulation": {"value": {"class_path": "Masked", "init_args": {"prior": None}}}}))
    [('run', ['--model.modulation={"class_path": "Masked", "init_args": {"prior": null}}'])]
    """
    choices = [[(key, value) for value in parameter.get("values", [parameter.get("value")])]
               for key, parameter in parameters.items()]  # fmt: skip
    for chosen in itertools.product(*choices):
        parts = [
            Path(str(value)).stem if key == "config" else f"{key.rpartition('.')[2]}={value}"
            for key, value in chosen
            if "values" in parameters[key]
        ]
        arguments = [f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in chosen]
        yield "+".join(parts) or "run", arguments


def rehearsed(parameters: Mapping[str, Any], base: Sequence[str], folder: Path) -> tuple[list[Cell], dict[str, str]]:
    """All cells, and by name why some cannot run, found out by parsing their settings and building their parts.

    A finished cell needs no parts: it is known by its settings alone, also where its data are not at hand.

    Args:
        parameters: of the sweep file.
        base: arguments of every cell.
        folder: of the sweep.
    """
    from zsvss.commands.lightning import Rehearsal, import_components

    quiet_console()
    import_components()
    cells, hopeless = [], {}
    problems_of_data: dict[str, str] = {}
    for name, own in grid(parameters):
        arguments, said = [*base, *own], io.StringIO()
        short = re.sub(r"[^A-Za-z0-9_.=+-]", "_", name)[:_LONGEST_NAME]
        cell = Cell(name, folder / f"{short}-failed", tuple(arguments))
        try:
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
                rehearsal = Rehearsal(resolve_configs(["test", *arguments]))
                cell = cell._replace(folder=folder / f"{short}-{rehearsal.digest}")
                if not is_finished(cell):
                    refuse_missing_data(rehearsal.build(), problems_of_data)
        except (Exception, SystemExit) as error:  # whatever is wrong with a cell does not stop the others
            reason = last_error(said.getvalue()) if isinstance(error, SystemExit) else refusal(str(error))
            hopeless[name] = " ".join(reason.split())
        cells.append(cell)
    twice = {cell.name for cell in cells if sum(other.name == cell.name for other in cells) > 1}
    if twice:
        raise ValueError(f"the sweep has more than one cell named {', '.join(sorted(twice))}; list each value once")
    return cells, hopeless


def refuse_missing_data(rehearsal: Rehearsal, known: dict[str, str]) -> None:
    """Look for a cell's data, once for all cells that have the same.

    Args:
        rehearsal: of the cell.
        known: what is wrong with the data of other cells, "" where nothing is, by their settings.

    Raises:
        ValueError: they are missing or cannot be used.
    """
    settings = json.dumps(rehearsal.data_settings, sort_keys=True, default=str)
    if settings not in known:
        try:
            rehearsal.datamodule.prepare_data()
            known[settings] = ""
        except (ValueError, OSError) as error:
            known[settings] = str(error)
    if known[settings]:
        raise ValueError(known[settings])


def listed(cells: Sequence[Cell], folder: Path) -> list[dict[str, Any]]:
    """The cells as plain values."""
    return [
        {"name": cell.name, "folder": str(cell.folder.relative_to(folder)), "arguments": cell.arguments}
        for cell in cells
    ]


# Workers


def launch(cells: Sequence[Cell], start: str, logs: Path, launcher: str, workers: int, slurm: dict[str, Any]) -> None:
    """Start workers through submitit and wait for them.

    Raises:
        ValueError: a setting that submitit does not know.
    """
    import submitit
    import torch

    executor = submitit.AutoExecutor(folder=logs, cluster=launcher)
    num_gpus = torch.cuda.device_count() if launcher == "local" else 0
    jobs = []
    for number in range(min(workers, len(cells))):
        # submitit's own limit is minutes. On this machine each worker has a GPU of its own as far as they go.
        limit = _DAY if launcher == "slurm" else 365 * _DAY
        settings: dict[str, Any] = {"timeout_min": limit, "gpus_per_node": int(num_gpus > 0)} | slurm
        if num_gpus:
            settings["local_visible_gpus"] = [number % num_gpus]
        try:
            executor.update_parameters(name="zsvss-sweep", **settings)
        except NameError as error:
            raise ValueError(f"--slurm: {error}") from error
        jobs.append(executor.submit(work, cells, start))
    print(f"{len(jobs)} workers ({', '.join(job.job_id for job in jobs)}); their logs are in {logs}", flush=True)
    try:
        watch(cells, start, jobs)
    except BaseException:
        for job in jobs:
            job.cancel()
        raise


def watch(cells: Sequence[Cell], start: str, jobs: Sequence[Any]) -> None:
    """Tell what ends, until all workers have."""
    told: set[str] = set()
    running = True
    while running:
        time.sleep(0.5)
        running = not all(job.done() for job in jobs)
        for cell in cells:
            if cell.name not in told and (is_finished(cell) or failure(cell).get("start") == start):
                told.add(cell.name)
                print(f"[{len(told)}/{len(cells)}] {describe(cell)}", flush=True)


def slurm_settings(given: Sequence[str]) -> dict[str, Any]:
    """``KEY=VALUE`` as parameters of submitit.

    >>> slurm_settings(["partition=gpu", "gpus_per_node=1"])
    {'slurm_partition': 'gpu', 'gpus_per_node': 1}
    """
    shared = ("timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node", "stderr_to_stdout")
    settings = {}
    for pair in given:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"--slurm {pair}: give KEY=VALUE, such as partition=gpu")
        settings[key if key in shared or key.startswith("slurm_") else f"slurm_{key}"] = yaml.safe_load(value)
    return settings
