"""Neurons overwritten in every layer: one plan for a batch or a plan per row."""

from sections import Check, Row, Setting, apart, check, rows_of, small_model, timing

SHARE = 0.01


def _plan(sites, seed: int, operation: str = "set", share: float = SHARE):
    """Return a plan that writes a share of the neurons of every layer after the nonlinearity."""
    import numpy as np

    from langneurons.interventions.plan import Plan, Write

    generator = np.random.default_rng(seed)
    number = max(1, round(share * sites.d_mlp))
    plan = Plan(f"plan {seed}")
    for layer in range(sites.n_layers):
        index = np.sort(generator.choice(sites.d_mlp, number, replace=False))
        value = generator.normal(0.5, 0.5, number)
        plan.writes.append(Write(layer, "act", operation, index, value))
    return plan


def _by_hand(model, tokens, plan):
    """Return the hidden states with each neuron written by its own assignment."""
    import torch

    from langneurons.models.sites import MlpSites

    sites, handles = MlpSites(model), []
    for write in plan.writes:

        def hook(_module, _inputs, output, write=write):
            output = output.clone()
            for neuron, value in zip(write.index, write.value, strict=True):
                old = output[..., neuron]
                new = {"set": torch.full_like(old, value), "add": old + value, "scale": old * value}
                output[..., neuron] = new[write.operation]
            return output

        handles.append(sites.act[write.layer].register_forward_hook(hook))
    try:
        return sites.backbone(input_ids=tokens, use_cache=False).last_hidden_state
    finally:
        for handle in handles:
            handle.remove()


@check("interventions")
def written(setting: Setting) -> list[Check]:
    """Each operation against a float64 loop over neurons; a plan per row against its own pass."""
    import torch

    from langneurons.interventions.apply import applied, hooked
    from langneurons.interventions.plan import PerRequest
    from langneurons.models.language_model import LanguageModel

    tokens = torch.arange(3 * 17).reshape(3, 17).remainder(509)
    model, exact = small_model(setting.device), small_model("cpu", "float64")
    lm, result, alone = LanguageModel(model), [], []
    sites = lm.sites
    plans = [_plan(sites, k, op, 0.1) for k, op in enumerate(("set", "add", "scale"))]
    with torch.inference_mode():
        for plan in plans:
            with applied(lm, plan):
                found = sites.backbone(input_ids=tokens.to(setting.device), use_cache=False)[0]
            alone.append(found)
            operation = plan.writes[0].operation
            result.append(
                Check(
                    f"{operation}, hidden states", apart(found, _by_hand(exact, tokens, plan)), 1e-4
                )
            )
        with hooked(lm, PerRequest(plans, range(3))) as rows:
            valid = torch.ones(3, 17, dtype=torch.bool, device=setting.device)
            rows.announce(valid, valid, torch.arange(3))
            together = sites.backbone(input_ids=tokens.to(setting.device), use_cache=False)[0]
    expected = torch.stack([alone[k][k] for k in range(3)])
    result.append(Check("a plan per row against its own pass", apart(together, expected), 1e-5))
    return result


@timing("interventions")
def overwritten(setting: Setting) -> list[Row]:
    """1 % of the neurons of every layer: one plan, a plan per row, a loop over the neurons."""
    import torch

    from langneurons.interventions.apply import applied, hooked
    from langneurons.interventions.plan import PerRequest
    from langneurons.models.language_model import LanguageModel

    model, tokens = setting.model(), setting.batch()
    lm = LanguageModel(model)
    sites = lm.sites
    plan = _plan(sites, 0)
    plans = [_plan(sites, k) for k in range(len(tokens))]
    valid = torch.ones(tokens.shape, dtype=torch.bool, device=setting.device)

    def forward() -> None:
        with torch.inference_mode():
            sites.backbone(input_ids=tokens, use_cache=False)

    def one() -> None:
        with applied(lm, plan):
            forward()

    def per_row() -> None:
        with hooked(lm, PerRequest(plans, range(len(tokens)))) as rows:
            rows.announce(valid, valid, torch.arange(len(tokens)))
            forward()

    def loop() -> None:
        with torch.inference_mode():
            _by_hand(model, tokens, plan)

    base = "untouched"
    variants = {base: forward, "untouched, again": forward, "one plan": one}
    variants |= {f"{len(tokens)} plans, one per row": per_row, "a loop over the neurons": loop}
    times = setting.interleaved(variants)
    flops = dict.fromkeys(variants, setting.prefill_flops(*tokens.shape))
    return rows_of(times, base, flops=flops, goal={"one plan": "at most 1.03"})
