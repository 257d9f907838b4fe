"""Weights & Biases without waiting: offline where there is no key or no network."""

from __future__ import annotations

import logging
import netrc
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

_log = logging.getLogger(__name__)
_VARIABLES = {"project": "WANDB_PROJECT", "name": "WANDB_NAME", "group": "WANDB_RUN_GROUP", "tags": "WANDB_TAGS"}


def prepare_wandb(loggers: Any, output: str, tags: Sequence[str] = ()) -> None:
    """Set the mode, the folder and the names of the `WandbLogger` of a parsed config, if it has one.

    What W&B's own variables (``WANDB_MODE``, ``WANDB_DIR``, ``WANDB_PROJECT``, ``WANDB_RUN_GROUP``, ``WANDB_TAGS``,
    ``WANDB_NAME``) or the config say is left alone. Runs made offline are uploaded later by ``wandb sync``.

    Args:
        loggers: ``trainer.logger`` of the config.
        output: run folder; the run is named after it.
        tags: the experiment, which the run is grouped by, and its configs on top.
    """
    configs = [config for config in (loggers if isinstance(loggers, list) else [loggers]) if _is_wandb(config)]
    for config in configs:
        config.init_args.save_dir = os.environ.get("WANDB_DIR", output)
        names = {"project": "zsvss", "name": Path(output).name, "group": tags[0] if tags else None, "tags": list(tags)}
        for key, value in names.items():
            if not config.init_args.get(key) and _VARIABLES[key] not in os.environ:
                config.init_args[key] = value
    if configs and "WANDB_MODE" not in os.environ:
        reason = _why_offline()
        os.environ["WANDB_MODE"] = "offline" if reason else "online"
        if reason:
            folder = os.environ.get("WANDB_DIR", output)
            _log.info("W&B runs offline (%s); upload later with `wandb sync %s/wandb/offline-*`", reason, folder)


def _is_wandb(config: Any) -> bool:
    return str(getattr(config, "class_path", "")).endswith(".WandbLogger")


def _why_offline() -> str | None:
    url = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai"))
    if not _logged_in(url.hostname or ""):
        return "no API key"
    try:
        socket.create_connection((url.hostname or "", url.port or 443), timeout=2).close()
    except OSError as error:
        return f"{url.hostname} cannot be reached: {error}"
    return None


def _logged_in(host: str) -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        # Where `wandb login` keeps the key.
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
