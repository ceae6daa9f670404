"""How far the numbers move with threads, oneDNN and the CPU's instructions, against float64.

    python scripts/measure_portability.py
    python scripts/measure_portability.py --settings "1 thread" "ATen default"

Each setting runs in a process of its own, since torch, oneDNN and MKL choose their code when they
are loaded. Two models: the authors' small checkpoint of tests/golden, and one of middle size with
random weights; hidden states of all layers and logits, with eager attention and with sdpa, of five
RNAs in one padded batch. An error is the largest absolute difference from the same weights in
float64 at a real token. The bound is the rule of this repository: twice the error of eager
attention in the reference setting (two threads, all else as torch has it), and 1e-6. Exit code 1
says that a bound is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers.utils import logging

from ernie_rna.model import layers_ernie_rna

ROOT = Path(__file__).parents[1]
CHECKPOINT = ROOT / "tests" / "golden" / "tiny_fairseq_cfg.pt"
MIDDLE: dict[str, Any] = {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536}
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
        needs: what of the CPU it is about, as torch calls it.
    """

    name: str
    threads: int = 2
    onednn: bool | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    needs: str = ""


def _by_variable(
    variable: str, label: str, values: Mapping[str, str], onednn: bool | None = None
) -> list[Setting]:
    return [
        Setting(f"{label} {value}", 2, onednn, environment={variable: value}, needs=needs)
        for value, needs in values.items()
    ]


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
    *_by_variable(
        "ATEN_CPU_CAPABILITY", "ATen", {"default": "", "avx2": "AVX2", "avx512": "AVX512"}
    ),
    *_by_variable(
        "ONEDNN_MAX_CPU_ISA",
        "oneDNN",
        {"SSE41": "", "AVX": "AVX2", "AVX2": "AVX2", "AVX512_CORE": "AVX512"},
        onednn=True,
    ),
    *_by_variable(
        "MKL_ENABLE_INSTRUCTIONS", "MKL", {"SSE4_2": "", "AVX2": "AVX2", "AVX512": "AVX512"}
    ),
    *_by_variable("MKL_CBWR", "MKL CBWR", {"COMPATIBLE": "", "AVX2": "AVX2", "AVX512": "AVX512"}),
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
    add("--threads", type=int, default=2, help=argparse.SUPPRESS)
    add("--onednn", choices=("True", "False", "None"), default="None", help=argparse.SUPPRESS)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    logging.disable_progress_bar()
    if args.compute:
        torch.set_num_threads(args.threads)
        if args.onednn != "None":
            # The model's own list of what oneDNN multiplies better on this CPU.
            layers_ernie_rna._ONEDNN_DTYPES = (torch.float32,) * (args.onednn == "True")
        for folder in args.compute:
            save_file(compute(folder, torch.float32), folder / _VALUES)
        return 0
    settings = [s for s in SETTINGS if not args.settings or s.name in args.settings]
    if REFERENCE not in settings:
        settings.insert(0, REFERENCE)
    with tempfile.TemporaryDirectory() as scratch:
        small, middle = Path(scratch, "golden"), Path(scratch, "middle")
        write_golden(args.checkpoint, small, min(args.length, 200))
        write_random(middle, args.length)
        tables = measure([small, middle], settings)
    print(f"{cpu_name()}, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}")
    for table in tables:
        print(f"\n{table.text()}")
    return int(any(table.missed for table in tables))


# ---------------------------------------------------------------------------------------------
# Models and inputs, written once so that all processes have the same


def write_golden(checkpoint: Path, folder: Path, length: int) -> None:
    from ernie_rna.convert.conversion import convert_weights
    from ernie_rna.convert.export import write_folder
    from ernie_rna.convert.foreign.reading import read_checkpoint

    write_folder(convert_weights(read_checkpoint(checkpoint)), folder)
    _write_inputs(folder, length)


def write_random(folder: Path, length: int) -> None:
    """A model whose scores are of the size of a trained one's, so that attention is not uniform."""
    from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig
    from ernie_rna.model.modeling_ernie_rna import ErnieRnaForMaskedLM

    torch.manual_seed(0)
    model = ErnieRnaForMaskedLM(ErnieRnaConfig(**MIDDLE))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("q_proj.weight", "k_proj.weight")):
                parameter.mul_(5)
    model.save_pretrained(folder)
    _write_inputs(folder, length)


def _write_inputs(folder: Path, length: int) -> None:
    """Five random RNAs, the longest of `length` nucleotides."""
    generator = torch.Generator().manual_seed(0)
    lengths = [max(1, length * share // 8) for share in (8, 6, 4, 2, 1)]
    letters = [torch.randint(4, (n,), generator=generator).tolist() for n in lengths]
    texts = ["".join("ACGU"[letter] for letter in rna) for rna in letters]
    (folder / "inputs.json").write_text(json.dumps(texts), encoding="utf-8")


def compute(folder: Path, dtype: torch.dtype) -> Values:
    """Hidden states of all layers and logits, with both attentions."""
    from ernie_rna.run.loading import load_masked_lm, tokenize

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # That the weights are random is known here.
        model: Any = load_masked_lm(folder, device="cpu")
    model.to(dtype)
    texts = json.loads((folder / "inputs.json").read_text(encoding="utf-8"))
    ids, mask = tokenize(texts, torch.device("cpu"))
    values: Values = {"mask": mask}
    for attention in ("eager", "sdpa"):
        model.set_attn_implementation(attention)
        with torch.inference_mode():
            output = model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        values[f"{attention} hidden states"] = torch.stack(output.hidden_states, dim=1)
        values[f"{attention} logits"] = output.logits[:, None].clone()
    return values


def compute_elsewhere(folders: Sequence[Path], setting: Setting) -> list[Values]:
    """What `compute` gives for each folder in a process with this setting."""
    threads = str(setting.threads)
    command = [sys.executable, __file__, "--compute", *map(str, folders), "--threads", threads]
    command += ["--onednn", str(setting.onednn)]
    path_list = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "PYTHONPATH": path_list}
    subprocess.run(
        command,
        env={**environment, **setting.environment},
        check=True,
    )
    return [load_file(folder / _VALUES) for folder in folders]


# ---------------------------------------------------------------------------------------------
# Errors


@dataclass
class Table:
    """Errors of a model by setting, beside the bound of each output."""

    model: str
    exact: Values
    reference: Values
    errors: dict[str, dict[str, float]] = field(default_factory=dict)
    same: dict[str, bool] = field(default_factory=dict)

    @property
    def bounds(self) -> dict[str, float]:
        return {
            output: 2 * largest_error(self.reference, self.exact, [f"eager {output}"]) + 1e-6
            for output in OUTPUTS
        }

    @property
    def missed(self) -> bool:
        bounds = self.bounds
        found = [pair for errors in self.errors.values() for pair in errors.items()]
        return not all(error <= bounds[output] for output, error in found)  # NaN misses

    def add(self, setting: Setting, found: Values) -> None:
        self.errors[setting.name] = {
            output: largest_error(found, self.exact, [f"eager {output}", f"sdpa {output}"])
            for output in OUTPUTS
        }
        self.same[setting.name] = all(
            torch.equal(value, self.reference[key]) for key, value in found.items()
        )

    def text(self) -> str:
        bounds = " | ".join(f"{self.bounds[output]:.1e}" for output in OUTPUTS)
        lines = [
            f"| {self.model} | hidden states | logits | same bits as the reference |",
            "|---|--:|--:|---|",
            f"| bound | {bounds} | |",
        ]
        for name, errors in self.errors.items():
            values = " | ".join(f"{errors[output]:.1e}" for output in OUTPUTS)
            lines.append(f"| {name} | {values} | {'yes' if self.same[name] else 'no'} |")
        return "\n".join(lines)


def measure(folders: Sequence[Path], settings: Sequence[Setting]) -> list[Table]:
    """The errors of the models in folders under each setting that this CPU can run."""
    exact = [compute(folder, torch.float64) for folder in folders]
    references = compute_elsewhere(folders, REFERENCE)
    tables = [
        Table(folder.name, values, reference)
        for folder, values, reference in zip(folders, exact, references, strict=True)
    ]
    for setting in filter(can_run, settings):
        again = references if setting is REFERENCE else compute_elsewhere(folders, setting)
        for table, found in zip(tables, again, strict=True):
            table.add(setting, found)
    return tables


def can_run(setting: Setting) -> bool:
    """Whether the CPU has the instructions that the setting is about."""
    found = torch.backends.cpu.get_cpu_capability()
    return setting.needs in {"AVX512": ("", "AVX2", "AVX512"), "AVX2": ("", "AVX2")}.get(found, "")


def largest_error(found: Values, exact: Values, keys: Sequence[str]) -> float:
    """The largest absolute difference at the real tokens; (batch, layers, seq, width) each."""
    real = found["mask"].bool()[:, None, :, None]
    return max(
        float(((found[key].double() - exact[key]) * real).abs().max().item()) for key in keys
    )


def cpu_name() -> str:
    """The processor's name, where the system tells it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main())
