"""Configuration of ERNIE-RNA (Yin et al., Nature Communications 16:8407, 2025)."""

from transformers import PretrainedConfig

# The dictionary of the authors' checkpoint; a token's id is its index.
VOCABULARY = (
    *("<cls>", "<pad>", "<eos>", "<unk>"),
    *("G", "A", "U", "C", "N", "Y", "R", "S", "K", "W", "M", "D", "H", "V", "B", "X", "I"),
    *("madeupword0000", "madeupword0001", "madeupword0002", "<mask>"),
)

# Where the potential of two bases to pair comes from.
PAIRING_SCORES = ("sequence", "zero")

# Where the Auto classes find the code in a folder; saved with every model.
AUTO_MAP = {
    "AutoConfig": "configuration_ernie_rna.ErnieRnaConfig",
    "AutoModel": "modeling_ernie_rna.ErnieRnaModel",
    "AutoModelForMaskedLM": "modeling_ernie_rna.ErnieRnaForMaskedLM",
    "AutoModelForSequenceClassification": "modeling_ernie_rna.ErnieRnaForSequenceClassification",
    "AutoModelForTokenClassification": "modeling_ernie_rna.ErnieRnaForTokenClassification",
    "AutoModelForPreTraining": "modeling_ernie_rna.ErnieRnaForPreTraining",
}
# The heads of the authors' fine-tuned models; in the folder of one, AutoModel finds it.
HEAD_MODELS = (
    "ErnieRnaForSecondaryStructure",
    "ErnieRnaForCloseness",
    "ErnieRnaForRibosomeLoading",
)
# Models with a head for the pairs of structures, and the pipeline that their folders have.
WITH_PAIR_HEAD = ("ErnieRnaForSecondaryStructure", "ErnieRnaForPreTraining")
PIPELINE = ("rna-secondary-structure", "pipeline_ernie_rna.RnaSecondaryStructurePipeline")


class ErnieRnaConfig(PretrainedConfig):
    """Sizes, rates and constants of an ERNIE-RNA model; the defaults are the released model.

    Args:
        vocab_size: number of token ids.
        hidden_size: width of the hidden states; even, and a multiple of `num_attention_heads`.
        num_hidden_layers: number of transformer layers.
        num_attention_heads: attention heads per layer.
        intermediate_size: width of the feed-forward layer.
        hidden_act: activation of the feed-forward layer and of the LM head; only `"gelu"`
            (exact, with erf) exists.
        max_position_embeddings: longest input of pretraining, in tokens, special ones included.
            Positions are computed, so longer inputs work; the tokenizer warns.
        hidden_dropout_prob: dropout after the embeddings, attention and feed-forward blocks.
        attention_probs_dropout_prob: dropout of the attention weights.
        activation_dropout: dropout after the feed-forward activation.
        classifier_dropout: dropout before a classifier; None takes `hidden_dropout_prob`.
        layer_norm_eps: epsilon of every LayerNorm.
        initializer_range: standard deviation of newly drawn weights.
        norm_first: False (the released weights) normalises after each residual sum, True before
            each block and once more after the last layer.
        au_pairing_score: potential of an A and a U to pair.
        gc_pairing_score: potential of a G and a C to pair.
        gu_pairing_score: potential of a G and a U to pair.
        pairing_scores: the potential of two bases to pair that `forward` uses unless it is given
            one: "sequence", these scores read off the sequence, or "zero" everywhere, as in
            the authors' script for structures.
        pairing_hidden_size: hidden width of `twod_proj`, which maps a pairing score to a bias
            for each head of the first layer.
        has_pooler: False if the weights have none; `pooler_output` is then None.
        score_memory: "carry" hands the attention scores, seq² memory, from layer to layer;
            "recompute" sums them up again in each layer, in blocks and memory linear in seq, for
            more time; "auto" carries them up to `max_position_embeddings` tokens and beyond
            while they take at most half of the free memory.
        cls_token_id, pad_token_id, eos_token_id, unk_token_id, mask_token_id: special ids.
        pair_heads: heads whose last attention scores the pair head reads, counted from 0; None
            takes all.
        pair_channels: channels of the pair head's residual blocks.
        pair_blocks: how many residual blocks the pair head has.
        pair_dropout: dropout after the pair head's first convolution.
        pair_block_dropout: dropout inside each of its blocks.
        pair_positive_weight: weight of a pair in the pair loss; an entry without one has 1.
        pair_threshold: logit around which structure prediction weights the pair head's scores;
            the default is the authors'.
        pair_calibration: slope above 0 and offset of the line from the pair head's logits to
            log-odds, fitted to known structures; None if none was fitted.
        pair_prior: weight above 0 and offset with which the log-odds of an energy model are added
            to the pair head's logits, fitted to known structures; None if none were fitted.
        pair_prior_calibration: with such a prior, the weights of the calibrated log-odds and of
            the prior's, both above 0, and the offset, that give the log-odds of a pair; None takes
            `pair_calibration` of the sum.
        loading_channels: channels of the ribosome loading head's convolutions.
        loading_reduced_size: width that it brings the hidden states to first.
        loading_blocks: how many residual blocks it has.
        loading_dropout: dropout before its last map.
        loading_mean, loading_scale: mean ribosome loading = mean + scale * standardised output;
            the defaults are the authors' scaler.
        weights_origin: where the weights come from: "random" (drawn and never trained; set by
            `from_config` and by the conversion of such a checkpoint), "checkpoint" (converted),
            "fine-tuned", or any other text; None if unknown.

    Raises:
        ValueError: a value is out of range or two values disagree; the message names them.
    """

    model_type = "ernie_rna"

    def __init__(
        self,
        vocab_size: int = len(VOCABULARY),
        hidden_size: int = 768,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 12,
        intermediate_size: int = 3072,
        hidden_act: str = "gelu",
        max_position_embeddings: int = 1024,
        hidden_dropout_prob: float = 0.1,
        attention_probs_dropout_prob: float = 0.1,
        activation_dropout: float = 0.0,
        classifier_dropout: float | None = None,
        layer_norm_eps: float = 1e-5,
        initializer_range: float = 0.02,
        norm_first: bool = False,
        au_pairing_score: float = 2.0,
        gc_pairing_score: float = 3.0,
        gu_pairing_score: float = 0.8,
        pairing_scores: str = "sequence",
        pairing_hidden_size: int = 6,
        has_pooler: bool = True,
        score_memory: str = "auto",
        cls_token_id: int = VOCABULARY.index("<cls>"),
        pad_token_id: int = VOCABULARY.index("<pad>"),
        eos_token_id: int = VOCABULARY.index("<eos>"),
        unk_token_id: int = VOCABULARY.index("<unk>"),
        mask_token_id: int = VOCABULARY.index("<mask>"),
        tie_word_embeddings: bool = True,
        pair_heads: list[int] | None = None,
        pair_channels: int = 64,
        pair_blocks: int = 8,
        pair_dropout: float = 0.3,
        pair_block_dropout: float = 0.4,
        pair_positive_weight: float = 1.0,
        pair_threshold: float = 1.5,
        pair_calibration: list[float] | None = None,
        pair_prior: list[float] | None = None,
        pair_prior_calibration: list[float] | None = None,
        loading_channels: int = 64,
        loading_reduced_size: int = 32,
        loading_blocks: int = 6,
        loading_dropout: float = 0.5,
        loading_mean: float = 5.269799754058842,
        loading_scale: float = 1.3539032306228027,
        weights_origin: str | None = None,
        **kwargs,
    ):
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.hidden_act = hidden_act
        self.max_position_embeddings = max_position_embeddings
        self.hidden_dropout_prob = hidden_dropout_prob
        self.attention_probs_dropout_prob = attention_probs_dropout_prob
        self.activation_dropout = activation_dropout
        self.classifier_dropout = classifier_dropout
        self.layer_norm_eps = layer_norm_eps
        self.initializer_range = initializer_range
        self.norm_first = norm_first
        self.has_pooler = has_pooler
        self.au_pairing_score = au_pairing_score
        self.gc_pairing_score = gc_pairing_score
        self.gu_pairing_score = gu_pairing_score
        self.pairing_scores = pairing_scores
        self.pairing_hidden_size = pairing_hidden_size
        self.score_memory = score_memory
        self.cls_token_id = cls_token_id
        self.unk_token_id = unk_token_id
        self.mask_token_id = mask_token_id
        self.pair_heads = pair_heads
        self.pair_channels = pair_channels
        self.pair_blocks = pair_blocks
        self.pair_dropout = pair_dropout
        self.pair_block_dropout = pair_block_dropout
        self.pair_positive_weight = pair_positive_weight
        self.pair_threshold = pair_threshold
        self.pair_calibration = pair_calibration
        self.pair_prior = pair_prior
        self.pair_prior_calibration = pair_prior_calibration
        self.loading_channels = loading_channels
        self.loading_reduced_size = loading_reduced_size
        self.loading_blocks = loading_blocks
        self.loading_dropout = loading_dropout
        self.loading_mean = loading_mean
        self.loading_scale = loading_scale
        self.weights_origin = weights_origin
        kwargs.setdefault("tokenizer_class", "ErnieRnaTokenizer")
        kwargs.setdefault("architectures", [])  # AutoModel.from_config fails for None.
        kwargs |= {"pad_token_id": pad_token_id, "eos_token_id": eos_token_id}
        kwargs["tie_word_embeddings"] = tie_word_embeddings
        super().__init__(**kwargs)
        self.check_values()

    def save_pretrained(self, save_directory, *args, **kwargs):
        """Write config.json, in which the Auto classes find the code of every class.

        AutoModel finds the model that `architectures` names if it is one of `HEAD_MODELS`, else
        the encoder.
        """
        names = {*(self.architectures or ())}
        model = next((name for name in HEAD_MODELS if name in names), "ErnieRnaModel")
        # Others are of the folder or repository that the model comes from, and of its head.
        kept = {
            auto_class: place
            for auto_class, place in (getattr(self, "auto_map", None) or {}).items()
            if auto_class not in AUTO_MAP or place.rpartition(".")[2] in names
        }
        # Not in the constructor: a folder without code, whose map is empty, stays without.
        self.auto_map = {**AUTO_MAP, "AutoModel": f"modeling_ernie_rna.{model}", **kept}
        if names & {*WITH_PAIR_HEAD}:
            task, place = PIPELINE
            auto_class = "AutoModel" if model in HEAD_MODELS else "AutoModelForPreTraining"
            self.custom_pipelines = {task: {"impl": place, "pt": [auto_class], "type": "text"}}
        else:  # An encoder that was taken out of such a model.
            self.__dict__.pop("custom_pipelines", None)
        super().save_pretrained(save_directory, *args, **kwargs)

    def to_dict(self):
        """The values by name, without what a model has set for the Trainer."""
        values = super().to_dict()
        values.pop("keys_to_ignore_at_inference", None)
        return values

    def check_values(self) -> None:
        """Raise ValueError for values that no model can be built from, naming them."""
        for name in _SIZES:
            _require(_is_int(getattr(self, name), 1), self, "a positive integer", name)
        for name in _RATES:
            _require(_is_number(getattr(self, name), 0, 1), self, "a number in [0, 1)", name)
        for name in _LEAST_ZERO:
            _require(_is_number(getattr(self, name), 0), self, "a number of at least 0", name)
        for name in _NUMBERS:
            _require(_is_number(getattr(self, name)), self, "a finite number", name)
        for name in _TOKEN_IDS:
            value = getattr(self, name)
            fits = _is_int(value, 0) and value < self.vocab_size
            _require(fits, self, "an id below vocab_size", name, "vocab_size")
        dropout = self.classifier_dropout
        _require(
            dropout is None or _is_number(dropout, 0, 1),
            self,
            "None or a number in [0, 1)",
            "classifier_dropout",
        )
        origin = self.weights_origin
        _require(origin is None or isinstance(origin, str), self, "a word", "weights_origin")
        for name in ("norm_first", "has_pooler"):
            _require(isinstance(getattr(self, name), bool), self, "True or False", name)
        for name, choices in _CHOICES.items():
            _require(getattr(self, name) in choices, self, f"one of {choices}", name)
        _require(self.hidden_act == "gelu", self, '"gelu", the only activation', "hidden_act")
        _require(self.hidden_size % 2 == 0, self, "even (sine and cosine halves)", "hidden_size")
        divides = self.hidden_size % self.num_attention_heads == 0
        _require(divides, self, "a multiple of the heads", "hidden_size", "num_attention_heads")
        # The checkpoint has one matrix for both, and the conversion writes one.
        _require(self.tie_word_embeddings is True, self, "True", "tie_word_embeddings")
        heads, all_heads = self.pair_heads, self.num_attention_heads
        named = heads is None or (
            isinstance(heads, (list, tuple))
            and len(heads) > 0
            and all(_is_int(head, 0) and head < all_heads for head in heads)
        )
        _require(named, self, "None or a list of heads", "pair_heads", "num_attention_heads")
        for name, slopes in _LINES.items():
            line = getattr(self, name)
            fitted = line is None or (
                isinstance(line, (list, tuple))
                and len(line) == slopes + 1
                and all(_is_number(value) for value in line)
                and min(line[:slopes]) > 0
            )
            rule = f"None, or {_COUNTS[slopes]} above 0 and an offset"
            _require(fitted, self, rule, name)

    def check_pair_head(self) -> None:
        """Raise ValueError if no pair head can be built; most models have none."""
        maps = self.num_attention_heads if self.pair_heads is None else len(self.pair_heads)
        names = ("pair_channels", "pair_heads", "num_attention_heads")
        rule = f"more than the {maps} maps that come in"
        _require(self.pair_channels > maps, self, rule, *names)


_SIZES = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"),
    *("intermediate_size", "max_position_embeddings", "pairing_hidden_size"),
    *("pair_channels", "pair_blocks", "loading_channels", "loading_reduced_size", "loading_blocks"),
)
_RATES = (
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "activation_dropout"),
    *("pair_dropout", "pair_block_dropout", "loading_dropout"),
)
_NUMBERS = (
    *("au_pairing_score", "gc_pairing_score", "gu_pairing_score"),
    *("pair_threshold", "loading_mean"),
)
_LEAST_ZERO = ("layer_norm_eps", "initializer_range", "pair_positive_weight", "loading_scale")
# Lines with slopes and an offset, by the number of slopes.
_LINES = {"pair_calibration": 1, "pair_prior": 1, "pair_prior_calibration": 2}
_COUNTS = {1: "a slope", 2: "two slopes"}
_CHOICES = {"score_memory": ("carry", "recompute", "auto"), "pairing_scores": PAIRING_SCORES}
_TOKEN_IDS = ("cls_token_id", "pad_token_id", "eos_token_id", "unk_token_id", "mask_token_id")


def _require(condition: bool, config: ErnieRnaConfig, rule: str, *names: str) -> None:
    """Raise ValueError that shows each named value unless the condition holds."""
    if not condition:
        values = ", ".join(f"{name}={getattr(config, name)!r}" for name in names)
        raise ValueError(f"{names[0]} must be {rule}; got {values}")


def _is_int(value: object, low: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def _is_number(value: object, low: float = -1e30, high: float = 1e30) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value < high


ErnieRnaConfig.register_for_auto_class()
