"""Scoring and decoding: shared beginnings, branches of layers, decoding in batches."""

from common import reading_each_time

from sections import Check, Row, Setting, apart, check, rows_of, small_model, timing

CHOICES = 3
NEW_TOKENS = 32


class Numbers:
    """A tokenizer whose words are the numbers of tokens."""

    pad_token_id, bos_token_id, eos_token_id, unk_token = 0, 1, None, None
    all_special_tokens, added_tokens_decoder = (), {}

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        """Return the tokens of a text, BOS first."""
        ids = [int(word) if word.isdigit() else 9 for word in text.split()]
        return {"input_ids": [1, *ids] if add_special_tokens else ids}

    def decode(self, ids, skip_special_tokens: bool = True) -> str:
        """Return the text of tokens."""
        return " ".join(str(int(token)) for token in ids)


def _endless(model):
    """Return a model of which no token ends an answer."""
    model.config.eos_token_id = model.generation_config.eos_token_id = None
    return model


def _requests(vocabulary: int, number: int, size: int):
    """Return requests of a context of `size` tokens each, with continuations of 8."""
    import numpy as np

    generator = np.random.default_rng(0)

    def text(length: int) -> str:
        return " ".join(str(one) for one in generator.integers(8, vocabulary, length))

    contexts = [text(size) for _ in range(number)]
    return [(context, " " + text(8)) for context in contexts for _ in range(CHOICES)]


def _plans(sites, first: int, number: int):
    """Return plans that write 1 % of the neurons of the layers from `first` on."""
    import numpy as np

    from langneurons.interventions.plan import Plan, Write

    generator, found = np.random.default_rng(1), []
    size = max(round(0.01 * sites.d_mlp), 1)
    for k in range(number):
        plan = Plan(f"plan {k}")
        for layer in range(first, sites.n_layers):
            index = np.sort(generator.choice(sites.d_mlp, size, replace=False))
            plan.writes.append(Write(layer, "act", "set", index, generator.normal(0, 1, size)))
        found.append(plan)
    return found


@check("evaluation")
def scores(setting: Setting) -> list[Check]:
    """Shared beginnings and branches against full passes in float64, one request at a time."""
    import torch

    from langneurons.interventions.apply import applied
    from langneurons.models.language_model import LanguageModel
    from langneurons.scoring.likelihood import loglikelihood

    exact, tokenizer = small_model("cpu", "float64"), Numbers()
    lm, reference = LanguageModel(small_model(setting.device), tokenizer), LanguageModel(exact)
    requests, plans = _requests(500, 5, 30), _plans(lm.sites, 1, 2)
    expected = []
    for plan in plans:
        with torch.inference_mode(), applied(reference, plan):
            for context, continuation in requests:
                first = tokenizer(context)["input_ids"]
                second = tokenizer(continuation, add_special_tokens=False)["input_ids"]
                logits = exact(torch.tensor([first + second]), use_cache=False).logits[0]
                lines = torch.log_softmax(logits, -1)[len(first) - 1 : -1]
                expected.append(float(lines[range(len(second)), second].sum()))
    found = [loglikelihood(lm, requests, 400, plan) for plan in plans]
    shared = [value for values in found for value, _ in values]
    found = loglikelihood(lm, requests, 800, plans)
    together = [value for values in found for value, _ in values]
    return [
        Check("beginnings read once, log-likelihoods", apart(shared, expected), 1e-4),
        Check("layers read once for two plans, log-likelihoods", apart(together, expected), 1e-4),
    ]


@check("evaluation")
def decoded(setting: Setting) -> list[Check]:
    """Answers of both engines against full passes for every token in float64; under two plans."""
    from langneurons.interventions.apply import applied
    from langneurons.interventions.plan import untouched
    from langneurons.models.language_model import LanguageModel
    from langneurons.scoring.decoding import Decoding
    from langneurons.scoring.engine import CONTINUOUS, PADDED, Engine
    from langneurons.scoring.generation import generate

    exact, tokenizer = small_model("cpu", "float64"), Numbers()
    lm = LanguageModel(_endless(small_model(setting.device)), tokenizer)
    reference = LanguageModel(exact)
    prompts = [context for context, _ in _requests(500, 3, 20)] + ["9 8 7"]
    plans, checks = [untouched(), *_plans(lm.sites, 1, 2)], []
    for name in (PADDED, CONTINUOUS):
        found = generate(lm, prompts, Decoding(8), 150, engine=Engine(name))
        wrong = _differ(exact, tokenizer, prompts, found)
        checks.append(Check(f"answers that differ, {name}", float(wrong), 0.0))
        wrong, together = 0, generate(lm, prompts, Decoding(8), 450, plans, engine=Engine(name))
        for plan, texts in zip(plans, together, strict=True):
            with applied(reference, plan):
                wrong += _differ(exact, tokenizer, prompts, texts)
        what = f"answers that differ, three plans together, {name}"
        checks.append(Check(what, float(wrong), 0.0))
    return checks


def _differ(exact, tokenizer, prompts, texts, steps: int = 8) -> int:
    """Count the texts that differ from full passes of a model for every token."""
    import torch

    wrong = 0
    for prompt, text in zip(prompts, texts, strict=True):
        ids, out = tokenizer(prompt)["input_ids"], []
        with torch.inference_mode():
            for _ in range(steps):
                logits = exact(torch.tensor([ids + out]), use_cache=False).logits[0, -1]
                out.append(int(logits.argmax()))
        wrong += text != tokenizer.decode(out)
    return wrong


@timing("evaluation")
def choices(setting: Setting) -> list[Row]:
    """A context of three choices read once; nine plans of the last third of the layers."""
    from langneurons.models.language_model import LanguageModel
    from langneurons.scoring.likelihood import loglikelihood

    lm = LanguageModel(setting.model(), Numbers())
    size = setting.length - 9
    number = max(setting.tokens // setting.length, 1)
    requests = _requests(setting.config().vocab_size, number, size)
    plans = _plans(lm.sites, 2 * lm.n_layers // 3, 9)

    def plain() -> None:
        with reading_each_time():
            loglikelihood(lm, requests, setting.tokens)

    def shared() -> None:
        loglikelihood(lm, requests, setting.tokens)

    def one_by_one() -> None:
        for plan in plans:
            loglikelihood(lm, requests, setting.tokens, plan)

    def together() -> None:
        loglikelihood(lm, requests, setting.tokens, plans)

    base = "three choices, each read"
    times = setting.interleaved({base: plain, "three choices, context once": shared})
    rows = rows_of(times, base, goal={"three choices, context once": "0.37"})
    base = "nine plans, one by one"
    times = setting.interleaved({base: one_by_one, "nine plans, layers below once": together}, 3)
    return rows + rows_of(times, base)


@timing("evaluation")
def texts(setting: Setting) -> list[Row]:
    """The loss of text, and answers of 8 tokens, under nine plans of the last third of layers."""
    import numpy as np

    from langneurons.models.language_model import LanguageModel
    from langneurons.scoring.decoding import Decoding
    from langneurons.scoring.generation import generate
    from langneurons.scoring.nll import token_nll

    lm, vocabulary = (
        LanguageModel(_endless(setting.model()), Numbers()),
        setting.config().vocab_size,
    )
    plans = _plans(lm.sites, 2 * lm.n_layers // 3, 9)
    number = max(setting.tokens // setting.length, 1)
    blocks = np.random.default_rng(0).integers(8, vocabulary, (number, setting.length))
    blocks, lengths = blocks.astype(np.int32), np.full(number, setting.length)
    text = (blocks, lengths, np.ones_like(blocks, dtype=bool))
    requests = _requests(vocabulary, number, setting.length - 9)
    asked = ([context for context, _ in requests[::CHOICES]], Decoding(8))

    def losses() -> None:
        for plan in plans:
            token_nll(lm, *text, setting.tokens, plan)

    def losses_together() -> None:
        token_nll(lm, *text, setting.tokens, plans)

    def answered() -> None:
        for plan in plans:
            with reading_each_time():
                generate(lm, *asked, setting.tokens, plan)

    def answered_together() -> None:
        generate(lm, *asked, setting.tokens, plans)

    rows = []
    for title, apart_, together in (
        ("loss under nine plans", losses, losses_together),
        ("answers under nine plans", answered, answered_together),
    ):
        base = f"{title}, one by one"
        variants = {base: apart_, f"{title}, layers below once": together}
        rows += rows_of(setting.interleaved(variants, 3), base)
    return rows


@timing("evaluation")
def answers(setting: Setting) -> list[Row]:
    """Seconds per answer of 32 tokens: full passes one by one, the library, both engines."""
    import torch

    from langneurons.models.language_model import LanguageModel
    from langneurons.scoring.decoding import Decoding
    from langneurons.scoring.engine import CONTINUOUS, PADDED, Engine
    from langneurons.scoring.generation import generate

    model, tokenizer = _endless(setting.model()), Numbers()
    size = min(setting.length, 256)
    number = max(setting.tokens // (size + NEW_TOKENS), 1)
    vocabulary = setting.config().vocab_size
    prompts = [context for context, _ in _requests(vocabulary, number, size - 1)[::CHOICES]]
    rows = torch.tensor([tokenizer(prompt)["input_ids"] for prompt in prompts])
    rows = rows.to(setting.device)

    def loop() -> None:
        tokens = rows[:1]
        with torch.inference_mode():
            for _ in range(NEW_TOKENS):
                logits = model(tokens, use_cache=False).logits[:, -1]
                tokens = torch.cat([tokens, logits.argmax(-1, keepdim=True)], 1)
                tokens[0, -1].item()

    def library() -> None:
        model.generate(
            rows,
            attention_mask=torch.ones_like(rows),
            max_new_tokens=NEW_TOKENS,
            min_new_tokens=NEW_TOKENS,
            do_sample=False,
            pad_token_id=0,
        )

    def ours(name: str = PADDED) -> None:
        lm, budget = LanguageModel(model, tokenizer), number * (size + NEW_TOKENS)
        with reading_each_time():
            generate(lm, prompts, Decoding(NEW_TOKENS), budget, engine=Engine(name))

    variants = {"an answer by full passes": loop, "an answer by the library's generate": library}
    variants |= {"an answer in batches": ours}
    variants |= {"an answer by continuous batching": lambda: ours(CONTINUOUS)}
    times = setting.interleaved(variants, min(setting.repeats, 3))
    counts = dict(zip(variants, (1, number, number, number), strict=True))
    each = {name: [s / counts[name] for s in values] for name, values in times.items()}
    return rows_of(each, "an answer by full passes", goal={"an answer in batches": "at most 0.05"})
