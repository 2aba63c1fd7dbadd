"""`romexp demo` (`task=demo`): serves the demo's page until it is interrupted."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import romexp
from romexp.api.models import LoadedModel
from romexp.cli.job import Job, Outcome
from romexp.compose import first_model
from romexp.errors import ConfigError
from romexp.lm.model import PretrainedModel

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Serve a page on which visitors edit a model, each their own.

    Attributes:
        model: the model that is chosen at first. SmolLM2 where it is set up, and minifact, can be chosen too.
        host: the address to which the server is bound; 127.0.0.1 is seen by this machine alone.
        port: the port.
    """

    model: PretrainedModel
    host: str = "127.0.0.1"
    port: int = 7860

    def __post_init__(self) -> None:
        if not 0 < self.port < 65536:
            raise ConfigError(f"task.port: expected 1 to 65535, not {self.port}")

    def __call__(self, job: Job) -> Outcome:
        """Serve the page.

        Raises:
            ConfigError: Gradio is not installed, or the port is taken.
        """
        if find_spec("gradio") is None:
            raise ConfigError("task=demo needs Gradio: pip install 'romexp[demo]'")
        _refuse_taken(self.host, self.port)
        from romexp.demo.page import build, theme
        from romexp.demo.workbench import Workbench

        option = job.choices["model"]
        own = option if option != "hf" else self.model.name or str(self.model.path)
        with TemporaryDirectory(prefix="romexp_demo_") as exports:
            page = build(Workbench(loaders=self._loaders(own, option), folder=Path(exports)), first=own)
            log.info("the demo is at http://%s:%d (Ctrl-C ends it)", self.host, self.port)
            page.queue(default_concurrency_limit=1).launch(
                server_name=self.host, server_port=self.port, share=False, quiet=True, show_error=False, theme=theme()
            )
        return Outcome()

    def _loaders(self, own: str, option: str) -> dict[str, Callable[[], LoadedModel]]:
        def loader(source: str) -> Callable[[], LoadedModel]:
            own = self.model
            return lambda: romexp.load(
                source, dtype=own.dtype, matmul_precision=own.matmul_precision, device=own.device
            )

        loaders = {own: loader(option if option != "hf" else str(self.model.path))}
        for name in (first_model(), "minifact"):
            loaders.setdefault(name, loader(name))
        return loaders


def _refuse_taken(host: str, port: int) -> None:
    """Refuse a port that another program holds, before models are loaded.

    Raises:
        ConfigError: it is taken, or the address is none of this machine.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(f"task.host, task.port: {host}:{port} cannot be used ({error.strerror})") from error
