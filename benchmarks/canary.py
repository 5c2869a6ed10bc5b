"""What the canary of a job costs: seconds against one forward pass of the same 24 tokens.

Before that, the canary must pass, and must fail with one hook of the model left on, or the script
ends with an error.
"""

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


def main() -> None:
    """Time the canary and the pass."""
    options = parser(__doc__, repeats=3)
    options.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    given = options.parse_args()
    set_threads(given.threads)
    import torch

    from langneurons.models.language_model import LanguageModel
    from langneurons.scoring.canary import ROWS, TOKENS, CanaryError, check_model

    rows = []
    for name in given.dtypes:
        model = LanguageModel(load(given.model).to(getattr(torch, name)), identity=IDENTITY)
        tokens = torch.arange(10, 10 + ROWS * TOKENS, device=model.device).reshape(ROWS, TOKENS)
        handle = model.sites.down[-1].register_forward_pre_hook(lambda _m, given: (given[0] * 0.5,))
        try:
            check_model(model)
        except CanaryError:
            handle.remove()
        else:
            raise SystemExit("the canary passed with a hook left on the model")

        def one_pass(model=model, tokens=tokens) -> None:
            with torch.inference_mode():
                model.model(input_ids=tokens, use_cache=False)

        variants = {"one pass": one_pass, "canary": lambda model=model: check_model(model)}
        times = interleaved(variants, given.repeats, clock=clock(given))
        for variant, values in times.items():
            found = [f"{median(values):.2f}", *ratios(times, variant, "one pass")]
            rows.append([f"{variant}, {name}", *found])
    note = f"{ROWS * TOKENS} tokens; {given.repeats} interleaved rounds; medians." + (
        " Seconds are those of the processor, all threads together." * given.processor_time
    )
    publish("canary", table("Canary of a job", ["variant", "s", "ratio", "range"], rows, note))


if __name__ == "__main__":
    main()
