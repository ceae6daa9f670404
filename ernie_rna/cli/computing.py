"""The commands that compute: what each accepts, and the function that it calls."""

from __future__ import annotations

import argparse
import os
import sys
import textwrap

import ernie_rna
from ernie_rna import options
from ernie_rna.cli.arguments import FASTA, MODEL, RESUMES, argument, command, compute, typed
from ernie_rna.run.outputs import refuse_inputs
from ernie_rna.sequences.fasta import InputError
from ernie_rna.sequences.sources import is_word
from ernie_rna.training.options import FinetuneOptions

REACTIVITY_FILES = (
    "a table with columns id, position and reactivity; ID.shape or ID.map with position and "
    "reactivity, or position, base and reactivity; ID.rdat; or a folder of such files. NaN, -999 "
    "and missing positions mean no data"
)


@command(
    summary="vectors of sequences: per nucleotide, <cls> or mean, of any layers",
    arguments=(
        FASTA,
        MODEL,
        argument("-o --output OUT", "file to write, see above", required=True),
    ),
    options=options.EmbedOptions,
    resumes=True,
)
def embed(args: argparse.Namespace) -> int:
    """Embed the sequences of a FASTA file.

    For each sequence and requested layer, the output has the mean vector over the nucleotides, the
    vector of <cls>, or a vector for each nucleotide. Special tokens are never part of a mean or of
    the token vectors. The output is in input order and records the model and the settings.

    output formats, by extension:
      .safetensors  arrays by name, concatenated rows; shards and an index if large
      .h5 .hdf5     the same arrays in HDF5                (pip install "ernie-rna[hdf5]")
      .npz          the same arrays for numpy.load
      .parquet      a row for each sequence                (pip install "ernie-rna[parquet]")
      .csv .tsv     a row for each sequence, for spreadsheets; no token vectors
    Arrays are named mean_layer12, cls_layer12, token_layer12. The nucleotides of sequence i are
    rows offsets[i] to offsets[i+1] of a token array. Values are float16 for --dtype float16, else
    float32. `ernie_rna.read_embeddings` reads all formats.

    The whole input is checked before the model starts: empty records, duplicate ids, letters that
    are not nucleotide codes (proteins), gaps (unless --degap removes them) and control characters
    are errors. The id is the first word of the header. T is read as U; N and the other IUPAC codes
    have tokens of their own.

    examples:
      ernie-rna embed rna.fasta -m mini -o rna.csv
      ernie-rna embed rna.fasta -m MODEL -o rna.h5
      ernie-rna embed rna.fa.gz -m MODEL -o rna.npz --pooling token,mean --layers 6,12
      zcat rna.fa.gz | ernie-rna embed - -m MODEL -o rna.parquet --device cuda --dtype bfloat16
      torchrun --nproc-per-node 4 -m ernie_rna embed rna.fasta -m MODEL -o rna.safetensors
    """
    return compute("embed", args)


@command(
    summary="secondary structures: dot-bracket, .ct, .bpseq or a table",
    arguments=(
        FASTA,
        MODEL,
        argument(
            "-o --output OUT",
            "file or folder to write, see above; without it, dot-bracket to stdout",
            action="append",
        ),
        argument(
            "--pairs OUT.tsv",
            "a line for each pair: id, i, j, base_i, base_j and its probability; - is stdout",
        ),
        argument(
            "--bases OUT.tsv",
            "a line for each base: id, position, base, partner (0: unpaired) and its reliability "
            "(the probability of its pair, or of being unpaired); - is stdout",
        ),
        argument(
            "--reactivity FILE",
            f"change the map by probing data: {REACTIVITY_FILES}",
            dest="reactivities",
        ),
        argument("-C --constraint", "read constraints below the sequences, see above"),
    ),
    options=options.FoldOptions,
    resumes=True,
)
def fold(args: argparse.Namespace) -> int:
    """Predict the secondary structures of the sequences of a FASTA file, from the logits of the
    model's structure head or, without one, from the scores of one attention head of the last layer
    (zero-shot: such a model was not trained on structures). The authors' optimisation turns either
    into contacts. The strongest contacts become base pairs, at most one for each base. The summary
    says which of the two was used.

    output formats, by extension; -o may be given more than once:
      .dbn .db      FASTA with a dot-bracket line, ([{<Aa...Zz where pairs cross; - is stdout
      .tsv .csv     columns id, sequence, dot_bracket and description
      .ct           all structures in one file; OUT.ct/ is a folder with a file for each
      .bpseq        a folder with a file for each
      .npz          the matrix of each sequence, under its id: see --matrix

    --pairs and --bases write confidences, .tsv or .csv. With a structure head these are
    probabilities, calibrated as the model's card describes; without one they only rank pairs.

    --reactivity reads SHAPE or DMS data: a base of reactivity r changes the logit of its pairs by
    -(2.6 ln(r + 1) - 0.8) / 0.616, the pseudo-energy of Deigan et al. (2009) in units of RT at 37
    degrees, divided by the slope of the model's calibration. Bases without data change nothing.

    --prior vienna adds ViennaRNA's ensemble to the logits of a structure head: a pair of
    probability p in the ensemble changes its logit by weight x ln(p / (1 - p)) + offset; weight and
    offset belong to the head (pair_prior in config.json). Instead of vienna, name a file ID.bpp of
    another energy model, or a folder of such files.

    -C reads a line of constraints below each sequence, as RNAfold does: x is unpaired, | paired, <
    paired with a later base, > with an earlier base, ( and ) are paired with one another, . is
    free. Pairs that contradict a constraint are removed. Brackets always pair; a base with | < or >
    may still stay unpaired.

    Only A-U, G-C and G-U pair. T is read as U; N and the other IUPAC codes stay unpaired. The id of
    a sequence is the first word of its header; the rest, its description, is written to the outputs
    too. Letters are written in upper case with U for T, unless --keep-letters is given.

    A sequence is missing from all outputs if the optimisation diverges or its scores are not
    finite, and from dot-bracket outputs if its pairs need more than 30 kinds of brackets (.ct and
    .bpseq include it). Each such sequence is listed at the end with the reason, the others are
    written, and the exit code is 1.

    examples:
      ernie-rna fold GGGGAAAACCCC -m mini
      ernie-rna fold rna.fasta -m MODEL
      ernie-rna fold rna.fasta -m MODEL -o rna.dbn -o rna.npz --matrix contacts
      ernie-rna fold rna.fasta -m MODEL -o rna.dbn --pairs pairs.tsv --bases bases.tsv
      ernie-rna fold rna.fasta -m MODEL -o rna.ct/ --as-authors    as the authors' script
      ernie-rna fold rna.fasta -m MODEL --reactivity rna.shape.tsv
      ernie-rna fold rna.fasta -m mini --prior vienna -o rna.dbn --pairs pairs.tsv
      ernie-rna fold rna.fasta -m MODEL -o rna.tsv && ernie-rna evaluate rna.tsv known.tsv
    """
    tables = [getattr(args, name, "") for name in ("pairs", "bases")]
    if "constraint" in args:
        from ernie_rna.structures.constraints import read_constrained

        del args.constraint
        if "degap" in args:
            raise options.OptionError(
                "degap", "does not work with -C: remove gaps and their constraints from the file"
            )
        if is_word(args.sequences):
            raise InputError(
                f"{args.sequences}: no such file; -C needs a file with the lines >name, sequence "
                "and constraint (- is standard input)"
            )
        refuse_inputs([*getattr(args, "output", []), *filter(None, tables)], [args.sequences])
        unknown = getattr(args, "unknown", "error")
        args.sequences, args.constraints = read_constrained(args.sequences, unknown)
    if "output" not in args and "-" not in tables:
        args.output = "-"
    return compute("fold", args)


@command(
    summary="which bases are close in space",
    arguments=(FASTA, MODEL, argument("-o --output OUT.npz", "file to write", required=True)),
    options=options.HeadOptions,
    resumes=True,
)
def closeness(args: argparse.Namespace) -> int:
    """Predict which bases are close in space, for each sequence of a FASTA file, by a model with a
    closeness head (`ernie-rna convert` converts the authors' fine-tuned checkpoint; -m mini has no
    such head).

    OUT.npz has the map of each sequence under its id: (length, length) in float32, symmetric, the
    probability that two bases are close. `ernie-rna plot --what closeness` draws a map.

    examples:
      ernie-rna closeness rna.fasta -m MODEL -o maps.npz
      ernie-rna plot rna.fasta -m MODEL --id tRNA --what closeness -o tRNA.png
    """
    return compute("closeness", args)


@command(
    summary="effects of all substitutions, by the masked language model",
    arguments=(
        FASTA,
        MODEL,
        argument("-o --output OUT.tsv", "effects of all substitutions; - is stdout"),
        argument("--positions OUT.tsv", "log-probabilities at each position; - is stdout"),
        argument("--summary OUT.tsv", "a line for each sequence; - is stdout"),
    ),
    options=options.MutateOptions,
    resumes=True,
)
def mutate(args: argparse.Namespace) -> int:
    """Score the nucleotides of each sequence, and every single substitution, by the masked language
    model. Each position is masked in turn, so a sequence of L nucleotides takes L passes. P is the
    model's probability of a letter given all others, a softmax over A, C, G and U (see
    --vocabulary); log is the natural logarithm.

    Tables are .tsv or .csv, by the extension:

      -o           the effects: id, position (from 1), wildtype, mutant, and
                   effect = log P(mutant) - log P(wildtype), negative where the model prefers the
                   wildtype
      --positions  id, position, wildtype, log_p_A, log_p_C, log_p_G, log_p_U, and log_likelihood of
                   the wildtype
      --summary    id, length, scored (positions with scores), pseudo_log_likelihood (the sum of
                   their log-likelihoods) and pseudo_perplexity (exp of minus their mean)

    T is read as U and written as U, unless --keep-letters is given. N and the other IUPAC codes are
    context without scores: no line in the effects, NA in the positions, not counted in the summary.

    examples:
      ernie-rna mutate rna.fasta -m mini -o effects.tsv
      ernie-rna mutate rna.fasta -m MODEL --summary perplexity.tsv
      ernie-rna mutate rna.fasta -m MODEL -o effects.tsv --unmasked    one pass for each sequence
    """
    if not {"output", "positions", "summary"} & vars(args).keys():
        raise ValueError("nothing to write: give -o, --positions or --summary")
    return compute("mutate", args)


@command(
    summary="classes, labels or numbers by a fine-tuned model",
    arguments=(
        argument("sequences IN", "FASTA or table, or - for FASTA from stdin"),
        MODEL,
        argument("-o --output OUT", "- is stdout, as TSV", required=True),
    ),
    options=options.PredictOptions,
    resumes=True,
)
def predict(args: argparse.Namespace) -> int:
    """Predict labels of sequences or of bases with a model that `ernie-rna finetune` trained, or
    with the authors' model for mean ribosome loading. A pretrained model, such as -m mini, must be
    fine-tuned first.

    IN is FASTA, or a table (.csv, .tsv) with a column of sequences. OUT (.csv, .tsv) has a row for
    each sequence or base: id and length (position and base), or the columns of the table; then
    `predicted` and the probability p_NAME of each class or label, or each number as predicted_NAME
    in its unit (mrl of the authors' model: ribosomes per transcript, for regions of 25 to 100 nt).
    Tables of bases omit the columns of sequences and labels. .npz, .h5, .safetensors and .parquet
    have the ids and an array of probabilities or numbers, as in `ernie-rna embed`.

    With --label-column, the metrics of `ernie-rna finetune` are printed for the predictions.

    examples:
      ernie-rna predict utrs.fasta -m MODEL -o loading.tsv
      ernie-rna predict rnas.csv -m MODEL --label-column family -o families.csv
      ernie-rna predict rnas.tsv -m MODEL -o - | sort -t "$(printf '\\t')" -k4,4gr | head
    """
    return compute("predict", args)


_KINDS = "\n\n" + "\n".join(
    textwrap.fill(f"{name:<15}{text}", 96, initial_indent="  ", subsequent_indent=" " * 17)
    for name, text in options.PLOTS.items()
)


@command(
    summary="pictures of structures, pairing maps and substitutions",
    arguments=(
        FASTA,
        MODEL,
        argument("-o --output OUT", "picture to write", required=True),
        argument("--values OUT.npz", "file for the numbers in the picture"),
    ),
    options=options.PlotOptions,
    note=_KINDS,
    leave_out=(*options.NOT_OF_PLOTS, "matrix", "vocabulary"),
)
def plot(args: argparse.Namespace) -> int:
    """Draw the model's output for a sequence or for all, with matplotlib (pip install
    "ernie-rna[plot]"). The extension of OUT chooses the format: .png, .svg or .pdf. Positions count
    from 1.

    examples:
      ernie-rna plot rna.fasta -m mini --id tRNA --what map -o map.png
      ernie-rna plot rna.fasta -m MODEL --id tRNA --what heads --layer 6 -o heads.svg
      ernie-rna plot rna.fasta -m MODEL --id tRNA --what arcs --reference known.ct -o arcs.svg
      ernie-rna plot rna.fasta -m MODEL --id tRNA --what arcs --confidence -o arcs.svg
      ernie-rna plot rna.fasta -m MODEL --id tRNA --what layout -o drawing.svg
    """
    picture = ernie_rna.plot(**typed(args))
    if "progress" not in args:
        print(f"{args.output}: {picture.caption}", file=sys.stderr)
    return 0


@command(
    summary="the web page",
    arguments=(
        argument(
            "-m --model MODEL",
            f"{options.MODEL_HELP} (the default); may be given more than once",
            dest="models",
            action="append",
        ),
    ),
    options=options.ServeOptions,
)
def serve(args: argparse.Namespace) -> int:
    """Show structures, pairing maps, substitutions and embeddings in a web browser (pip install
    "ernie-rna[web]"). The page loads nothing from other servers. The input of visitors is kept in a
    temporary folder for at most an hour.

    Each request is computed in a process with limited time and memory; further requests wait in a
    queue. Visitors can choose among the models given by -m.

    examples:
      ernie-rna serve
      ernie-rna serve -m mini -m ./ERNIE-RNA --port 8080
      ernie-rna serve --host 0.0.0.0 --workers 2 --threads 4     reachable from other machines
    """
    from ernie_rna.web.server import serve

    serve(**typed(args))
    return 0


@command(
    summary="train on labelled sequences",
    arguments=(
        argument("train TRAIN", "table or other files, see above"),
        MODEL,
        argument("-o --output OUT", "folder to write", required=True),
        argument("--json", "print metrics and settings as JSON"),
    ),
    options=FinetuneOptions,
    interrupted="; a run without --resume starts anew",
    shares_work=True,
)
def finetune(args: argparse.Namespace) -> int:
    """Fine-tune a model on labelled sequences, by transformers' Trainer (pip install
    "ernie-rna[train]").

    TRAIN is a CSV or TSV file with a header; masked-lm also takes FASTA, and structure .ct, .bpseq
    or .dbn files or a folder of them. It is checked before any work begins. OUT is the folder of
    the trained model with its tokenizer, code, card, metrics.json and log.jsonl; it loads with
    trust_remote_code. Metrics are printed beside those of the simplest guess and of a regression on
    k-mer counts; for structures, beside those of ViennaRNA.

    examples:
      ernie-rna finetune data.tsv -m MODEL -o OUT --task classification --label-column family \\
          --split-column split --eval-split test
      ernie-rna finetune train.csv -m MODEL -o OUT --task regression --label-column mrl \\
          --eval-file test.csv --eval-steps 100 --best r2 --patience 3
      ernie-rna finetune spreadsheet.csv -m mini -o OUT --task regression --split similar --folds 5
      ernie-rna finetune rnas.fasta -m MODEL -o OUT --task masked-lm --mask-pairing pretraining
      ernie-rna finetune known.tsv -m MODEL -o OUT --task structure --lora 8 --resume
      torchrun --nproc-per-node 2 -m ernie_rna finetune ct/ -m MODEL -o OUT --task structure
    """
    from ernie_rna.training.finetune import leads
    from ernie_rna.training.metrics import format_metrics

    if "resume" in args:
        args.interrupted = RESUMES
    keywords = typed(args)
    as_json = keywords.pop("json", False)
    try:
        summary = ernie_rna.finetune(**keywords)
    except Exception:
        if _first_process_reports():
            return 1
        raise
    if not leads():
        return 0
    for note in summary.notes:
        print(f"ernie-rna: note: {note}", file=sys.stderr)
    if "progress" not in args or (summary.estimate and not as_json):
        print(summary.text, file=sys.stderr)
    if as_json or summary.metrics:
        print(summary.as_json() if as_json else format_metrics(summary.metrics))
    return 0


def _first_process_reports() -> bool:
    """Whether the first process of this machine fails alike, as before training begins."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        return False
    import torch

    return not torch.distributed.is_initialized()
