"""Convert a checkpoint, load it as a user does, and show what the model says about real RNAs.

    python scripts/demo.py                          the small checkpoint of this repository
    python scripts/demo.py ERNIE-RNA_pretrain.pt    the released one

Loading goes by the Auto classes with `trust_remote_code` and the default settings, and fails the
demo if anything warns. The small checkpoint has random weights: its numbers show that the model
computes what the authors' code does, and nothing about RNA.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden"
CHECKPOINT = GOLDEN / "tiny_fairseq_cfg.pt"
CONVERT = ROOT / "scripts" / "convert_fairseq_checkpoint.py"

# Of tests/golden/sequences.json, with what they are.
RNAS = {
    "trna_arg": "arginine tRNA",
    "rrna_5s": "5S ribosomal RNA",
    "readme_1": "AUGC three times",
    "readme_2": "hairpin of G and C",
}
MASKED = "AUG<mask>AUG"
_PROGRESS = re.compile(r"\d+%\|")


class DemoError(RuntimeError):
    """The demo did not go as it should; the message says what happened."""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "checkpoint",
        nargs="?",
        type=Path,
        default=CHECKPOINT,
        metavar="CHECKPOINT",
        help="what convert_fairseq_checkpoint.py reads (default: %(default)s)",
    )
    parser.add_argument(
        "--out-dir",
        type=Path,
        metavar="DIR",
        help="where the converted folder goes (default: build/demo/NAME)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    checkpoint = arguments.checkpoint
    # transformers 4.x cannot load code from a folder with a dot in its name.
    folder = arguments.out_dir or ROOT / "build" / "demo" / checkpoint.stem.replace(".", "_")
    start = time.monotonic()
    try:
        step("Convert", f"{checkpoint.name} into {folder}")
        convert(checkpoint, folder)
        step("Load", "AutoTokenizer, AutoModel, AutoModelForMaskedLM (trust_remote_code=True)")
        tokenizer, model, masked_lm = load(folder)
        step("Embed", "mean over the nucleotides of last_hidden_state")
        embed(tokenizer, model)
        step("Fill a mask", MASKED)
        fill_mask(tokenizer, masked_lm)
        step("Compare", "in float32 on the CPU")
        good = compare(folder)
    except DemoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"\nDone in {time.monotonic() - start:.0f} s. The converted folder: {folder}")
    return 0 if good else 1


def step(title: str, what: str) -> None:
    print(f"\n=== {title}: {what}\n", flush=True)


def convert(checkpoint: Path, folder: Path) -> None:
    """Run the conversion in a process of its own: this one stays as a user's is."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(CONVERT), str(checkpoint), str(folder), "--force"]
    with subprocess.Popen(command) as process:
        import_libraries()  # takes seconds, in which the other process works
    if process.returncode:
        raise DemoError("the checkpoint was not converted")


def import_libraries() -> None:
    import torch  # noqa: F401
    import transformers

    transformers.logging.disable_progress_bar()
    # Looked up when first used.
    _ = transformers.AutoModel, transformers.AutoModelForMaskedLM, transformers.AutoTokenizer


def load(folder: Path) -> tuple[Any, Any, Any]:
    """What a user loads; raise DemoError if a line is said about it."""
    from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

    with heard() as said:
        tokenizer, model, masked_lm = (
            auto_class.from_pretrained(folder, trust_remote_code=True)
            for auto_class in (AutoTokenizer, AutoModel, AutoModelForMaskedLM)
        )
    if said:
        raise DemoError("loading was not silent:\n  " + "\n  ".join(said))
    for loaded in (tokenizer, model, masked_lm):
        print(f"{type(loaded).__name__:<22} from {type(loaded).__module__.split('.')[0]}")
    print(f"{model.num_parameters():,} parameters, {model.dtype}, no warnings")
    return tokenizer, model, masked_lm


@contextlib.contextmanager
def heard() -> Iterator[list[str]]:
    """Collect warnings, what transformers logs from "warning" on, and the error stream."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    loggers = [logging.getLogger(name) for name in ("transformers", "transformers_modules")]
    stream = io.StringIO()
    with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stderr(stream):
        warnings.simplefilter("always")
        for logger in loggers:
            logger.addHandler(handler)
        try:
            yield said
        finally:
            for logger in loggers:
                logger.removeHandler(handler)
    said += [f"{warning.category.__name__}: {warning.message}" for warning in caught]
    lines = stream.getvalue().replace("\r", "\n").splitlines()
    said += [line for line in lines if line.strip() and not _PROGRESS.search(line)]


def read_rnas() -> dict[str, str]:
    sequences: Mapping[str, str] = json.loads(
        (GOLDEN / "sequences.json").read_text(encoding="utf-8")
    )["sequences"]
    return {name: sequences[name] for name in RNAS}


def embed(tokenizer: Any, model: Any) -> None:
    """Print shapes, and the cosine similarity of every two RNAs."""
    import torch

    rnas = read_rnas()
    batch = tokenizer(
        list(rnas.values()), padding=True, return_tensors="pt", return_special_tokens_mask=True
    )
    nucleotides = batch.pop("special_tokens_mask") == 0
    with torch.no_grad():
        hidden_states = model(**batch).last_hidden_state  # (batch, seq, hidden)
    weights = nucleotides[..., None].to(hidden_states.dtype)
    vectors = (hidden_states * weights).sum(dim=1) / weights.sum(dim=1)  # (batch, hidden)
    similarity = torch.nn.functional.cosine_similarity(vectors[:, None], vectors[None], dim=-1)
    print(f"last_hidden_state {tuple(hidden_states.shape)}, vectors {tuple(vectors.shape)}\n")
    print_similarity(rnas, similarity)


def print_similarity(rnas: Mapping[str, str], similarity: torch.Tensor) -> None:
    print(f"{'':<33}{'cosine similarity with':>23}")
    print(f"{'':<33}" + "".join(f"{name:>10}" for name in rnas))
    for (name, sequence), row in zip(rnas.items(), similarity.tolist(), strict=True):
        cells = "".join(f"{value:>10.3f}" for value in row)
        print(f"{name:<9} {RNAS[name]:<18} {len(sequence):>4}{cells}")


def fill_mask(tokenizer: Any, masked_lm: Any) -> None:
    """Print the five likeliest tokens for the mask."""
    import torch

    batch = tokenizer(MASKED, return_tensors="pt")
    (place,) = (batch.input_ids[0] == tokenizer.mask_token_id).nonzero()[:, 0].tolist()
    with torch.no_grad():
        likelihoods = masked_lm(**batch).logits[0, place].softmax(dim=-1)  # (vocab,)
    values, ids = likelihoods.topk(5)
    for token, value in zip(tokenizer.convert_ids_to_tokens(ids.tolist()), values, strict=True):
        print(f"{token:<16} {value:6.1%}  {'#' * round(40 * value.item())}")


def compare(folder: Path) -> bool:
    """Compare with the authors' values if they are this checkpoint's, else with float64."""
    # From here on the library is needed; loading was to do without it.
    from ernie_rna.inference.loading import use_threads
    from ernie_rna.parity.differences import compare_with_golden, measure_rounding
    from ernie_rna.parity.golden import GOLDEN_THREADS
    from ernie_rna.parity.models import Models, belongs_to
    from ernie_rna.parity.table import format_parity, format_rounding

    with use_threads(GOLDEN_THREADS):
        models = Models(folder)
        if not belongs_to(folder, CHECKPOINT):
            print(format_rounding(measure_rounding(models, samples(models))))
            print(HOW_TO_VERIFY.format(folder=folder))
            return True
        differences = compare_with_golden(models, GOLDEN / "tiny_expected.safetensors")
    print(format_parity(differences))
    print("\nThis checkpoint has random weights: nothing above says anything about RNA.")
    return not any(difference.missed for difference in differences)


HOW_TO_VERIFY = """
The golden values of this repository belong to another checkpoint. For the released one, compare
with what its authors published:

    python scripts/verify_parity.py {folder} --cls-embedding cls_embedding.npy

where cls_embedding.npy is results/ernie_rna_representations/test_seqs/cls_embedding.npy of
github.com/Bruce-ywj/ERNIE-RNA."""


def samples(models: Any) -> list[Any]:
    import torch

    from ernie_rna.parity.golden import Sample

    return [
        Sample(name, torch.tensor(models.tokenizer(sequence).input_ids))
        for name, sequence in read_rnas().items()
    ]


if __name__ == "__main__":
    sys.exit(main())
