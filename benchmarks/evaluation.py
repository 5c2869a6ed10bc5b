"""Evaluation: a cell of nine interventions, prefixes read once, and answers against a plain loop.

- cell: XNLI under nine interventions (1 % of the neurons of every layer, or of the last third of
  the layers), as the rule runs it, with the model's load, against nine passes of the same requests
  through the bare model, which is in memory. Goal: 1.15 times.
- branches: the loss of text, the choices of XNLI and the answers to XQuAD under nine plans of the
  last third of the layers, plan by plan and with the layers below read once.
- prefixes: log-likelihoods and answers with common beginnings read once and read each time.
- answers: XQuAD against the loop that reads the whole text again for every token, one prompt at a
  time (what code of the papers' kind does), against transformers' `generate` in the same batches.
  Goal: 20 times the loop.

Before that, log-likelihoods must agree to 1e-3 nats with full passes of the model in float64, one
by one, the cell's predictions with those, branches with plan by plan, and answers with the loop's,
or the script ends with an error.
"""

import time

from common import (
    clock,
    interleaved,
    load,
    median,
    parser,
    publish,
    ratios,
    reading_each_time,
    set_threads,
    table,
)

CONFIG_TASKS = "config/tasks"
PARTS = ("cell", "branches", "prefixes", "answers")


def main() -> None:
    """Check that the results agree, then time."""
    options = parser(__doc__, repeats=3)
    options.add_argument("--lang", default="en", help="language of the mini data")
    options.add_argument("--pairs", type=int, default=8, help="pairs of XNLI, default 8")
    options.add_argument("--questions", type=int, default=20, help="of XQuAD, default 20")
    options.add_argument("--looped", type=int, default=2, help="questions of the loop, default 2")
    options.add_argument("--tokens", type=int, default=32, help="new tokens at most, default 32")
    options.add_argument("--batch-tokens", type=int, default=2048)
    options.add_argument("--only", nargs="+", choices=PARTS)
    given = options.parse_args()
    set_threads(given.threads)
    from transformers import AutoTokenizer

    work = _Work(load(given.model), AutoTokenizer.from_pretrained(given.model), given)
    chosen = given.only or PARTS
    parts = [getattr(work, name)() for name in chosen]
    publish("evaluation" if given.only is None else "evaluation-part", "\n".join(parts))


class _Work:
    """The model, the tasks and what is measured."""

    def __init__(self, model, tokenizer, given):
        from common import ROOT

        from langneurons.base.io import read_jsonl
        from langneurons.data.mini_data import MINI
        from langneurons.evaluation.definition import load_task
        from langneurons.evaluation.examples import build
        from langneurons.models.language_model import LanguageModel

        self.model, self.tokenizer, self.given = model, tokenizer, given
        self.lm = LanguageModel(model, tokenizer)
        self.sites = self.lm.sites
        self.xnli, self.xquad = (
            load_task(ROOT / CONFIG_TASKS / f"{name}.yaml") for name in ("xnli", "xquad")
        )
        self.pairs = read_jsonl(MINI / "xnli" / f"{given.lang}.jsonl")[: given.pairs]
        questions = read_jsonl(MINI / "xquad" / f"{given.lang}.jsonl")[: given.questions]
        examples = build(self.pairs, self.xnli, given.lang)
        self.requests = [pair for one in examples for pair in one.requests(self.xnli.delimiter)]
        self.prompts = [one.context for one in build(questions, self.xquad, given.lang)]

    def plans(self, first: int):
        """Return nine plans that write 1 % of the neurons of the layers from `first` on."""
        import numpy as np

        from langneurons.interventions.plan import Plan, Write

        generator, found = np.random.default_rng(0), {}
        number = round(0.01 * self.sites.d_mlp)
        for k in range(9):
            plan = Plan(f"plan {k}")
            for layer in range(first, self.sites.n_layers):
                index = np.sort(generator.choice(self.sites.d_mlp, number, replace=False))
                value = generator.normal(0, 0.1, number)
                plan.writes.append(Write(layer, "act", "set", index, value))
            found["set", "lape", plan.name, self.given.lang] = plan
        return found

    def scored(self, shared: bool, under=None):
        """Return the log-likelihoods of the pairs' requests."""
        from langneurons.scoring.likelihood import loglikelihood

        with reading_each_time(not shared):
            return loglikelihood(self.lm, self.requests, self.given.batch_tokens, under)

    def evaluated(self, plans, model=None):
        """Return the cell's records, as the rule makes them: nothing is in the store."""
        import tempfile

        from langneurons.base.store import SideStore
        from langneurons.evaluation.conditions import evaluate
        from langneurons.evaluation.run import Run

        lm = self.lm if model is None else self.lm.tuned(model)
        with tempfile.TemporaryDirectory() as folder:
            store = SideStore(folder, "evaluation")
            run = Run(lm, store, {"model": "benchmark"}, self.given.batch_tokens)
            return evaluate(run, self.xnli, self.given.lang, self.pairs, plans)

    def cell(self) -> str:
        """Nine interventions and the untouched model against nine bare passes."""
        import torch

        everywhere, deep = self.plans(0), self.plans(2 * self.sites.n_layers // 3)
        for plans in (everywhere, deep):
            self._check_cell(plans)

        def bare() -> None:
            for _ in range(9):
                self.scored(False)

        def loaded() -> None:
            model = load(self.given.model)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.evaluated(everywhere, model)

        variants = {
            "nine bare passes": bare,
            "nine bare passes, again": bare,
            "load, untouched and nine interventions": loaded,
            "untouched and nine interventions": lambda: self.evaluated(everywhere),
            "untouched and nine of the last third of layers": lambda: self.evaluated(deep),
        }
        times = interleaved(variants, self.given.repeats, clock=clock(self.given))
        tokens = sum(len(a) + len(b) for a, b in self._encoded())
        note = (
            f"{len(self.requests)} requests of {len(self.pairs)} pairs ({self.given.lang}),"
            f" {tokens} tokens; batches of {self.given.batch_tokens}; ratio to nine bare passes,"
            " goal 1.15 with the load. The cell reads the requests ten times."
        )
        return table("A cell of XNLI", *_timed(times, "nine bare passes"), note)

    def _encoded(self):
        encoder = self.lm.encoder()
        pairs = [encoder.pair(*pair) for pair in self.requests]
        return [(pair.context, pair.continuation) for pair in pairs]

    def _check_cell(self, plans) -> None:
        """Compare with full passes in float64 one by one, without any of the package's batching."""
        import copy

        import numpy as np
        import torch

        from langneurons.interventions.apply import applied
        from langneurons.interventions.plan import Plan

        frame = self.evaluated(plans)
        exact = copy.deepcopy(self.model).double()
        for name, plan in {"none": Plan("none"), "plan 3": plans[list(plans)[3]]}.items():
            values = []
            with torch.inference_mode(), applied(self.lm.tuned(exact), plan):
                for first, second in self._encoded()[:30]:
                    logits = exact(torch.tensor([first + second]).to(self.model.device)).logits
                    lines = torch.log_softmax(logits[0], -1)[len(first) - 1 : -1]
                    values.append(float(lines[range(len(second)), second].sum()))
            found = [value for value, _ in self.scored(True, plan)[:30]]
            apart = float(np.abs(np.subtract(found, values)).max())
            if not apart < 1e-3:
                raise SystemExit(f"log-likelihoods under {name} are apart by {apart:.1e} nats")
            best = np.array(values).reshape(-1, 3).argmax(1).astype(str).tolist()
            own = frame[frame["intervention"] == name]["prediction"].tolist()[: len(best)]
            if own != best:
                raise SystemExit(f"predictions of the cell under {name} differ from one by one")

    def branches(self) -> str:
        """Nine plans of the last third of the layers, plan by plan and together."""
        import numpy as np
        from common import packed_corpus

        from langneurons.scoring.decoding import Decoding
        from langneurons.scoring.generation import generate
        from langneurons.scoring.nll import token_nll

        plans = list(self.plans(2 * self.sites.n_layers // 3).values())
        part = packed_corpus(self.given.model, 2, self.given.lang).identification
        text = (part.tokens, part.lengths, part.scored)
        budget, end = self.given.batch_tokens, ["\n"]
        decoding = Decoding(16, end)
        works = {
            f"loss of {len(part.tokens)} blocks": lambda under: token_nll(
                self.lm, *text, budget, under
            ),
            f"{len(self.requests)} requests of XNLI": lambda under: self.scored(True, under),
            "4 answers to XQuAD of at most 16 tokens": lambda under: generate(
                self.lm, self.prompts[:4], decoding, budget, under
            ),
        }
        rows = []
        for title, work in works.items():
            expected, found = [work(plan) for plan in plans], work(plans)
            if title.endswith("tokens"):
                same = expected == found
            else:
                same = np.allclose(expected, found, atol=1e-3, equal_nan=True)
            if not same:
                raise SystemExit(f"{title}: together is not plan by plan")
            base = f"{title}, plan by plan"
            times = interleaved(
                {
                    base: lambda work=work: [work(plan) for plan in plans],
                    f"{title}, layers below once": lambda work=work: work(plans),
                },
                self.given.repeats,
                clock=clock(self.given),
            )
            header, more = _timed(times, base)
            rows += more
        first = 2 * self.sites.n_layers // 3
        note = (
            f"Nine plans that write 1 % of the neurons of layers {first} to"
            f" {self.sites.n_layers - 1} of {self.sites.n_layers}; layers alone would give"
            f" {(first + 9 * (self.sites.n_layers - first)) / (9 * self.sites.n_layers):.2f}."
        )
        return table("Branches", header, rows, note)

    def prefixes(self) -> str:
        """The same requests and prompts with and without sharing."""
        plain, shared = self.scored(False), self.scored(True)
        apart = max(abs(a - b) for (a, _), (b, _) in zip(plain, shared, strict=True))
        if not apart < 1e-3:
            raise SystemExit(f"shared prefixes change log-likelihoods by {apart:.1e} nats")
        rows = []
        for title, work in (
            ("XNLI, three choices", self.scored),
            ("XQuAD, answers", lambda shared: self.answered(shared)),
        ):
            variants = {
                f"{title}, each time": lambda work=work: work(False),
                f"{title}, each time, again": lambda work=work: work(False),
                f"{title}, once": lambda work=work: work(True),
            }
            times = interleaved(variants, self.given.repeats, clock=clock(self.given))
            header, more = _timed(times, f"{title}, each time")
            rows += more
        note = f"Log-likelihoods are apart by at most {apart:.0e} nats; ratio to reading each time."
        return table("Common beginnings", header, rows, note)

    def answered(self, shared: bool = True, budget: int | None = None, number: int | None = None):
        """Return the answers to the questions."""
        from langneurons.scoring.decoding import Decoding
        from langneurons.scoring.generation import generate

        decoding = Decoding(self.given.tokens, ["\n"])
        budget = budget or self.given.batch_tokens
        with reading_each_time(not shared):
            return generate(self.lm, self.prompts[:number], decoding, budget)

    def looped(self) -> list[str]:
        """Answer the first questions one by one, reading the whole text again for every token."""
        import torch

        found = []
        for prompt in self.prompts[: self.given.looped]:
            ids, out = self.tokenizer(prompt)["input_ids"], []
            for _ in range(self.given.tokens):
                with torch.inference_mode():
                    tokens = torch.tensor([ids + out]).to(self.model.device)
                    token = int(self.model(tokens, use_cache=False).logits[0, -1].argmax())
                if token == self.tokenizer.eos_token_id:
                    break
                out.append(token)
                if "\n" in self.tokenizer.decode(out):
                    break
            found.append(self.tokenizer.decode(out, skip_special_tokens=True).split("\n")[0])
        return found

    def library(self) -> None:
        """Answer all questions by transformers' generate, in batches of the same budget."""
        import torch

        from langneurons.base.batching import batches

        self.tokenizer.padding_side = "left"
        sizes = [len(self.tokenizer(p)["input_ids"]) + self.given.tokens for p in self.prompts]
        for group in batches(sizes, self.given.batch_tokens):
            given = self.tokenizer(
                [self.prompts[i] for i in group], return_tensors="pt", padding=True
            )
            with torch.inference_mode():
                self.model.generate(
                    **given.to(self.model.device),
                    max_new_tokens=self.given.tokens,
                    do_sample=False,
                    stop_strings=["\n"],
                    tokenizer=self.tokenizer,
                )

    def answers(self) -> str:
        """Seconds per answer, against the loop."""
        number = self.given.looped
        expected, found = self.looped(), self.answered()[:number]
        if found != expected:
            raise SystemExit(f"answers differ from the loop's: {found} and {expected}")
        lengths = [
            len(self.tokenizer(text, add_special_tokens=False)["input_ids"])
            for text in self.answered()
        ]
        variants = {
            "loop, one by one, no cache": (self.looped, number),
            "transformers generate, in batches": (self.library, len(self.prompts)),
            "one by one": (lambda: self.answered(False, 1, number), number),
            "in batches": (lambda: self.answered(False), len(self.prompts)),
            "in batches, beginnings shared": (self.answered, len(self.prompts)),
        }
        work = {name: function for name, (function, _) in variants.items()}
        times = interleaved(work, self.given.repeats, clock=clock(self.given))
        each = {
            name: [seconds / variants[name][1] for seconds in values]
            for name, values in times.items()
        }
        base = next(iter(variants))
        rows = []
        for name, values in each.items():
            pairs = [one / own for own, one in zip(values, each[base], strict=True)]
            span = f"{min(pairs):.1f}-{max(pairs):.1f}"
            rows.append([name, f"{median(values):.3f}", f"{median(pairs):.1f}", span])
        mean = sum(lengths) / len(lengths)
        note = (
            f"{len(self.prompts)} questions ({self.given.lang}), the loop the first {number}; at"
            f" most {self.given.tokens} new tokens, answers of {mean:.1f} tokens on average; goal"
            " 20 times the loop. The answers equal the loop's."
        )
        return table("Answers to XQuAD", ["variant", "s per answer", "times", "range"], rows, note)


def _timed(times, base: str):
    """Return header and rows of seconds and ratios to a base."""
    rows = [[name, f"{median(v):.2f}", *ratios(times, name, base)] for name, v in times.items()]
    return ["variant", "s", "ratio", "range"], rows


if __name__ == "__main__":
    begin = time.perf_counter()
    main()
    print(f"{time.perf_counter() - begin:.0f} s in all")
