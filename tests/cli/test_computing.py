"""The commands that compute: what they write, print and refuse."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

import ernie_rna
from ernie_rna.data import examples
from ernie_rna.embeddings.formats import read_embeddings
from ernie_rna.options import OptionError
from ernie_rna.structures.formats.by_extension import read_structures, write_structures
from ernie_rna.structures.formats.structure import Structure
from tests.cli.conftest import ENVIRONMENT
from tests.conftest import ROOT, run_elsewhere
from tests.structures.conftest import needs_vienna

EMBED = "embed in.fasta -m model -o out.npz"
FOLD = "fold in.fasta -m model"

# ---------------------------------------------------------------------------------------------
# All commands that load a model


@pytest.mark.parametrize(
    "command", ["embed in.fasta -o out.npz", "plot in.fasta --id one -o o.svg"]
)
def test_a_warning_of_one_line_says_that_weights_are_random(folder, run, command):
    assert run(f"{command} -m random --quiet").err == (
        "ernie-rna: warning: random has random weights, which were never trained: its results "
        "mean nothing\n"
    )


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (f"{EMBED} --layers 9", "layers 0 (embeddings) to 3"),
        (f"{EMBED} --device mtia", "'mtia' cannot be used"),
        (f"{FOLD} --prior vienna", "a structure head, but these are"),
        ("closeness in.fasta -m model -o out.npz", "has no closeness head: it is ErnieRnaModel"),
        (
            "mutate in.fasta -m model -o out.tsv",
            "model has no language-model head, which this needs: it is ErnieRnaModel; use the "
            "pretrained model that `ernie-rna convert` makes from ERNIE-RNA_pretrain.pt, or save "
            "an ErnieRnaForMaskedLM",
        ),
    ],
)
def test_an_error_of_the_model_takes_one_line_and_leaves_no_file(folder, run, command, message):
    pytest.importorskip("RNA" if "vienna" in command else "numpy")
    files_before = {*Path().iterdir()}
    output, errors = run(command, code=1)
    assert (output, errors.count("\n")) == ("", 1)
    assert errors.startswith("ernie-rna: error: ")
    assert message in errors
    assert {*Path().iterdir()} == files_before


REMOTE_CODE = """
import sys
from transformers import AutoModel

model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)
from ernie_rna.model.modeling_ernie_rna import ErnieRnaModel
assert not isinstance(model, ErnieRnaModel)
from ernie_rna.embeddings.embed import embed
from ernie_rna.structures.fold import fold
print(next(embed(["GGGGAAAACCCC"], model))["mean"].shape)
print(next(fold(["GGGGAAAACCCC"], model)).structure.dot_bracket)
"""


def test_the_library_accepts_a_model_loaded_with_remote_code(golden_folder, tmp_path):
    output = run_elsewhere("-c", REMOTE_CODE, golden_folder, cwd=tmp_path, path=ROOT)
    shape, dot_bracket = output.splitlines()
    assert shape == "(48,)"
    assert len(dot_bracket) == 12


@pytest.mark.parametrize(
    ("command", "number", "code", "end"),
    [
        (
            "embed in.fasta -m model --pooling token -o out.npz --batch-tokens 64",
            signal.SIGINT,
            130,
            "ernie-rna: interrupted; run the same command again to resume\n",
        ),
        ("fold in.fasta -m model -o out.npz --batch-tokens 64", signal.SIGTERM, 143, ""),
    ],
)
def test_the_same_command_resumes_a_killed_run(folder, run, command, number, code, end):
    Path("in.fasta").write_text("".join(f">{i}\n{'GCAU' * 6}\n" for i in range(900)))
    process = subprocess.Popen(
        [sys.executable, "-m", "ernie_rna", *command.split()],
        env=ENVIRONMENT,
        text=True,
        stderr=subprocess.PIPE,
        # A shell that runs pytest in the background ignores SIGINT, which children inherit.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while len(list(Path().glob("out.npz.partial/part-*.safetensors"))) < 2:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    errors = process.stderr.read()
    assert process.wait() == code
    assert errors.endswith(end)
    assert "Traceback" not in errors
    assert not Path("out.npz").exists()
    assert not list(Path("out.npz.partial").glob("*.tmp"))
    assert "partly computed before" in run(command).err
    assert not list(Path().glob("*.partial"))


# ---------------------------------------------------------------------------------------------
# embed


def test_embed_writes_each_layer_and_pooling(folder, run):
    output, errors = run(f"{EMBED} --layers=0,-1 --pooling mean,token")
    assert output == ""
    assert "out.npz: 2 sequences, 32 nt; " in errors
    one, two = read_embeddings("out.npz")
    assert (one.id, two.id) == ("one", "two")
    assert list(two.arrays) == ["token_layer0", "mean_layer0", "token_layer3", "mean_layer3"]
    np.testing.assert_allclose(two["token_layer3"].mean(0), two["mean_layer3"], atol=1e-6)


def test_embed_takes_every_option_and_standard_input(folder, run, stdin):
    options = (
        "--layers all --dtype float32 --device cpu --threads 1 --attention eager --long window "
        "--overlap 9 --unknown unk --batch-tokens 64 --part 1/1 --quiet --force --shard-bytes 9999"
    )
    contents = []
    for source in ("in.fasta", "-"):
        stdin("in.fasta")
        assert run(f"embed {source} -m model -o out.npz {options}") == ("", "")
        contents.append(Path("out.npz").read_bytes())
    assert contents[0] == contents[1]
    assert list(next(read_embeddings("out.npz")).arrays) == [f"mean_layer{i}" for i in range(4)]


# ---------------------------------------------------------------------------------------------
# fold and closeness


def test_fold_writes_structures(folder, run):
    output, errors = run(f"{FOLD} -o out.dbn")
    assert output == ""
    assert "structures without training, by the attention scores of layer 3, head 5" in errors
    assert "out.dbn: 2 sequences, 32 nt; " in errors
    assert [one.description for one in read_structures("out.dbn")] == ["an RNA, partial"] * 2
    run(f"{FOLD} -o out.tsv -o out.ct --quiet")
    assert read_structures("out.tsv") == read_structures("out.ct") == read_structures("out.dbn")
    output, errors = run("fold in.fasta -m random --quiet")
    assert output == Path("out.dbn").read_text()
    assert all(line.startswith("ernie-rna: warning: ") for line in errors.splitlines())
    warning = "ernie-rna: warning: no structure has any pair\n"
    assert run("fold AAAA -m model -o none.dbn --quiet").err == warning
    output, _ = run(f"{FOLD} --bases - --quiet")
    assert output.startswith("id\tposition\tbase\tpartner\treliability\none\t1\tG\t")


def test_fold_of_standard_input_to_several_outputs(folder, run, stdin):
    outputs = "-m model -o out.ct/ -o out.npz --pairs pairs.tsv --matrix scores"
    run(f"fold in.fasta {outputs}")
    pairs = Path("pairs.tsv").read_text()
    stdin("in.fasta")
    run(f"fold - {outputs} --force")
    assert Path("pairs.tsv").read_text() == pairs
    assert [one.id for one in read_structures("out.ct")] == ["one", "two"]
    shapes = {name: array.shape for name, array in np.load("out.npz").items()}
    assert shapes == {"one": (16, 16), "two": (16, 16)}


def test_mini_without_pairing_scores_gets_a_warning(folder, run):
    warning = "this model was trained with pairing scores; without them"
    for option in ("--as-authors", "--pairing-scores=zero"):
        assert warning in run(f"fold in.fasta -m mini {option}").err
    assert warning not in run("fold in.fasta -m mini").err
    assert warning not in run("fold in.fasta -m random --as-authors").err


def test_constraints_are_read_from_the_lines_below_the_sequences(folder, run, stdin):
    Path("c.fasta").write_text(">one\nGGGGGaaaaCCCCCAT\n.((......))xxxxx\n>two\nGCGCGAUUUUCGCGCA\n")
    for more, sequence in (("", "GGGGGAAAACCCCCAU"), ("--keep-letters", "GGGGGaaaaCCCCCAT")):
        output, _ = run(f"fold c.fasta -m mini -C --quiet {more}")
        one, two = output.split(">")[1:]
        assert one.splitlines()[1:] == [sequence, ".((......))....."]
    plain, _ = run("fold in.fasta -m mini --quiet")
    assert two.splitlines()[2] == plain.splitlines()[5] != "." * 16
    stdin("c.fasta")
    assert run("fold - -m mini -C --quiet --keep-letters").out == output
    _, errors = run("fold c.fasta -m mini")
    assert "the structures below 1 of the sequences are ignored, the first below one" in errors


@needs_vienna
def test_fold_with_a_prior(folder, run):
    _, errors = run("fold in.fasta -m mini --prior vienna -o o.dbn")
    assert "secondary-structure head, and ViennaRNA 2." in errors


def test_closeness(folder, run):
    assert "maps.npz: 2 sequences, 32 nt" in run("closeness in.fasta -m close -o maps.npz").err
    assert np.load("maps.npz")["two"].shape == (16, 16)


# ---------------------------------------------------------------------------------------------
# plot and serve


RNA = "GGGGAAAACCCCA"


@pytest.fixture
def plot(here, run):
    """A function that runs `ernie-rna plot` on two RNAs in an empty folder; returns stderr."""
    pytest.importorskip("matplotlib")
    Path("in.fasta").write_text(f">one fish\n{RNA}\n>two fish\nGGGAAACCCAGCN\n")

    return lambda arguments, code=0: run(f"plot in.fasta -m mini --threads 1 {arguments}", code).err


@pytest.mark.parametrize(
    ("arguments", "caption"),
    [
        ("--id one --what map", "one: 4 base pairs are read off this map"),
        ("--id one --what map --layer 2 --head 1 --values v.npz", "are read off this map"),
        ("--id one --what heads --layer 2 --values v.npz", "12 heads; structures without"),
        ("--id two --what arcs", "two: "),
        pytest.param("--id one --what layout", "one: 4 base pairs", marks=needs_vienna),
        ("--id two --what substitutions --values v.npz", "two: pseudo-perplexity "),
        ("--what embeddings --values v.npz", "2 vectors of 192 numbers"),
    ],
)
def test_plot_writes_a_picture_and_its_values(plot, arguments, caption):
    errors = plot(f"{arguments} -o out.svg")
    assert errors.startswith("out.svg: ")
    assert caption in errors
    assert "mini, " in Path("out.svg").read_text()
    if "--values" in arguments:
        shapes = {name: array.shape for name, array in np.load("v.npz").items()}
        assert shapes.get("one", shapes.get("effects", (13, 4)))[-1] in (13, 4, 192)
    assert "out.svg exists already; --force" in plot(f"{arguments} -o out.svg", code=1)


def test_plot_draws_the_known_structure_as_well(plot):
    write_structures(Path("known.dbn"), [Structure("one", RNA.replace("C", "c"), [(0, 11)])])
    plot("--id one --what arcs -o alone.svg")
    errors = plot("--id one --what arcs -o both.svg --reference known.dbn")
    assert "its known structure is below the arcs" in errors
    assert Path("alone.svg").read_text() != Path("both.svg").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("-o out.gif", "the extension must be .png or .svg or .pdf"),
        ("-o out.png --values out.txt", "out.txt: the extension must be .npz"),
        ("-o out.png", "there are several sequences: choose one with --id, such as one"),
        ("-o out.png --id x", "no sequence has the id 'x', but one has '"),
        ("-o out.png --id one --layer 9", "layer 9"),
        ("-o out.png --id one --head 12", "head 12"),
        ("-o out.png --id one --what closeness", "has no closeness head"),
        ("-o out.png --id one --reference known.dbn", "one has 13 nt, but 5 nt in known.dbn"),
        ("-o out.png --id two --reference known.dbn", "base at position 2 in known.dbn"),
        ("-o out.png --id one --reference rna.dbn", "no structure with the id 'one'"),
    ],
)
def test_plot_refuses(plot, arguments, message):
    known = [Structure("one", "GAAAC", []), Structure("two", "GAGAAACCCAGCN", [])]
    write_structures(Path("known.dbn"), known)
    Path("rna.dbn").write_text((examples() / "rna.dbn").read_text())
    assert message in plot(arguments, code=1)
    assert not Path("out.png").exists()


def test_plot_refuses_an_option_of_fold_that_is_not_for_pictures(here):
    with pytest.raises(OptionError, match="matrix does not apply to pictures"):
        ernie_rna.plot([RNA], "mini", "out.svg", matrix="scores")


def test_plot_needs_no_id_for_a_single_record(plot):
    assert plot("--id one --quiet -o out.pdf") == ""
    Path("in.fasta").write_text(f">one\n{RNA}\n")
    assert "one: 4 base pairs" in plot("-o out.svg")


def test_serve_names_a_missing_model(run):
    for module in ("pebble", "RNA"):
        pytest.importorskip(module)
    assert "there is no folder ./none" in run("serve -m ./none", code=1).err


# ---------------------------------------------------------------------------------------------
# finetune


@pytest.mark.parametrize(
    ("option", "end"),
    [("--resume", "again to resume\n"), ("", "a run without --resume starts anew\n")],
)
def test_an_interrupted_finetune_says_whether_it_can_be_resumed(option, end, run, monkeypatch):
    finetune = Mock(side_effect=KeyboardInterrupt)
    monkeypatch.setattr("ernie_rna.training.finetune.finetune", finetune)
    errors = run(f"finetune t.tsv -m mini -o out --task regression {option}", code=130).err
    assert errors.endswith(end)
