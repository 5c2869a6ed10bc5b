"""Answers by the padded engine, by continuous batching and by transformers' generate.

The package's open questions in five languages and XQuAD questions with their paragraphs are
answered greedily, so prompts have 10 to about 150 tokens. With `--stop` answers end at the first
line break, as those of tasks do, else at the limit. Shown are generated tokens per second, the
ratio to the padded engine in the same round, and the share of answers that have the padded engine's
tokens. A row without a rate is the padded engine in smaller batches: how often rounding alone
changes an answer. Wherever an answer differs the two logits of the first differing token are
compared: a gap above the bound of the number format is not a near-tie and ends with an error. All
of it is done with the model untouched, and with 1 % of the neurons of a language at 0.
"""

import sys
from functools import partial

from common import (
    IDENTITY,
    clock,
    interleaved,
    load,
    median,
    parser,
    publish,
    ratios,
    set_threads,
    table,
)

LANGS = ("en", "fr", "hi", "vi", "zh")
FOUND = 60  # sentences of a language on which neurons are found
TARGET = "vi"
HEADER = ["engine", "tokens per s", "ratio", "range", "equal", "near-ties", "largest gap"]


def questions(number: int) -> list[str]:
    """Return `number` open questions of each language, and half that number with a paragraph."""
    from langneurons.base.io import read_jsonl
    from langneurons.data.mini_data import mini_file

    found: list[str] = []
    for lang in LANGS:
        rows = read_jsonl(mini_file("questions_open", lang))[:number]
        found += [f"{row['question']}\n" for row in rows]
        path = mini_file("xquad", lang)
        rows = read_jsonl(path)[: number // 2] if path.is_file() else []
        found += [f"{row['context']}\n\n{row['question']}\n" for row in rows]
    return found


def main() -> None:
    """Answer, compare and time."""
    options = parser(__doc__, repeats=3)
    options.add_argument("--questions", type=int, default=6, help="of a language, default 6")
    options.add_argument("--new-tokens", type=int, default=24, help="of an answer, default 24")
    options.add_argument("--batch-tokens", type=int, default=2048, help="default 2048")
    options.add_argument("--dtype", default="float32", help="number format, default float32")
    options.add_argument("--stop", action="store_true", help="end answers at a line break")
    given = options.parse_args()
    set_threads(given.threads)
    import torch
    import transformers

    import langneurons as ln
    from langneurons.base.batching import batches
    from langneurons.scoring.decoding import Decoding
    from langneurons.scoring.engine import Engine
    from langneurons.scoring.engine_check import check_engine
    from langneurons.scoring.generation import answers, encode_prompts
    from langneurons.scoring.ties import difference

    tokenizer = transformers.AutoTokenizer.from_pretrained(given.model)
    loaded = load(given.model).to(getattr(torch, given.dtype))
    model = ln.LanguageModel(loaded, tokenizer, IDENTITY)
    check_engine(model)
    texts = ln.mini_texts(LANGS)
    statistics = ln.collect(model, {lang: texts[lang][:FOUND] for lang in LANGS})
    plan = ln.plan(ln.select(statistics, "lape", rate=0.01), TARGET, "set", 0)
    stop = ["\n"] if given.stop else []
    decoding = Decoding(given.new_tokens, stop)
    prompts = encode_prompts(model, questions(given.questions), given.new_tokens)
    sizes = [len(one.tokens) + given.new_tokens for one in prompts]
    ends = set(model.end_tokens)
    if given.stop:  # the library knows tokens: all that hold a line break
        pieces = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
        ends |= {token for token, piece in enumerate(pieces) if "\n" in piece}

    def generated() -> list[tuple[int, ...]]:
        """Answer in left-padded batches by transformers' own generate."""
        found: dict[int, tuple[int, ...]] = {}
        for group in batches(sizes, given.batch_tokens):
            longest = max(len(prompts[i].tokens) for i in group)
            rows = torch.zeros(len(group), longest, dtype=torch.int64)
            mask = torch.zeros_like(rows)
            for row, i in enumerate(group):
                own = torch.tensor(prompts[i].tokens)
                rows[row, longest - len(own) :], mask[row, longest - len(own) :] = own, 1
            made = loaded.generate(
                rows.to(model.device),
                attention_mask=mask.to(model.device),
                max_new_tokens=given.new_tokens,
                do_sample=False,
                eos_token_id=sorted(ends),
                pad_token_id=model.pad,
            )
            for i, row in zip(group, made[:, longest:].tolist(), strict=True):
                last = next((n for n, token in enumerate(row) if token in ends), len(row) - 1)
                found[i] = tuple(row[: last + 1])
        return [found[i] for i in range(len(prompts))]

    def engine(name: str, under: object, share: int = 1) -> list[tuple[int, ...]]:
        budget = given.batch_tokens // share
        made = answers(model, prompts, decoding, budget, under, engine=Engine(name))
        return [one.tokens for one in made]

    def library(under: object) -> list[tuple[int, ...]]:
        if under is None:
            return generated()
        with ln.applied(model, under):
            return generated()

    rows, wrong = [], 0
    for title, under in (("untouched", None), ("1 % of neurons at 0", plan)):
        made: dict[str, list[tuple[int, ...]]] = {}

        def run(name: str, decode: object, made: dict = made, title: str = title) -> None:
            print(f"{title}: {name}", file=sys.stderr, flush=True)
            made[name] = decode()

        variants = {
            "padded": partial(run, "padded", partial(engine, "padded", under)),
            "continuous": partial(run, "continuous", partial(engine, "continuous", under)),
            "transformers' generate": partial(
                run, "transformers' generate", partial(library, under)
            ),
        }
        times = interleaved(variants, given.repeats, clock=clock(given))
        base, other = made["padded"], f"padded in batches of {given.batch_tokens // 4}"
        made[other] = engine("padded", under, 4)
        for name, own in made.items():
            apart = [
                difference(model, prompt.tokens, one, other, under)
                for prompt, one, other in zip(prompts, base, own, strict=True)
                if one != other
            ]
            ties = sum(one.near_tie for one in apart)
            wrong += len(apart) - ties
            gaps = [one.gap for one in apart]
            shown = ["", "", ""]
            if name in times:
                rate = sum(map(len, own)) / median(times[name])
                shown = [f"{rate:.1f}", *ratios(times, "padded", name)]
            equal = f"{len(prompts) - len(apart)} of {len(prompts)}"
            largest = f"{max(gaps):.1e}" if gaps else ""
            rows.append([f"{name}, {title}", *shown, equal, ties, largest])
    lengths = sorted(map(len, base))
    note = (
        f"{len(prompts)} questions of {min(sizes) - given.new_tokens} to"
        f" {max(sizes) - given.new_tokens} tokens; answers under the plan have {lengths[0]} to"
        f" {lengths[-1]}, in the middle {lengths[len(lengths) // 2]}; {given.dtype}; batches of"
        f" {given.batch_tokens} tokens; {given.repeats} interleaved rounds; ratio: tokens per"
        " second over the padded engine's."
        + (" Seconds are those of the processor." if given.processor_time else "")
    )
    publish("answers_engine", table("Answers by engine", HEADER, rows, note))
    if wrong:
        raise SystemExit(f"{wrong} answers differ where the logits are not a near-tie")


if __name__ == "__main__":
    main()
