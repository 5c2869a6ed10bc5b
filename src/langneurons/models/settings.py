"""Configuration key `models`: which models, from where, in which numeric format."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from langneurons.base.settings import COMMIT, NEWEST, Frozen


class HubSource(Frozen):
    """A repository of the Hugging Face hub."""

    kind: Literal["hub"]
    repo: str = Field(pattern=r"^[\w.-]+/[\w.-]+$", description="Repository, `owner/name`.")
    revision: str = Field(
        pattern=COMMIT,
        description="The commit (40 hexadecimal digits), so that a run can be repeated; or"
        f" `{NEWEST}`: the one that is newest when the model is first prepared. It is kept beside"
        " the weights and shown on the results page, and only from there can such a run be"
        " repeated.",
    )


class LocalSource(Frozen):
    """A folder in the layout of the hub."""

    kind: Literal["local"]
    path: str = Field(min_length=1, description="Folder with config.json and weights.")


class GgufSource(Frozen):
    """A GGUF file, from disk or assembled from the parts that a Python package ships."""

    kind: Literal["gguf"]
    path: str | None = Field(
        None, min_length=1, description="A GGUF file; or name a package instead."
    )
    package: str | None = Field(
        None, description="Distribution whose parts `<package>-part<n>` hold the file."
    )
    version: str | None = Field(None, description="Version of the package and its parts.")
    file: str | None = Field(None, description="Name of the assembled file.")
    sha256: str | None = Field(
        None, pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the assembled file."
    )
    terms: str | None = Field(None, description="Where the model's licence terms are.")


ModelSource = Annotated[HubSource | LocalSource | GgufSource, Field(discriminator="kind")]


# What a tokenizer takes or fills in beside the variables of a template.
OCCUPIED = frozenset(
    "add_generation_prompt chat_template continue_final_message conversation documents max_length"
    " messages padding return_assistant_tokens_mask return_dict return_tensors"
    " sanitize_control_tokens tokenize tokenizer_kwargs tools truncation".split()
)


class ChatEntry(Frozen):
    """How an instruction-tuned model is spoken to; see `langneurons.models.chat`."""

    template: str | None = Field(
        None,
        min_length=1,
        description="File with a Jinja template; left out: the template of the tokenizer.",
    )
    system: str | None = Field(None, min_length=1, description="System prompt; left out: none.")
    options: dict[str, bool | int | str] = Field(
        default_factory=dict,
        description="Variables of the template, such as `enable_thinking: false`.",
    )

    @field_validator("options")
    @classmethod
    def _free(cls, value: dict[str, bool | int | str]) -> dict[str, bool | int | str]:
        for name in value:
            if name in OCCUPIED:
                raise ValueError(
                    f"{name!r} is not a variable that may be set: this project, or the tokenizer,"
                    " fills it in; leave it out"
                )
        return value


class ModelEntry(Frozen):
    """One model."""

    source: ModelSource = Field(description="Where the weights come from: hub, local or gguf.")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "bfloat16", description="Number format of weights and activations."
    )
    quantization: Literal["none", "nf4"] = Field(
        "none", description="nf4: 4-bit NormalFloat with double quantisation (bitsandbytes)."
    )
    gpus: int | None = Field(
        None,
        ge=0,
        le=64,
        description="GPUs of each of its jobs, over which its layers are spread; `runtime.gpu` if"
        " left out.",
    )
    chat: ChatEntry | None = Field(
        None,
        description="The model is instruction-tuned: where `chat: true` asks for it, prompts are"
        " messages of its chat template. Left out: a base model, which gets plain prompts.",
    )
    language_sets: tuple[str, ...] | None = Field(
        None, description="The language sets this model is run on; all if left out."
    )
    label: str | None = Field(None, description="Name in tables and figures.")
