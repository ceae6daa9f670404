"""Export of a run as a folder for the Hub."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForPreTraining

from ernie_rna.conversion.folder import why_no_model
from ernie_rna.model import modeling_ernie_rna
from ernie_rna.model.tokenization_ernie_rna import ErnieRnaTokenizer
from recipes.pretraining import export
from recipes.pretraining.weights import load_average
from tests.recipes.conftest import log, pretrain

FLOAT16 = {"rtol": 2e-3, "atol": 2e-3}  # float16 has 11 bits


@pytest.fixture
def exported(tmp_path, capsys):
    """A function that exports the run, and returns the exit code and the printed text."""
    (tmp_path / "card.md").write_text("# A card")

    def export_run(*arguments):
        paths = [tmp_path / "run", "-o", tmp_path / "model", "--card", tmp_path / "card.md"]
        code = export.main([*map(str, [*paths, *arguments])])
        return code, "".join(capsys.readouterr())

    return export_run


def outputs(model):
    with torch.no_grad():
        return model.eval()(**ErnieRnaTokenizer()(["GGGAAACCC"], return_tensors="pt"))


def load_complete(folder, name):
    """Load a model, assert that no weight is missing, and return it with the loading info."""
    from_pretrained = getattr(modeling_ernie_rna, name).from_pretrained
    model, info = from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    return model, info


def test_export(table, config, tmp_path, exported, monkeypatch):
    assert pretrain(config(), table, tmp_path / "run", "--steps", 2) == 0
    out = tmp_path / "model"
    code, printed = exported()
    assert (code, "name a table by --structures" in printed) == (1, True)

    def fail(*arguments, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(export, "write_model", fail)
        assert exported("--structures", table)[0] == 1
    assert not out.exists()
    code, printed = exported("--structures", table)
    assert code == 0
    assert why_no_model(out) is None
    assert (out / "README.md").read_text() == "# A card"
    average = load_average(tmp_path / "run" / "checkpoint-2")
    model, _ = load_complete(out, "ErnieRnaForPreTraining")
    assert model.dtype == torch.float32
    weights = load_file(out / "model.safetensors").values()
    dtypes = {weight.dtype for weight in weights if weight.is_floating_point()}
    assert dtypes == {torch.float16}
    offset = 2 * (model.pair_head.conv_out.bias - average.pair_head.conv_out.bias).item()
    threshold = model.config.pair_threshold
    assert f"offset {round(offset, 1):g}, threshold {threshold:g}: mean F1" in printed
    assert threshold in export.THRESHOLDS
    assert model.config.weights_origin == "pretrained"
    expected, output = outputs(average), outputs(model)
    torch.testing.assert_close(output.logits, expected.logits, **FLOAT16)
    pair_logits = expected.pair_logits + offset
    torch.testing.assert_close(output.pair_logits, pair_logits, rtol=1e-2, atol=2e-2)
    for name in ("ErnieRnaModel", "ErnieRnaForMaskedLM", "ErnieRnaForSecondaryStructure"):
        load_complete(out, name)
    auto = AutoModelForPreTraining.from_pretrained(out, trust_remote_code=True)
    assert type(auto).__name__ == "ErnieRnaForPreTraining"
    code, printed = exported("--structures", table)
    assert (code, "--force replaces it" in printed) == (1, True)
    assert exported("--structures", table, "--force")[0] == 0


def test_a_run_without_structures_is_exported_without_pair_head(
    fasta, config, tmp_path, exported, table
):
    run, out = tmp_path / "run", tmp_path / "model"
    assert pretrain(config(masked=1.0), fasta, run, "--eval-fasta", fasta, "--steps", 3) == 0
    names = {name for line in log(run) for name in line if name.startswith("eval_")}
    assert names == {"eval_masked_lm_loss"}
    code, printed = exported("--structures", table)
    assert (code, "was not trained; leave out --structures" in printed) == (1, True)
    assert exported()[0] == 0
    assert why_no_model(out) is None
    model, info = load_complete(out, "ErnieRnaForMaskedLM")
    assert not info["unexpected_keys"]
    assert not any("pair_head" in name for name in load_file(out / "model.safetensors"))
    assert model.config.architectures == ["ErnieRnaForMaskedLM"]
    expected = outputs(load_average(run / "checkpoint-3")).logits
    torch.testing.assert_close(outputs(model).logits, expected, **FLOAT16)
