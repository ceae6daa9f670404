"""The command line: its errors, exit codes and help, and what it checks before torch loads."""

import re
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from ernie_rna.cli import main as cli
from ernie_rna.cli.arguments import Command
from ernie_rna.options import OptionError
from ernie_rna.run.progress import show_loading
from tests.cli.conftest import ENVIRONMENT


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("", "the following arguments are required: COMMAND"),
        ("fly", "invalid choice: 'fly'"),
        ("embed in.fasta", "the following arguments are required: -m/--model, -o/--output"),
        ("embed i -m m -o o --long cut", "argument --long: invalid choice"),
        ("embed i -m m -o o --layers x", "argument --layers: must be one or more whole numbers"),
        (
            "fold -dash.fa -m m",
            "required: IN.fasta; -dash.fa is read as an option: for a file of that",
        ),
        (
            "fold i -m m -o -x.dbn",
            "-o/--output: expected one argument; -x.dbn is read as an option",
        ),
        (
            "fold i --modle m --layer -1",
            "; --modle is read as an option: for a file of that name write ./--modle\n",
        ),
        ("embed i -m m -o=", "argument --output: must be the path of a file or folder; got ''"),
        ("embed i -m m -o o -m n", "argument -m/--model: is given twice, as m and as n"),
    ],
)
def test_a_usage_error_takes_two_lines(run, command, message):
    errors = run(command, code=2).err
    assert message in errors
    assert len(errors.splitlines()) == 2  # "usage: see ...", and the error


@pytest.mark.parametrize("command", [one.run.__name__ for one in cli.COMMANDS])
def test_help_of_every_command(run, command):
    assert f" {command} " in run("--help").out
    text = run(f"{command} --help").out
    assert "examples:" in text
    assert max(map(len, text.splitlines())) <= 100
    if command in ("embed", "fold", "closeness", "mutate", "predict", "finetune"):
        words = ("-m MODEL", "-o ", "--force", "--quiet", "--dtype", "--device", "--threads")
        assert [word for word in (*words, "--revision") if word not in text] == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("info mini", "mini; give one input, in quotes if its path contains spaces, and "
         "write -m before a model"),
        ("evaluate a b c", "c; give one input, in quotes if its path contains spaces"),
        ("fold a -m mini --priors x", "--priors x; did you mean --prior?"),
        ("fold a -m mini --zzz", "fold: error: unrecognized arguments: --zzz"),
    ],
)  # fmt: skip
def test_unrecognized_arguments_get_a_hint(run, words, message):
    assert run(words, code=2).err.rstrip().endswith(message)


@pytest.fixture
def fail(monkeypatch, run):
    """A function that runs a command which raises `error`, or warns if `error` is None. It checks
    the exit code and returns stderr."""

    def run_failing(error, code, words="fail"):
        def fail(args):
            """Fail.

            examples:
              ernie-rna fail
            """
            if error is not None:
                raise error
            warnings.warn("take\ncare", stacklevel=1)
            return 0

        failing = Command(run=fail, summary="fails", interrupted="; try again")
        monkeypatch.setattr(cli, "COMMANDS", (failing,))
        return run(words, code).err

    return run_failing


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ValueError("two\n  lines"), 1, "error: two lines"),
        (ValueError(), 1, "internal error: ValueError:  (--traceback shows where)"),
        (KeyError("x"), 1, "internal error: KeyError: 'x' (--traceback shows where)"),
        (FileNotFoundError(2, "No file", "x.tsv"), 1, f"error: x.tsv: no file in {Path.cwd()}"),
        (FileNotFoundError(2, "No file", "/x.tsv"), 1, "error: /x.tsv: no file"),
        (IsADirectoryError(21, "Is a directory", "."), 1, "error: .: is a directory; name a file"),
        (OSError("cannot read x: [Errno 13] No: 'x'"), 1, "error: cannot read x: No: 'x'"),
        (KeyboardInterrupt(), 130, "interrupted; try again"),
        (None, 0, "warning: take care"),
    ],
)
def test_an_error_takes_one_line(fail, error, code, message):
    assert fail(error, code) == f"ernie-rna: {message}\n"


def test_errors_of_options_tracebacks_signals_and_several_processes(fail, monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    message = "fail: error: argument --batch-tokens: must be even; got 3\n"
    assert fail(OptionError("batch_tokens", "must be even; got 3"), 2).endswith(message)
    assert "in fail\n" in fail(ValueError("wrong"), 1, "--traceback fail")
    assert signal.getsignal(signal.SIGTERM) is before
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "this command runs in one process, and WORLD_SIZE says 2" in fail(None, 1)


def test_a_warning_starts_a_new_line_while_progress_is_shown(capsys):
    with show_loading(True):
        cli._say("warning: take care")
    assert "\rernie-rna: warning: take care\n" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------
# In a new process


def test_a_closed_pipe_ends_the_command_quietly():
    program = r"""
import sys
from ernie_rna.cli import main as cli
from ernie_rna.cli.arguments import Command
def talk(args):
    "Talk.\n\nexamples:"
    while True:
        print("a line")
cli.COMMANDS = (Command(run=talk, summary=""),)
sys.exit(cli.main(["talk"]))
"""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", program], env=ENVIRONMENT, **pipes)
    assert process.stdout.readline() == "a line\n"
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 141


@pytest.mark.parametrize("command", ["fold in.fasta -m mini", "evaluate in.dbn in.dbn -o -"])
def test_characters_that_standard_output_lacks(here, command):
    Path("in.fasta").write_text(">a\u00e9 b\nGGGGAAAACCCC\n", encoding="utf-8")
    Path("in.dbn").write_text(">a\u00e9 b\nGGGGAAAACCCC\n((((....))))\n", encoding="utf-8")
    command = [sys.executable, "-W", "ignore", "-m", "ernie_rna", *command.split()]
    environment = {**ENVIRONMENT, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert (
        r"a\xe9' cannot be written to standard output, whose encoding is ascii: set" in done.stderr
    )
    assert "PYTHONIOENCODING=utf-8" in done.stderr


@pytest.mark.parametrize(
    ("closed", "command", "message"),
    [
        ("<&-", "embed - -m mini -o out.npz", "standard input is closed"),
        (">&-", "mutate in.fasta -m mini --summary -", "standard output: it is closed"),
        (">&-", "embed in.fasta -m mini -o out.npz --quiet", ""),
    ],
)
def test_a_closed_stream_is_an_error_only_if_it_is_used(here, closed, command, message):
    Path("in.fasta").write_text(">a\nACGU\n")
    process = subprocess.run(
        f"{sys.executable} -W ignore -m ernie_rna {command} {closed}",
        shell=True,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.returncode == bool(message), process.stderr
    assert message in process.stderr
    assert "internal" not in process.stderr


WITHOUT_TORCH = """
import sys
from ernie_rna.cli.main import main
def run(line):
    try:
        code = main(line.split())
    except SystemExit as error:
        code = error.code
    print("exit code", code, file=sys.stderr)
run("embed --help")
loaded = {"torch", "transformers", "numpy"} & set(sys.modules)
assert not loaded, loaded
sys.modules["torch"] = sys.modules["transformers"] = None
for line in open("commands.txt"):
    run(line)
"""

# The files in the working directory, and the commands that are refused, with their messages.
INPUTS = {
    "in.fasta": ">a\nACGU\n",
    "in.dbn": ">a\nACGU\n(..)\n",
    "a.ct": "4 a\n1 A 0 2 4 1\n2 C 1 3 0 2\n3 G 2 4 0 3\n4 U 3 0 1 4\n",
    "twice.dbn": ">a\nGC\n..\n>a\nGC\n..\n",
    "gaps.dbn": ">a\nGG-AACC\n((...))\n",
    "in.csv": "sequence,label\nACGU,x\n",
    "bad.csv": "sequence,label\nAC-GU,x\n",
    "bad.tsv": "sequence\tlabel\nACEU\t1\n",
    "protein.fasta": ">x\nMKLVFEQPGSWTARNH\n",
    "id.fasta": f">{'x' * 300}\nACGU\n",
    "words.rdat": "NAME words\n",
    "a.shape": "1 0.5\n2 -999\n",
    "b.shape": "1 0.5\n2 -999\n",
    "pretrain.pt": "PK",
    "there.tsv": "",
    "there.npz": "",
    "model/config.json": "{}",
    "short/config.json": '{"max_position_embeddings": 5}',
    "unconverted/none": "",
    "model/model.safetensors": "",
    "known/a.csv": "",
    "r.csv": "",
    "notes/thesis.tex": "",
}
REFUSED = {
    "embed in.fasta -m short -o out.npz": "1 of 1 sequences are longer than the model's limit",
    "embed in.fasta -m pretrain.pt -o out.npz": "convert it first",
    "embed in.fasta -m unconverted -o out.npz": "config.json",
    "embed in.fasta -m ./NOSUCH -o out.npz": "no folder ./NOSUCH",
    "embed no.fasta -m model -o out.npz": "no.fasta: no such file",
    "embed protein.fasta -m model -o out.npz": "record 1 (x): it looks like a protein: 31 %",
    "embed in.fasta -m model -o out.xyz": "out.xyz: the extension must be one of .safetensors",
    "embed in.fasta -m model -o there.npz": "there.npz exists already; --force",
    "embed in.fasta -m model -o model/model.safetensors --force": "is the input model/model.saf",
    "fold in.dbn -m model -o model/../in.dbn --force": "is the input in.dbn: name another",
    "fold in.dbn -m model -C -o in.dbn": "the output in.dbn is the input in.dbn",
    "FOLD --reactivity r.csv --pairs r.csv --force": "the output r.csv is the input r.csv",
    "FOLD --reactivity known --pairs known/a.csv --force": "known/a.csv is the input known/a.csv",
    "FOLD --prior there.npz -o there.npz --force": "there.npz is the input there.npz",
    "predict in.csv -m model -o in.csv --force": "the output in.csv is the input in.csv",
    "plot in.fasta -m model --values there.npz --prior there.npz -o o.svg": "is the input there",
    "evaluate in.dbn known -o known/a.csv --force": "known/a.csv is the input known/a.csv",
    "evaluate in.dbn --reactivity r.csv --groups r.csv": "the output r.csv is the input r.csv",
    "embed in.fasta -m= -o out.npz": "the model's name is empty",
    "predict in.fasta -m model -o o.tsv --sequence-column x": "needs a table (.tsv, .csv)",
    "mutate in.fasta -m model": "nothing to write: give -o, --positions or --summary",
    "mutate in.fasta -m model -o out.npz": "out.npz: the extension must be .tsv",
    "mutate in.fasta -m model -o - --summary -": "standard output is named for two outputs",
    "predict in.fasta -m model -o out.txt": "out.txt: the extension must be .tsv or .csv or .saf",
    "predict in.csv -m model -o o.tsv --sequence-column rna": "no column 'rna'; it has sequen",
    "predict bad.csv -m model -o out.tsv": "bad.csv: record 1 (line 2): '-' at position 3",
    "FOLD -o out.xyz": "extension",
    "FOLD -o out.dbn --pairs there.tsv": "there.tsv exists already; --force",
    "FOLD -o out.dbn --matrix scores": "--matrix: scores needs an .npz output",
    "FOLD --threads two": "--threads: must be a whole number from 1 to 1024; got 'two'",
    "fold id.fasta -m model -o out.ct/": f"{'x' * 40}...: the id is too long for a file name",
    "FOLD --as-authors --min-loop 3": "--as-authors: sets min_loop to 0; got min_loop 3",
    "FOLD --prior in.dbn": "in.dbn: --prior must be vienna, or a file",
    "FOLD --probe dms": "--probe: has no effect without reactivities",
    "FOLD --reactivity-slope 1": "--reactivity-slope: has no effect",
    "FOLD --pseudoknots maybe": "on the command line yes or no; got 'maybe'",
    "fold in.dbn -m model -C --min-loop 3": "the constraint of a: bases 1 and 4 have 2 bases",
    "FOLD -C --degap": "--degap: does not work with -C: remove gaps",
    "fold GGGGAAAACCCC -m model -C": "no such file; -C needs a file with the lines",
    "FOLD --reactivity words.rdat": "words.rdat: line 1: no line SEQUENCE",
    "FOLD --reactivity b.shape": "no reactivities for 1 of the sequences: a",
    "evaluate in.dbn": "name REF",
    "evaluate in.dbn --reactivity a.shape": "a has 4 nt but 2 reactivities",
    "evaluate in.dbn --reactivity b.shape --with-mfe": "--with-mfe scores against known",
    "evaluate in.dbn in.dbn -o out.xls": "out.xls: the extension must be .tsv or .csv",
    "evaluate no.dbn model": "no.dbn: no such file",
    "evaluate in.dbn in.dbn --probe dms": "--probe: has no effect without reactivities",
    "evaluate in.dbn in.dbn --by length": "--by: cannot be length",
    "evaluate in.dbn in.dbn --predicted-column x": "it is not a table and has no column 'x'",
    "evaluate in.dbn a.ct --reference-column x": "a.ct: it is not a table and has no column 'x'",
    "evaluate in.dbn --reactivity b.shape --missing skip": "--missing scores against known",
    "evaluate twice.dbn --reactivity a.shape": "two predicted structures have the id 'a'",
    "evaluate gaps.dbn gaps.dbn --with-mfe": "--with-prior: record 1 (a): '-' at position 3",
    "closeness in.fasta -m model -o out.npy": "out.npy: the extension must be .npz",
    "finetune no.tsv TRAIN": "no.tsv: no such file",
    "finetune in.csv TRAIN": "line 2: label: 'x' is not a number",
    "finetune bad.tsv TRAIN": "not a nucleotide code",
    "finetune in.csv TRAIN --eval-split test": "--eval-split: needs --split-column",
    "convert no.pt out": "no.pt: no such file",
    "convert pretrain.pt notes": "neither empty nor a model that ernie-rna wrote",
    "push ./NOSUCH USER/NAME --dry-run": "no such folder",
    "push model NAME --dry-run": "include the user or organisation",
    "verify model": "nothing to compare: give --checkpoint, --cls-embedding or --full-size",
    "verify model --full-size": "--full-size reads no folder: leave out model, or compare it",
    "verify --checkpoint pretrain.pt": "name the FOLDER",
    "verify model --checkpoint no.pt": "no.pt: no such file",
    "info -m ./NOSUCH": "no folder ./NOSUCH",
    "info --batch 0": "--batch: must be a whole number from 1 to 1000000000; got 0",
    "info --lengths 100,x": "--lengths: must be a whole number from 1 to",
}


def test_plain_mistakes_are_refused_before_torch_is_imported(here):
    for name, text in INPUTS.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text)
    commands = "\n".join(REFUSED).replace("FOLD", "fold in.fasta -m model")
    commands = commands.replace("TRAIN", "-m mini -o out --task regression")
    Path("commands.txt").write_text(commands)
    files_before = {*Path().rglob("*")}
    program = [sys.executable, "-W", "ignore", "-c", WITHOUT_TORCH]
    process = subprocess.run(program, env=ENVIRONMENT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith("usage: ernie-rna embed")
    *errors, rest = re.split(r"exit code (\d+)\n", process.stderr)
    assert (errors[:2], rest) == (["", "0"], "")  # of embed --help
    outcomes = zip(REFUSED.items(), errors[2::2], errors[3::2], strict=True)
    for (command, message), text, code in outcomes:
        assert message in " ".join(text.split()), command
        assert code == ("2" if "usage:" in text else "1"), command
        assert "usage:" in text or text.startswith("ernie-rna: error: "), command
        assert "usage:" in text or text.count("\n") == 1, command
    assert {*Path().rglob("*")} == files_before


def test_with_a_closed_standard_error_stdout_holds_the_results_alone(run, monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    assert run("fold GGGGAAAACCCC -m mini -o -").out.count("\n") == 3
