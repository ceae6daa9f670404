"""How far the numbers move with threads, oneDNN and the CPU's instructions, against float64.

    python scripts/measure_portability.py
    python scripts/measure_portability.py --settings "1 thread" "ATen default"

Each setting runs in a process of its own, since torch, oneDNN and MKL choose their code when they
are loaded. Two models: the authors' small checkpoint of tests/golden, and one of middle size with
random weights; hidden states of all layers and logits, with eager attention and with sdpa, of five
RNAs in one padded batch. An error is the largest absolute difference from the same weights in
float64 at a real token. The bound is the rule of this repository: twice the error of eager
attention in the reference setting (two threads, all else as torch has it), and 1e-6. "same" bits
are those of the reference. Exit code 1 says that a bound is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers.utils import logging

from ernie_rna import ErnieRnaConfig, ErnieRnaForMaskedLM, load_masked_lm
from ernie_rna.conversion.convert import convert
from ernie_rna.model import layers_ernie_rna
from ernie_rna.run.loading import tokenize
from scripts.measuring import print_table, processor, run_anew

CHECKPOINT = Path(__file__).parents[1] / "tests" / "golden" / "tiny_fairseq_cfg.pt"
MIDDLE: dict[str, Any] = {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536}
ATTENTIONS = ("eager", "sdpa")
OUTPUTS = ("hidden states", "logits")
_VALUES = "values.safetensors"

Values = dict[str, torch.Tensor]  # by "<attention> <output>", (batch, ..., seq, width)


@dataclass(frozen=True)
class Setting:
    """How a process computes.

    Attributes:
        onednn: whether the model's products are oneDNN's; None leaves that to the model, which
            takes them on CPUs with AVX-512.
        environment: variables that are set for it.
    """

    name: str
    threads: int = 2
    onednn: bool | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def needs(self) -> str:
        """What of the CPU it is about, as torch calls it."""
        values = " ".join(self.environment.values()).upper()
        return next((one for one in ("AVX512", "AVX") if one in values), "")


# Variable -> what it is of, its values, and whether the products are oneDNN's.
VARIABLES: dict[str, tuple[str, tuple[str, ...], bool | None]] = {
    "ATEN_CPU_CAPABILITY": ("ATen", ("default", "avx2", "avx512"), None),
    "ONEDNN_MAX_CPU_ISA": ("oneDNN", ("SSE41", "AVX", "AVX2", "AVX512_CORE"), True),
    "MKL_ENABLE_INSTRUCTIONS": ("MKL", ("SSE4_2", "AVX2", "AVX512"), None),
    "MKL_CBWR": ("MKL CBWR", ("COMPATIBLE", "AVX2", "AVX512"), None),
}
REFERENCE = Setting("reference: 2 threads")
SETTINGS = (
    REFERENCE,
    Setting("1 thread", threads=1),
    Setting("4 threads", threads=4),
    *(
        Setting(f"{threads} thread{'s' * (threads > 1)}, {name}", threads, onednn)
        for onednn, name in ((True, "oneDNN"), (False, "no oneDNN"))
        for threads in (1, 2, 4)
    ),
    *(
        Setting(f"{label} {value}", 2, onednn, {variable: value})
        for variable, (label, values, onednn) in VARIABLES.items()
        for value in values
    ),
    Setting(
        "ATen default, MKL CBWR COMPATIBLE",
        environment={"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"},
    ),
)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [setting.name for setting in SETTINGS]
    add = parser.add_argument
    add("--settings", nargs="+", choices=names, metavar="NAME", help="only these (all)")
    add("--checkpoint", type=Path, default=CHECKPOINT, help="of the small model")
    add("--length", type=int, default=400, help="of the longest RNA for the middle model (400)")
    add("--compute", nargs="+", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    add("--onednn", choices=("True", "False", "None"), default="None", help=argparse.SUPPRESS)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    logging.disable_progress_bar()
    if args.compute:
        if args.onednn != "None":
            # The model's own list of what oneDNN multiplies better on this CPU.
            layers_ernie_rna._ONEDNN_DTYPES = (torch.float32,) * (args.onednn == "True")
        for folder in args.compute:
            save_file(compute(folder, torch.float32), folder / _VALUES)
        return 0
    chosen = [s for s in SETTINGS[1:] if not args.settings or s.name in args.settings]
    with tempfile.TemporaryDirectory() as scratch:
        folders = [Path(scratch, "golden"), Path(scratch, "middle")]
        convert(args.checkpoint, folders[0])
        write_random(folders[1])
        for folder, longest in zip(folders, (200, args.length), strict=True):
            write_inputs(folder, min(longest, args.length))
        print(
            f"{processor()}, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"
        )
        return int(measure(folders, list(filter(can_run, chosen))))


def can_run(setting: Setting) -> bool:
    """Whether the CPU has the instructions that the setting is about."""
    found = torch.backends.cpu.get_cpu_capability()
    return setting.needs in {"AVX512": ("", "AVX", "AVX512"), "AVX2": ("", "AVX")}.get(found, "")


def measure(folders: Sequence[Path], settings: Sequence[Setting]) -> bool:
    """Print the errors of the models in folders under each setting; whether a bound is missed."""
    exact = [compute(folder, torch.float64) for folder in folders]
    reference = compute_elsewhere(folders, REFERENCE)
    eager = (errors(*pair, ["eager"]) for pair in zip(reference, exact, strict=True))
    bounds = [[2 * error + 1e-6 for error in each] for each in eager]
    missed = False

    def row(name: str, numbers: Sequence[Sequence[float]], bits: Sequence[str]) -> list[str]:
        models = zip(numbers, bits, strict=True)
        return [name, *(c for each, same in models for c in (*(f"{x:.1e}" for x in each), same))]

    def rows() -> Iterator[list[str]]:
        nonlocal missed
        yield row("bound", bounds, [""] * len(folders))
        for setting in (REFERENCE, *settings):
            found = reference if setting is REFERENCE else compute_elsewhere(folders, setting)
            off = [errors(*pair) for pair in zip(found, exact, strict=True)]
            missed |= not (np.array(off) <= np.array(bounds)).all()  # NaN misses
            alike = [
                all(torch.equal(value, one[key]) for key, value in other.items())
                for other, one in zip(found, reference, strict=True)
            ]
            yield row(setting.name, off, ["same" if one else "other" for one in alike])

    titles = [f"{folder.name}: {what}" for folder in folders for what in (*OUTPUTS, "bits")]
    print_table(["setting", *titles], rows())
    return missed


def errors(found: Values, exact: Values, attentions: Sequence[str] = ATTENTIONS) -> list[float]:
    """The largest absolute difference of each output at the real tokens; NaN if there is one."""
    real = found["mask"].bool()[:, None, :, None]

    def off(key: str) -> torch.Tensor:
        return ((found[key].double() - exact[key]) * real).abs().max()

    return [
        float(torch.stack([off(f"{attention} {output}") for attention in attentions]).max())
        for output in OUTPUTS
    ]


# ---------------------------------------------------------------------------------------------
# What is computed: models and inputs are written once, so that all processes have the same


def write_random(folder: Path) -> None:
    """A model whose scores are of the size of a trained one's, so that attention is not uniform."""
    torch.manual_seed(0)
    model = ErnieRnaForMaskedLM(ErnieRnaConfig(**MIDDLE))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("q_proj.weight", "k_proj.weight")):
                parameter.mul_(5)
    model.save_pretrained(folder)


def write_inputs(folder: Path, length: int) -> None:
    """Five random RNAs, the longest of `length` nucleotides."""
    generator = torch.Generator().manual_seed(0)
    lengths = [max(1, length * share // 8) for share in (8, 6, 4, 2, 1)]
    letters = [torch.randint(4, (n,), generator=generator).tolist() for n in lengths]
    texts = ["".join("ACGU"[letter] for letter in rna) for rna in letters]
    (folder / "inputs.json").write_text(json.dumps(texts), encoding="utf-8")


def compute(folder: Path, dtype: torch.dtype) -> Values:
    """Hidden states of all layers and logits, with both attentions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # That the weights are random is known here.
        model: Any = load_masked_lm(folder, device="cpu")
    model.to(dtype)
    texts = json.loads((folder / "inputs.json").read_text(encoding="utf-8"))
    ids, mask = tokenize(texts, torch.device("cpu"))
    values: Values = {"mask": mask}
    for attention in ATTENTIONS:
        model.set_attn_implementation(attention)
        with torch.inference_mode():
            output = model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        values[f"{attention} hidden states"] = torch.stack(output.hidden_states, dim=1)
        values[f"{attention} logits"] = output.logits[:, None].clone()
    return values


def compute_elsewhere(folders: Sequence[Path], setting: Setting) -> list[Values]:
    """What `compute` gives for each folder in a process with this setting."""
    environment = {"OMP_NUM_THREADS": str(setting.threads), **setting.environment}
    options = ["--onednn", str(setting.onednn)]
    run_anew(__file__, "--compute", *map(str, folders), *options, **environment)
    return [load_file(folder / _VALUES) for folder in folders]


if __name__ == "__main__":
    sys.exit(main())
