"""Single neurons: the tokens that each writes, and which are worth zeroing by themselves.

What a neuron writes is its column of the down projection, read through the weights of the norms
behind it and the head (the logit lens of a weight; Geva et al. 2021). The scale of a norm depends
on the rest of the stream, so only the order of tokens is meant: values are z-scores over the
vocabulary.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import nn

from langneurons.activations.statistics import Statistics
from langneurons.evaluation.lens import final_norm
from langneurons.interventions.plan import Plan, Write
from langneurons.models.language_model import LanguageModel
from langneurons.models.sites import MlpSites

RAISED, LOWERED = "raised", "lowered"
OWN = 5  # tokens listed of each language
ROWS = 64  # neurons whose logits are held at once
POST_NORM = "post_feedforward_layernorm"  # Gemma 2 and 3, OLMo 2: between the MLP and the stream


def gain(norm: nn.Module, width: int) -> torch.Tensor:
    """Return what a norm multiplies each dimension by, without its scale, float32 (width,).

    An RMS norm maps the vector of ones to its gain, whether it is stored as g or as g - 1. A layer
    norm maps it to its bias, so there the weight is the gain.
    """
    weight = getattr(norm, "weight", None)
    if weight is None:
        return torch.ones(width)
    if isinstance(norm, nn.LayerNorm):
        return weight.detach().float().cpu()
    ones = torch.ones(1, width, dtype=weight.dtype, device=weight.device)
    return norm(ones)[0].detach().float().cpu()


@torch.inference_mode()
def columns(sites: MlpSites, layer: int, neurons: np.ndarray) -> torch.Tensor:
    """Return what neurons add to the residual stream per unit of activation, (n, d_model), float32.

    The projection itself is asked, so a quantised one or one with an adapter is read as it runs.
    """
    down = sites.down[layer]
    device, stored = sites.kind_of(layer)
    dtype = stored if stored.is_floating_point else torch.float16
    one = torch.zeros(len(neurons) + 1, sites.d_mlp, dtype=dtype, device=device)
    one[torch.arange(len(neurons)), torch.from_numpy(np.asarray(neurons, np.int64))] = 1
    written = down(one).float().cpu()
    written = written[:-1] - written[-1]  # without the bias
    post = getattr(sites.layers[layer], POST_NORM, None)
    return written if post is None else written * gain(post, written.shape[1])


@torch.inference_mode()
def written_tokens(
    model: LanguageModel,
    chosen: Sequence[np.ndarray],
    languages: np.ndarray,
    order: Sequence[str],
    number: int,
) -> pd.DataFrame:
    """Return the tokens that chosen neurons raise and lower: layer, neuron, group, rank, token, z.

    chosen: neurons by layer; languages: the language of each token, a place in `order` or -1
    (`evaluation.lens.token_languages`). group is `raised`, `lowered`, or a language, of which the
    five tokens are listed that are raised most. z: the logit in standard deviations over the
    vocabulary. Tokens that the tokenizer does not hold are left out.
    """
    norm, head = final_norm(model.sites), model.head
    width = int(next(iter(head.parameters())).shape[1])
    scale = gain(norm, width)
    centred = isinstance(norm, nn.LayerNorm)
    known = min(len(model.tokenizer), model.vocabulary)
    special = torch.tensor(sorted(set(model.tokenizer.all_special_ids)), dtype=torch.int64)
    special = special[special < known]
    own = [torch.from_numpy(np.flatnonzero(languages[:known] == k)) for k in range(len(order))]
    parameter = next(iter(head.parameters()))
    nothing = head(torch.zeros(1, width, dtype=parameter.dtype, device=parameter.device)).float()
    frames = []
    for layer, neurons in enumerate(chosen):
        for start in range(0, len(neurons), ROWS):
            some = neurons[start : start + ROWS]
            stream = columns(model.sites, layer, some)
            if centred:
                stream = stream - stream.mean(1, keepdim=True)
            states = (stream * scale).to(parameter.dtype).to(parameter.device)
            logits = (head(states).float() - nothing).cpu()[:, :known]
            z = (logits - logits.mean(1, keepdim=True)) / logits.std(1, keepdim=True)
            groups = {RAISED: _best(z, number, special), LOWERED: _best(-z, number, special)}
            for lang, ids in zip(order, own, strict=True):
                if len(ids):
                    places = z[:, ids].topk(min(OWN, len(ids)), dim=1).indices
                    groups[lang] = ids[places]
            for group, ids in groups.items():
                frames.append(_listed(model, layer, some, group, ids, z.gather(1, ids)))
    columns_ = ["layer", "neuron", "group", "rank", "token", "z"]
    if not frames:
        return pd.DataFrame(columns=columns_)
    return pd.concat(frames, ignore_index=True)[columns_]


def _best(z: torch.Tensor, number: int, special: torch.Tensor) -> torch.Tensor:
    masked = z.clone()
    masked[:, special] = -torch.inf
    return masked.topk(min(number, z.shape[1] - len(special)), dim=1).indices


def _listed(
    model: LanguageModel,
    layer: int,
    neurons: np.ndarray,
    group: str,
    ids: torch.Tensor,
    z: torch.Tensor,
) -> pd.DataFrame:
    """Return a row per neuron and token."""
    flat = ids.ravel().tolist()
    text = {token: str(model.tokenizer.decode([token])) for token in dict.fromkeys(flat)}
    number = ids.shape[1]
    return pd.DataFrame(
        {
            "layer": layer,
            "neuron": np.repeat(neurons, number),
            "group": group,
            "rank": np.tile(np.arange(number), len(neurons)),
            "token": [text[token] for token in flat],
            "z": z.ravel().numpy().astype(np.float32),
        }
    )


def most_own(
    statistics: Mapping[str, Statistics], masks: Mapping[str, np.ndarray], number: int
) -> dict[str, list[tuple[int, int]]]:
    """Return, by language, the (layer, neuron) of a mask that are most its own, best first.

    masks: bool (n_layers, d_mlp) by language. Most its own are neurons whose activation probability
    exceeds the largest among the other languages most.
    """
    langs = list(statistics)
    site = statistics[langs[0]].counted_site
    probability = np.stack([statistics[lang].probability(site) for lang in langs])
    found = {}
    for place, lang in enumerate(langs):
        others = np.delete(probability, place, 0)
        margin = probability[place] - (others.max(0) if len(others) else 0.0)
        where = np.argwhere(masks[lang])
        ranked = where[np.lexsort((where[:, 1], where[:, 0], -margin[tuple(where.T)]))]
        found[lang] = [(int(layer), int(neuron)) for layer, neuron in ranked[:number]]
    return found


def zeroing(layer: int, neuron: int) -> Plan:
    """Return the plan that sets one neuron's activation to zero."""
    write = Write(layer, "act", "set", np.array([neuron]), np.zeros(1, np.float32))
    return Plan(f"zero {layer}.{neuron}", [write])
