"""Checkpoints of a pretraining run."""

from pathlib import Path

# Written last into a checkpoint, so that one without it was cut short.
AVERAGE_FILE = "average.safetensors"


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint of a run, or None."""
    whole = [path.parent for path in folder.glob(f"checkpoint-*/{AVERAGE_FILE}")]
    return max(whole, key=lambda path: int(path.name.split("-")[1]), default=None)
