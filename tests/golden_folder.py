"""Convert the authors' small checkpoints, from which the golden values were computed."""

from pathlib import Path

from ernie_rna.conversion.checkpoint import read_checkpoint
from ernie_rna.conversion.folder import write_folder
from ernie_rna.conversion.weights import convert_weights

GOLDEN = Path(__file__).parent / "golden"
CHECKPOINT = GOLDEN / "tiny_fairseq_cfg.pt"


def head_checkpoint(task: str) -> Path:
    """The authors' small fine-tuned checkpoint for a task, such as "secondary_structure"."""
    return GOLDEN / f"tiny_{task}_head.pt"


def write_golden_folder(folder: Path, checkpoint: Path = CHECKPOINT) -> Path:
    """Convert a checkpoint without the check in a fresh process, which would take seconds."""
    write_folder(convert_weights(read_checkpoint(checkpoint)), folder)
    return folder
