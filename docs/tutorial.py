"""Runs docs/tutorial.ipynb: `docs/refresh.py` writes what comes out of it, a test compares."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).with_name("tutorial.ipynb")
TIMEOUT_S = 600


def executed(folder: Path) -> nbformat.NotebookNode:
    """The notebook as it comes out when it is run now, in a folder of its own.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=TIMEOUT_S,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        coalesce_streams=True,
    )
    root = str(NOTEBOOK.resolve().parents[1])
    quiet = {"PYTHONWARNINGS": "ignore:IProgress not found"}  # bars are plain text without ipywidgets
    client.execute(env={**os.environ, **quiet, "PYTHONPATH": root, "ROMEXP_CACHE": str(folder / "cache")})
    return notebook


def write(notebook: nbformat.NotebookNode) -> None:
    """Keep the notebook with what came out of it."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.metadata = {}
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    nbformat.write(notebook, NOTEBOOK)
