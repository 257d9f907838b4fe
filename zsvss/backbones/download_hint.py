"""The download hint: what a user is told of weights that are not on this machine, and how to fetch them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence


def download_hint(
    name: str,
    revision: str | None,
    missing_file: str,
    *,
    reason: str,
    folder: str,
    files: Sequence[str],
    files_without_variant: Sequence[str],
) -> str:
    """Where the weights of a hub repository are, which command fetches them, and what needs no download.

    Args:
        name: id ``owner/name``.
        revision: branch, tag or commit; ``None`` is ``main``.
        missing_file: path in the repository of the file that was looked for.
        reason: why it could not be fetched.
        folder: why the name is no folder of this machine.
        files: paths in the repository of everything that is read.
        files_without_variant: those of parts that may lack the variant.

    Returns:
        Several lines for a terminal.
    """
    others = files_without_variant
    without_variant = f"  parts without it:  {fetch_command(name, revision, others)}\n" if others else ""
    return (
        f"The weights {described(name, revision)} are not on this machine and could not be fetched ({reason}).\n"
        f"  missing file:      {missing_file}\n"
        f"  as a folder:       {folder}\n"
        f"  licence and files: https://huggingface.co/{name}\n"
        f"  fetch them with:   {fetch_command(name, revision, files)}\n"
        f"{without_variant}"
        "                     (where the page asks to accept a licence, do so and run `hf auth login` first)\n"
        "Or give a local diffusers folder by --model.backbone.weights FOLDER. "
        "The model that ships with the package (--config predict_embedded.yaml, demo.yaml) needs no download."
    )


def fetch_command(name: str, revision: str | None, files: Sequence[str]) -> str:
    """A command of the hub's client that fetches these files of a repository.

    >>> fetch_command("owner/name", None, ["unet/config.json"])
    'hf download owner/name unet/config.json'
    """
    options = [] if revision is None else ["--revision", revision]
    return shlex.join(["hf", "download", name, *files, *options])


def described(name: str, revision: str | None) -> str:
    """A repository, for messages.

    >>> described("owner/name", "main")
    "'owner/name' (revision main)"
    """
    return repr(name) + (f" (revision {revision})" if revision else "")
