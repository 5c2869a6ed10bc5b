"""Conversations as the tokens that an instruction-tuned model was trained on: its chat template.

A template writes roles, turn ends and BOS itself, so a tokenizer adds nothing to it, and a BOS is
never doubled. Control words within a message are text. A conversation that does not fit loses
tokens at the left of its last message: what comes before (system prompt, examples, roles) stays.

An answer ends at the tokens that end one for the model (`encoding.end_tokens`) and at the control
word which the template writes after an answer, where a model's own files leave that out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from langneurons.models.encoding import Pair, Prompt, control_words, following, name_of, text_ids
from langneurons.models.templates import unknown_option

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from langneurons.models.language_model import LanguageModel

Turn = tuple[str, str]  # what the user says, and the answer
Messages = Sequence[Mapping[str, str]]  # each with `role` and `content`
PROBE = "langneuronsprobe"


def _number(cut: tuple[int, int] | None) -> int:
    return 0 if cut is None else cut[1] - cut[0]


def chat_of(model: "LanguageModel", settings: Mapping[str, Any] | None) -> "Chat | None":
    """Return how a model is spoken to by settings (template, system, options); None: it is not."""
    if settings is None:
        return None
    return Chat(model.tokenizer, **settings, limit=model.max_positions)


class Chat:
    """A tokenizer's chat template with a system prompt; see the configuration key `models.*.chat`.

    template: a Jinja template in place of the tokenizer's own; options: its variables; limit: how
    many tokens the model reads at most.

    Raises:
        ValueError: There is no template, or it ignores the system prompt or an option.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        template: str | None = None,
        system: str | None = None,
        options: Mapping[str, Any] | None = None,
        limit: int | None = None,
    ):
        """Find the template."""
        self.tokenizer, self.limit, self.system = tokenizer, limit, system
        self._template, self._options = template, dict(options or {})
        if template is None:
            try:
                self._template = tokenizer.get_chat_template()
            except ValueError:
                raise ValueError(
                    f"tokenizer {name_of(tokenizer)} has no chat template, so it is not that of an"
                    " instruction-tuned model. Name a file with one as models.NAME.chat.template,"
                    " or leave models.NAME.chat out."
                ) from None
        if reason := unknown_option(str(self._template), self._options):
            raise ValueError(f"models.NAME.chat.options: {reason}")

    def messages(
        self, user: str, turns: Sequence[Turn] = (), instruction: str | None = None
    ) -> list[dict[str, str]]:
        """Return a conversation that ends with what the user says, after earlier turns.

        instruction: joins the system prompt, if there is one.
        """
        said = [text for text in (self.system, instruction) if text]
        found = [{"role": "system", "content": "\n".join(said)}] if said else []
        for asked, answered in turns:
            found += [
                {"role": "user", "content": asked},
                {"role": "assistant", "content": answered},
            ]
        return [*found, {"role": "user", "content": user}]

    def text(self, messages: Messages, answering: bool = True) -> str:
        """Return a conversation as the template writes it, up to where the answer begins."""
        return self._applied(messages, tokenize=False, add_generation_prompt=answering)

    def tokens(self, messages: Messages) -> list[int]:
        """Return the tokens of a conversation, up to where the answer begins."""
        return self._ids(messages, add_generation_prompt=True)

    def prompt(self, messages: Messages, room: int = 0) -> Prompt:
        """Return a conversation that fits with `room` tokens after it."""
        ids = self.tokens(messages)
        cut = self._cut(messages, ids, room)
        return Prompt(tuple(ids) if not cut else (*ids[: cut[0]], *ids[cut[1] :]), _number(cut))

    def reply(self, messages: Messages, answer: str) -> tuple[Pair, int]:
        """Return the tokens of a conversation and an answer that fit, and how many were cut.

        The last token is predicted and not read.
        """
        pair = self.pair(messages, answer)
        cut = self._cut(messages, pair.context, len(pair.continuation) - 1)
        context = pair.context if not cut else pair.context[: cut[0]] + pair.context[cut[1] :]
        return replace(pair, context=context), _number(cut)

    def pair(self, messages: Messages, answer: str) -> Pair:
        """Return the tokens of a conversation and of an answer to it, as in training.

        Where the template writes something else before an answer than before one that is still to
        come, or a token spans the two, the answer's tokens are those of a text that goes on.
        """
        context = self.tokens(messages)
        reply = {"role": "assistant", "content": answer}
        try:
            whole = self._ids([*messages, reply], continue_final_message=True)
        except ValueError:  # the template changes the answer's text
            whole = []
        if len(whole) > len(context) and whole[: len(context)] == context:
            return Pair(context, whole[len(context) :])
        rest = following(self.tokenizer, answer)
        if not rest:
            raise ValueError(f"empty answer {answer!r}: it has no tokens")
        both = text_ids(self.tokenizer, self.text(messages) + answer)
        return Pair(context, rest, apart=both != [*context, *rest])

    @property
    def known_as(self) -> dict[str, Any]:
        """What tells conversations of one tokenizer apart."""
        return {"template": self._template, "system": self.system, "options": self._options}

    @cached_property
    def ends(self) -> frozenset[int]:
        """The token of the control word that the template writes after an answer, if any."""
        reply = {"role": "assistant", "content": PROBE}
        written = self.text([{"role": "user", "content": "a"}, reply], answering=False)
        words = control_words(self.tokenizer)
        rest = written.rpartition(PROBE)[2].lstrip()
        first = [word for word in sorted(words, key=len, reverse=True) if rest.startswith(word)]
        return frozenset({words[first[0]]} if first else ())

    def _cut(self, messages: Messages, ids: Sequence[int], room: int) -> tuple[int, int] | None:
        """Return which tokens are to be left out so that `room` more fit, or None."""
        if self.limit is None or len(ids) + room <= self.limit:
            return None
        kept, over = self._before_last(messages, ids), len(ids) + room - self.limit
        if kept + over >= len(ids):
            raise ValueError(
                f"{room} more tokens leave no room for a conversation whose {kept} first tokens"
                f" come before the last message: the model reads {self.limit} tokens at most."
            )
        return kept, kept + over

    def _before_last(self, messages: Messages, ids: Sequence[int]) -> int:
        """Return how many of the first tokens come before the last message's text."""
        probe = [*messages[:-1], {**messages[-1], "content": PROBE}]
        number = 0
        for own, other in zip(ids, self.tokens(probe), strict=False):
            if own != other:
                break
            number += 1
        return number

    def _ids(self, messages: Messages, **how: bool) -> list[int]:
        return self._applied(
            messages, tokenize=True, return_dict=False, sanitize_control_tokens=True, **how
        )

    def _applied(self, messages: Messages, **how: Any) -> Any:
        from jinja2 import TemplateError

        try:
            return self.tokenizer.apply_chat_template(
                [dict(one) for one in messages],
                chat_template=self._template,
                **how,
                **self._options,
            )
        except TemplateError as error:
            roles = ", ".join(dict.fromkeys(one["role"] for one in messages))
            hint = ""
            if any(one["role"] == "system" for one in messages):
                hint = (
                    " If it takes no system prompt, leave out models.NAME.chat.system and use"
                    " instructions that stand in the user's message."
                )
            raise ValueError(
                f"the chat template of {name_of(self.tokenizer)} does not take messages of roles"
                f" {roles}: {error}.{hint}"
            ) from None
