"""The continuum file as types: every key, its default, and what it may be.

Values are strict: `epochs: "3"`, `epochs: true` and `epochs: 3.0` are errors, not threes. Everything is frozen, so a
`Continuum` can be passed around and compared.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from liit.config import names
from liit.config.fields import (
    Dtype,
    EmbeddingLayers,
    Expert,
    ExpertMode,
    FileName,
    Format,
    Layers,
    LocalPath,
    MethodName,
    Metric,
    Section,
    Selector,
    Text,
    Tracker,
    ascending,
    different,
    regex_or_names,
    resolve_model,
    some,
)


class ModelSettings(Section):
    """Which vision-language model is tuned, and how it is loaded."""

    path: Annotated[str, Field(min_length=1), AfterValidator(resolve_model)] = Field(
        description="a Hugging Face model id, a folder with a checkpoint, or builtin:demo"
    )
    dtype: Dtype = Field("float32", description="type of the frozen weights")
    revision: str | None = Field(None, description="commit or tag of the model on the hub")
    trust_remote_code: bool = Field(
        False, description="run code that comes with the checkpoint; off unless you trust it"
    )
    max_length: PositiveInt = Field(2048, description="longest sample in tokens, image tokens included")
    image_options: dict[Text, Any] | None = Field(
        None, description="settings of the model's image processor to change, such as {max_pixels: 602112} for Qwen-VL"
    )
    vision_cache: bool = Field(
        True, description="keep what the frozen vision tower gives for an image on disk, for later steps and methods"
    )


class LoraSettings(Section):
    """The trainable part of the model: low-rank adapters on the language model."""

    r: PositiveInt = Field(128, description="rank")
    alpha: PositiveFloat = Field(256.0, description="scale; the update is multiplied by alpha / r")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.05, description="dropout before the adapter, in training only"
    )
    target_modules: Annotated[
        str | Annotated[tuple[Text, ...], AfterValidator(some)], AfterValidator(regex_or_names)
    ] = Field(
        "language-linear",
        description="language-linear, language-and-projector-linear, a list of name ends, or a regex on full names",
    )
    adapter: Literal["continue", "merge", "new"] = Field(
        "continue",
        description="continue: every step trains the adapter of the last step on; merge: that goes into the weights, "
        "and a fresh one is trained; new: each step trains a fresh one on the base model",
    )


class TrainingSettings(Section):
    """How one step is trained."""

    epochs: PositiveInt = Field(1, description="passes over the selection")
    batch_size: PositiveInt = Field(128, description="samples per optimizer step")
    gradient_accumulation: PositiveInt | None = Field(
        None, description="batches that make up an optimizer step; null: as few as hold at most 32 samples each"
    )
    gradient_checkpointing: bool = Field(
        False, description="compute activations again in the backward pass instead of keeping them: less memory, slower"
    )
    learning_rate: PositiveFloat = Field(2e-4, description="peak learning rate")
    projector_learning_rate: PositiveFloat | None = Field(
        None, description="of the layers between vision tower and decoder, when they train; null: as learning_rate"
    )
    optimizer: Literal["adamw", "muon"] = Field("adamw", description="muon: Muon for matrices, AdamW for the rest")
    schedule: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="after the warm-up, anew at each step"
    )
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.03, description="share of the optimizer steps that warm up"
    )
    weight_decay: NonNegativeFloat = Field(0.0, description="decoupled weight decay")
    max_grad_norm: PositiveFloat = Field(1.0, description="gradients are clipped to this norm")
    autocast: Literal["bfloat16", "float16"] | None = Field(
        None, description="type of the arithmetic, when not the weights'"
    )
    multitask_epochs: PositiveInt | None = Field(
        None, description="epochs of the multitask reference, which trains once on everything; null: as epochs"
    )
    save_steps: PositiveInt | None = Field(
        50, description="optimizer steps between the states that a killed training goes on from; null: it begins anew"
    )
    report_to: Literal["none"] | Annotated[tuple[Tracker, ...], AfterValidator(some)] = Field(
        "none", description="none, or a list of trackers that get loss and learning rate: tensorboard, wandb, trackio"
    )

    @property
    def batches(self) -> int:
        """Batches that make up an optimizer step."""
        if self.gradient_accumulation is not None:
            return self.gradient_accumulation
        return next(n for n in range(1, self.batch_size + 1) if self.batch_size / n <= 32 and not self.batch_size % n)

    @model_validator(mode="after")
    def _batches_are_equal(self) -> Self:
        if self.gradient_accumulation and self.batch_size % self.gradient_accumulation:
            raise ValueError(
                f"gradient_accumulation: got {self.gradient_accumulation}, expected a divisor of batch_size, which is "
                f"{self.batch_size}"
            )
        return self


class RescoreSettings(Section):
    """Which rows of the last step's pool are scored again; the rest is predicted from the last step's features."""

    share: Annotated[float, Field(gt=0, lt=1)] = Field(0.25, description="part of these rows that is scored again")
    sample: Annotated[float, Field(gt=0, le=1)] = Field(
        0.5,
        description="part of that, drawn from every cluster to see how far it has moved; the rest goes where most has",
    )


class FeatureSettings(Section):
    """What the extraction pass computes for each sample."""

    layers: Layers = Field(
        "middle", description="decoder layers whose gradients are taken: middle, all, a number (-1: the last) or a list"
    )
    gradient_of: Literal["lora", "weights"] = Field(
        "lora", description="lora: the adapter's factors; weights: the weights of the layers, sketched from both sides"
    )
    sketch: Literal["signed-fold", "rademacher"] = Field(
        "signed-fold", description="how a gradient is shortened; rademacher is the paper's and costs dim times more"
    )
    dim: PositiveInt = Field(8192, description="numbers in the sketch of one gradient")
    factor_width: PositiveInt = Field(
        64, description="of gradient_of: weights, what each side of a weight's gradient is shortened to first"
    )
    blind: Literal["drop", "zeros"] = Field(
        "drop", description="how image grounding takes the image away: drop removes it, zeros blackens it"
    )
    batch_tokens: PositiveInt | None = Field(
        None, description="tokens per batch; null: 1024 on a CPU, 8192 elsewhere; changes speed and memory, not results"
    )
    share_beginnings: bool = Field(
        True, description="rows that begin alike share the work on their beginning; changes speed, not results"
    )
    embedding_layer: EmbeddingLayers = Field(
        "middle", description="decoder layer whose mean hidden state is the embedding; of a list, side by side"
    )
    attention_mass: Annotated[float, Field(gt=0, le=1)] = Field(
        0.9, description="share of the instruction's attention that instructed_vision averages over (ScalSelect's tau)"
    )
    dtype: Literal["float16", "bfloat16", "float32"] = Field("float16", description="type of vectors on disk")
    share_images: bool = Field(
        False,
        description="rows of one image share the layers below those whose gradients are taken; rounds differently",
    )
    autocast: Literal["bfloat16"] | None = Field(
        None, description="compute matrix products of the scoring passes in this type; changes the third digit"
    )
    proxy: Annotated[str, Field(min_length=1), AfterValidator(resolve_model)] | None = Field(
        None,
        description="score with this model, as it is and with a fresh adapter, instead of with the one in training",
    )
    rescore: RescoreSettings | None = Field(
        None, description="after the first step score only some of the rows known from the last one; null: all of them"
    )

    @model_validator(mode="after")
    def _proxy_never_moves(self) -> Self:
        if self.proxy is not None and self.rescore is not None:
            raise ValueError("rescore: proxy is never trained, so what it scores stays the same; leave one of them out")
        return self


class SelectionSettings(Section):
    """How `adapt-inf` and `lite-adapt-inf` choose."""

    expert: ExpertMode = Field(
        "entropy",
        description="entropy: each cluster uses its most spread-out score; rank-average: the mean rank over all; "
        "mixture: all share each cluster's budget",
    )
    k: PositiveInt | None = Field(None, description="number of clusters; null: chosen from k_grid at every step")
    k_grid: Annotated[tuple[PositiveInt, ...], AfterValidator(some), AfterValidator(ascending)] = Field(
        tuple(range(5, 51, 5)), description="numbers of clusters to try"
    )
    bins: PositiveInt = Field(50, description="bins of score histograms")
    trim: Annotated[float, Field(ge=0, lt=0.5)] = Field(
        0.05, description="share of scores set aside at each end as outliers"
    )
    experts: Annotated[tuple[Expert, ...], AfterValidator(some), AfterValidator(different)] = Field(
        ("log_perplexity", "el2n", "entropy", "image_grounding", "grad_norm"), description="the scores that compete"
    )


class QuerySettings(Section):
    """Examples of what the model should be good at, for the selectors that need some (`rds-plus`, `gist`, `less`)."""

    kind: Literal["dev", "replay", "file"] = Field(
        "dev",
        description="dev: the development rows of every skill seen so far (steps[].dev); replay: samples drawn from "
        "the pool, evenly from its sources; file: the rows of queries.path",
    )
    per_group: PositiveInt | None = Field(
        None, description="at most so many of each skill (of each source, for replay: 20 unless given); null: all"
    )
    path: LocalPath | None = Field(None, description="of kind file: the data file")
    format: Format = Field("llava-json", description="of kind file: how it is written")
    images: LocalPath | None = Field(None, description="of kind file: folder that image paths start from")
    skill_key: Text = Field("skill", description="of kind file: key of a row's skill, by which queries are grouped")
    allow_outside: bool = Field(False, description="of kind file: let image paths lead out of the image folder")


class PruningSettings(Section):
    """What a method that prunes lets go for good."""

    pool_size: PositiveInt | None = Field(
        None, description="samples that stay in the pool; methods that prune need it, such as lite-adapt-inf"
    )


class ReplaySettings(Section):
    """The part of a method's budget that goes to earlier data."""

    share: Annotated[float, Field(gt=0, lt=1)] = Field(0.5, description="of the budget")
    selector: Selector = Field("random-balanced", description="who chooses among the samples of earlier steps")
    options: dict[Text, Any] = Field(default_factory=dict, description="of that selector")


class HookSettings(Section):
    """One training hook of a method."""

    name: Text = Field(description="a registered training hook, such as gradient-guidance or ewc")
    options: dict[Text, Any] = Field(default_factory=dict, description="of the hook")


class MethodSettings(Section):
    """A method of one's own: selector, pruner and training hooks under a name."""

    description: str = Field("", description="one line")
    selector: Selector = Field(description="who chooses what is trained on")
    options: dict[Text, Any] = Field(default_factory=dict, description="of the selector; they go before 'selection'")
    new_only: bool = Field(False, description="choose only from the samples that came with the step")
    replay: ReplaySettings | None = Field(
        None, description="a part of the budget for earlier data; the selector then chooses from the new data only"
    )
    pruner: Literal["semantic"] | None = Field(
        None, description="semantic: after each step the most redundant samples leave the pool (pruning.pool_size stay)"
    )
    hooks: tuple[HookSettings, ...] = Field((), description="what acts on the training, in this order")


class EvaluationSettings(Section):
    """How answers are generated."""

    batch_size: PositiveInt = Field(64, description="questions per batch; changes speed and memory, not results")
    max_new_tokens: PositiveInt = Field(32, description="longest answer in tokens")


class TrainSet(Section):
    """One dataset that arrives at a step."""

    path: LocalPath = Field(description="the data file, a folder of data files, or a pattern such as shard-*.tar")
    format: Format = Field("llava-json", description="how the file is written")
    images: LocalPath | None = Field(None, description="folder that image paths start from; null: the data file's own")
    source: Text = Field("", description="name of the dataset in reports; the step's name unless given")
    skill_key: Text = Field("skill", description="key of a row's skill label")
    allow_outside: bool = Field(
        False, description="let image paths lead out of the image folder; only for files you trust"
    )
    embed_images: bool = Field(
        False, description="copy the images into the pool, so that the run needs the original files no more"
    )


class EvaluationSet(Section):
    """Questions that measure one skill."""

    skill: Text = Field(description="name of the skill, once in the whole file")
    path: LocalPath = Field(description="the file, folder or pattern with questions and reference answers")
    metric: Metric = Field(description="how an answer is compared with the reference")
    metric_options: dict[Text, Any] = Field(default_factory=dict, description="of the metric, such as {threshold: 0.7}")
    format: Format = Field("llava-json", description="how the file is written")
    images: LocalPath | None = Field(None, description="folder that image paths start from; null: the data file's own")
    allow_outside: bool = Field(
        False, description="let image paths lead out of the image folder; only for files you trust"
    )
    split: Text | None = Field(None, description="ask only the rows with this under their key 'split'; null: all rows")
    instruction: str = Field("", description="put below every question, on a line of its own")
    answers_key: Text | None = Field(
        None, description="key of a row's list of right answers; null: its last message is the only one"
    )
    version: PositiveInt | None = Field(None, description="number of the questions' version, kept with every result")

    @field_validator("metric_options")
    @classmethod
    def _options_of_the_metric(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if "metric" in info.data:  # absent when the metric itself is wrong, which is then the error shown
            names.check_metric_options(info.data["metric"], options)
        return options


class TaskFile(EvaluationSet):
    """A file of its own that says how one skill is measured, for any continuum: `task: FILE` names it."""

    version: PositiveInt = Field(description="counts up whenever results can no longer be compared with earlier ones")
    description: str = Field("", description="what is asked, where the rows come from; for people")


class QuerySet(Section):
    """Development rows of one skill: held out, neither trained on nor evaluated on."""

    skill: Text = Field(description="name of the skill")
    path: LocalPath = Field(description="the file, folder or pattern with questions and reference answers")
    format: Format = Field("llava-json", description="how the file is written")
    images: LocalPath | None = Field(None, description="folder that image paths start from; null: the data file's own")
    allow_outside: bool = Field(
        False, description="let image paths lead out of the image folder; only for files you trust"
    )


class Step(Section):
    """One arrival of data, with the skills it introduces."""

    name: FileName = Field(description="part of a folder name, once in the file")
    train: Annotated[tuple[TrainSet, ...], AfterValidator(some)] = Field(description="the datasets that arrive")
    evaluation: tuple[EvaluationSet, ...] = Field((), description="the skills that this step introduces")
    dev: tuple[QuerySet, ...] = Field((), description="development rows of its skills, for methods that need queries")
    budget: PositiveInt | None = Field(None, description="samples trained on at this step, when not the general budget")

    @field_validator("train")
    @classmethod
    def _source_is_the_step_unless_named(
        cls, train: tuple[TrainSet, ...], info: ValidationInfo
    ) -> tuple[TrainSet, ...]:
        name = info.data.get("name", "")  # absent when the name itself is wrong, which is then the error shown
        return tuple(item if item.source else item.model_copy(update={"source": name}) for item in train)


class Continuum(Section):
    """A whole continuum: what arrives when, and how the model is kept learning."""

    name: FileName = Field(description="name of the continuum")
    seed: NonNegativeInt = Field(0, description="everything random follows from it")
    budget: PositiveInt = Field(description="samples trained on at each step")
    method: MethodName = Field(
        "adapt-inf", description="selector, pruner and training under one name; see `liit methods`"
    )
    model: ModelSettings = Field(description="the model that is tuned")
    lora: LoraSettings = Field(default_factory=LoraSettings)
    training: TrainingSettings = Field(default_factory=TrainingSettings)
    features: FeatureSettings = Field(default_factory=FeatureSettings)
    selection: SelectionSettings = Field(default_factory=SelectionSettings)
    queries: QuerySettings = Field(default_factory=QuerySettings)
    pruning: PruningSettings = Field(default_factory=PruningSettings)
    evaluation: EvaluationSettings = Field(default_factory=EvaluationSettings)
    steps: Annotated[tuple[Step, ...], AfterValidator(some)] = Field(description="the arrivals, in order")
    unseen: tuple[EvaluationSet, ...] = Field((), description="skills that no step teaches")
    methods: dict[MethodName, MethodSettings] = Field(
        default_factory=dict, description="methods of your own, by name; `method` may then name one"
    )

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        seen: dict[str, int] = {}
        for number, step in enumerate(self.steps):
            # Compared without case: some file systems would put both steps into one folder.
            first = seen.setdefault(step.name.casefold(), number)
            if first != number:
                raise MisplacedError(
                    ("steps", number, "name"),
                    f"step name '{step.name}' is taken by step {first + 1}; names must differ",
                )
        skills: set[str] = set()
        for key, item in self.evaluation_sets():
            if item.skill in skills:
                raise MisplacedError(
                    (*key, "skill"), f"skill '{item.skill}' is measured twice; give each skill one entry"
                )
            skills.add(item.skill)
        return self

    @model_validator(mode="after")
    def _method_can_be_run(self) -> Self:
        from liit.lifelong.methods import problem_with  # which is built on this module

        found = problem_with(self)
        if found is not None:
            raise MisplacedError(*found)
        return self

    def budget_at(self, number: int) -> int:
        """Samples trained on at a step, counted from 1."""
        return self.steps[number - 1].budget or self.budget

    def evaluation_sets(self) -> list[tuple[tuple[str | int, ...], EvaluationSet]]:
        """Return every evaluation set with its key path, steps first, then the unseen skills."""
        taught = [
            (("steps", number, "evaluation", index), item)
            for number, step in enumerate(self.steps)
            for index, item in enumerate(step.evaluation)
        ]
        return [*taught, *((("unseen", index), item) for index, item in enumerate(self.unseen))]


class MisplacedError(ValueError):
    """A rule between keys is broken; carries the key to point at."""

    def __init__(self, key: tuple[str | int, ...], message: str) -> None:
        super().__init__(message)
        self.key = key
