"""Exported LoRAs read by stock PEFT against the plans that they were made from, on 100 prompts.

LAPE neurons (1 %) of four languages are found on 60 sentences each; prompts are 25 held-out
sentences of each language. Neurons at 0, and at twice their activation (`PLANS`), are exported
as a LoRA, and PEFT puts it on a model that is loaded afresh. Shown are neurons, rank, size
of the folder, the largest difference of any logit at any token, how far the plan itself moves one,
and the largest logit. A difference above 1e-3 ends with an error.
"""

import sys
import tempfile

from common import IDENTITY, load, parser, publish, set_threads, table

LANGS = ("en", "fr", "vi", "zh")
FOUND = 60  # sentences of a language on which neurons are found
PLANS = (("set", 0, "vi"), ("scale", 2, "vi"), ("set", 0, "zh"))


def main() -> None:
    """Export, read, compare and print the table."""
    options = parser(__doc__)
    options.add_argument("--prompts", type=int, default=100, help="prompts, default 100")
    given = options.parse_args()
    set_threads(given.threads)
    import peft
    import torch
    import transformers

    import langneurons as ln

    tokenizer = transformers.AutoTokenizer.from_pretrained(given.model)
    model = ln.LanguageModel(load(given.model), tokenizer, IDENTITY)
    texts = ln.mini_texts(LANGS)
    statistics = ln.collect(model, {lang: texts[lang][:FOUND] for lang in LANGS})
    neurons = ln.select(statistics, "lape", rate=0.01)
    held = given.prompts // len(LANGS)
    prompts = [
        torch.tensor([tokenizer(text)["input_ids"]])
        for lang in LANGS
        for text in texts[lang][FOUND : FOUND + held]
    ]

    def logits(one: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return one(input_ids=ids).logits

    rows, worst = [], 0.0
    for operation, value, lang in PLANS:
        plan = ln.plan(neurons, lang, operation, value)
        print(f"{operation} {value}, {lang}", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            found = ln.export(model, {lang: plan}, folder, "lora", neurons)[lang]
            size = sum(path.stat().st_size for path in found.path.iterdir())
            stock = peft.PeftModel.from_pretrained(load(given.model), found.path).eval()
        apart = moved = size_of = 0.0
        for ids in prompts:
            untouched = logits(model.model, ids)
            with ln.applied(model, plan, strict=False):
                expected = logits(model.model, ids)
            apart = max(apart, float((logits(stock, ids) - expected).abs().max()))
            size_of = max(size_of, float(expected.abs().max()))
            moved = max(moved, float((untouched - expected).abs().max()))
        worst = max(worst, apart)
        shown = [f"{size / 1e6:.1f}", f"{apart:.1e}", f"{moved:.1f}", f"{size_of:.1f}"]
        rows.append([lang, f"{operation} {value}", plan.neurons, found.rank, *shown])
    header = [
        "language",
        "plan",
        "neurons",
        "rank",
        "MB",
        "difference",
        "moved",
        "logit",
    ]
    title = f"A LoRA in stock PEFT against the plan under hooks, float32, {len(prompts)} prompts"
    publish("exports", table(title, header, rows))
    if worst > 1e-3:
        raise SystemExit(f"logits differ by {worst:.1e}, more than 1e-3")


if __name__ == "__main__":
    main()
