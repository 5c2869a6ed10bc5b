"""Scoring and decoding: shared beginnings, branches of layers, decoding in batches."""

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

    from langneurons.interventions.plan import Plan
from langneurons.interventions.plan import Write

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

    from langneurons.interventions.branches import branched
    from langneurons.interventions.apply import applied
    from langneurons.models.families import MlpSites
    from langneurons.scoring.primitives import branch_loglikelihoods, loglikelihood

    model, exact = small_model(setting.device), small_model("cpu", "float64")
    sites, reference = MlpSites(model), MlpSites(exact)
    requests, tokenizer = _requests(500, 5, 30), Numbers()
    plans = _plans(sites, 1, 2)
    expected = []
    for plan in plans:
        with torch.inference_mode(), applied(reference, plan):
            for context, continuation in requests:
                first = tokenizer(context)["input_ids"]
                second = tokenizer(continuation, add_special_tokens=False)["input_ids"]
                logits = exact(torch.tensor([first + second]), use_cache=False).logits[0]
                lines = torch.log_softmax(logits, -1)[len(first) - 1 : -1]
                expected.append(float(lines[range(len(second)), second].sum()))
    shared = []
    for plan in plans:
        with applied(sites, plan) as running:
            found = loglikelihood(
                model, tokenizer, requests, 400, running.on_forward, shared=running.by_token
            )
        shared += [value for value, _ in found]
    with branched(sites, plans) as running:
        found = branch_loglikelihoods(model, tokenizer, requests, 800, running)
    together = [value for values in found for value, _ in values]
    return [
        Check("beginnings read once, log-likelihoods", apart(shared, expected), 1e-4),
        Check("layers read once for two plans, log-likelihoods", apart(together, expected), 1e-4),
    ]


@check("evaluation")
def decoded(setting: Setting) -> list[Check]:
    """Answers in batches against full passes for every token in float64; under two plans too."""
    from langneurons.interventions.branches import branched
    from langneurons.interventions.plan import Plan
from langneurons.interventions.apply import applied
    from langneurons.models.families import MlpSites
    from langneurons.scoring.primitives import branch_generate, generate

    model, exact = small_model(setting.device), small_model("cpu", "float64")
    model = _endless(model)
    sites, reference, tokenizer = MlpSites(model), MlpSites(exact), Numbers()
    prompts = [context for context, _ in _requests(500, 3, 20)] + ["9 8 7"]
    found = generate(model, tokenizer, prompts, 8, [], 150, shared=True)
    wrong = _differ(exact, tokenizer, prompts, found)
    plans, apart_ = [Plan("none"), *_plans(sites, 1, 2)], 0
    with branched(sites, plans) as running:
        together = branch_generate(model, tokenizer, prompts, 8, [], 450, 1.0, running)
    for plan, texts in zip(plans, together, strict=True):
        with applied(reference, plan):
            apart_ += _differ(exact, tokenizer, prompts, texts)
    return [
        Check("answers that differ", float(wrong), 0.0),
        Check("answers that differ, three plans together", float(apart_), 0.0),
    ]


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
    from langneurons.interventions.branches import branched
    from langneurons.interventions.apply import applied
    from langneurons.models.families import MlpSites
    from langneurons.scoring.primitives import branch_loglikelihoods, loglikelihood

    model, tokenizer = setting.model(), Numbers()
    sites = MlpSites(model)
    size = setting.length - 9
    number = max(setting.tokens // setting.length, 1)
    requests = _requests(setting.config().vocab_size, number, size)
    plans = _plans(sites, 2 * sites.n_layers // 3, 9)

    def plain() -> None:
        loglikelihood(model, tokenizer, requests, setting.tokens)

    def shared() -> None:
        loglikelihood(model, tokenizer, requests, setting.tokens, shared=True)

    def one_by_one() -> None:
        for plan in plans:
            with applied(sites, plan) as running:
                loglikelihood(
                    model, tokenizer, requests, setting.tokens, running.on_forward, shared=True
                )

    def together() -> None:
        with branched(sites, plans) as running:
            branch_loglikelihoods(model, tokenizer, requests, setting.tokens, running)

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

    from langneurons.interventions.branches import branched
    from langneurons.interventions.apply import applied
    from langneurons.models.families import MlpSites
    from langneurons.scoring.primitives import branch_generate, generate, token_nll

    model, tokenizer, vocabulary = _endless(setting.model()), Numbers(), setting.config().vocab_size
    sites = MlpSites(model)
    plans = _plans(sites, 2 * sites.n_layers // 3, 9)
    number = max(setting.tokens // setting.length, 1)
    blocks = np.random.default_rng(0).integers(8, vocabulary, (number, setting.length))
    blocks, lengths = blocks.astype(np.int32), np.full(number, setting.length)
    text = (blocks, lengths, np.ones_like(blocks, dtype=bool))
    requests = _requests(vocabulary, number, setting.length - 9)
    asked = ([context for context, _ in requests[::CHOICES]], 8, [])

    def losses() -> None:
        for plan in plans:
            with applied(sites, plan) as running:
                token_nll(model, *text, setting.tokens, running.on_forward)

    def losses_together() -> None:
        with branched(sites, plans) as running:
            token_nll(model, *text, setting.tokens, branches=running)

    def answered() -> None:
        for plan in plans:
            with applied(sites, plan) as running:
                generate(model, tokenizer, *asked, setting.tokens, on_forward=running.on_forward)

    def answered_together() -> None:
        with branched(sites, plans) as running:
            branch_generate(model, tokenizer, *asked, setting.tokens, 1.0, running)

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
    """Seconds per answer of 32 tokens: full passes one by one, the library, ours."""
    import torch

    from langneurons.scoring.primitives import generate

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

    def ours() -> None:
        generate(model, tokenizer, prompts, NEW_TOKENS, [], number * (size + NEW_TOKENS))

    variants = {"an answer by full passes": loop, "an answer by the library's generate": library}
    variants |= {"an answer in batches": ours}
    times = setting.interleaved(variants, min(setting.repeats, 3))
    counts = dict(zip(variants, (1, number, number), strict=True))
    each = {name: [s / counts[name] for s in values] for name, values in times.items()}
    return rows_of(each, "an answer by full passes", goal={"an answer in batches": "at most 0.05"})
