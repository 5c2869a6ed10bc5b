"""Metrics of choices."""

from langneurons.evaluation.metrics.metric import Choice, of_choices


@of_choices(
    "accuracy",
    "whether the choice that is taken is the right one",
    *("multiple_choice", "classification", "generation"),
)
def accuracy(choice: Choice) -> float:
    """Return 1 for the right choice, else 0."""
    return choice.taken == choice.label


@of_choices(
    "acc_norm",
    "whether the right choice has the highest log-likelihood per character (lm-eval's acc_norm)",
    "multiple_choice",
)
def acc_norm(choice: Choice) -> float:
    """Return 1 if the right choice is the most likely per character, else 0."""
    per_character = [
        value / length for value, length in zip(choice.loglikelihoods, choice.lengths, strict=True)
    ]
    return per_character.index(max(per_character)) == choice.label
