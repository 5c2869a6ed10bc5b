"""What reading the neurons of experts costs: seconds of a pass against transformers' own.

A mixture of random weights, two layers of 64 experts of 256 neurons, 8 per token. Before that, the
hidden states must be those of transformers, or the script ends with an error.
"""

import copy

from common import clock, interleaved, median, parser, publish, ratios, set_threads, table

TOLERANCE = 1e-5  # of the largest hidden state


def main() -> None:
    """Time the passes."""
    given = parser(__doc__, repeats=7).parse_args()
    set_threads(given.threads)
    import torch
    from transformers import AutoModelForCausalLM, Qwen3MoeConfig

    from langneurons.models.language_model import LanguageModel

    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    sizes = {"hidden_size": 512, "num_hidden_layers": 2, "num_attention_heads": 8, "head_dim": 64}
    experts = {"num_experts": 64, "num_experts_per_tok": 8, "moe_intermediate_size": 256}
    config = Qwen3MoeConfig(vocab_size=1000, num_key_value_heads=4, **sizes, **experts)
    plain = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    tokens = torch.randint(0, 1000, (4, 256))
    models = {"transformers, eager": plain, "transformers, grouped_mm": copy.deepcopy(plain)}
    plain.set_experts_implementation("eager")
    models["transformers, grouped_mm"].set_experts_implementation("grouped_mm")
    for name in ("readable, nothing read", "readable, neurons read"):
        models[name] = copy.deepcopy(plain)
        sites = LanguageModel(models[name]).sites
        if name.endswith("neurons read"):
            for act in sites.act:
                act.register_forward_hook(lambda _module, _inputs, _output: None)

    def states(model) -> torch.Tensor:
        with torch.inference_mode():
            return model.model(input_ids=tokens, use_cache=False).last_hidden_state

    first = states(plain)
    for name, model in models.items():
        apart = float((states(model) - first).abs().max() / first.abs().max())
        if apart > TOLERANCE:
            raise SystemExit(f"{name}: hidden states are apart by {apart:.1g} of the largest")
    variants = {name: lambda model=model: states(model) for name, model in models.items()}
    times = interleaved(variants, given.repeats, clock=clock(given))
    rows = [
        [name, f"{median(values):.3f}", *ratios(times, name, "transformers, eager")]
        for name, values in times.items()
    ]
    note = f"{tokens.numel()} tokens; {given.repeats} interleaved rounds; medians." + (
        " Seconds are those of the processor, all threads together." * given.processor_time
    )
    heads = ["variant", "s", "ratio", "range"]
    publish("experts", table("A pass of a mixture of experts", heads, rows, note))


if __name__ == "__main__":
    main()
