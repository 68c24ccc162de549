"""The nearest of known names to a misspelt one, and shorter forms of long names."""

from collections.abc import Iterable

LEAST_LIKENESS = 0.6  # of a word and the name that is proposed for it; less would only confuse
PART_LIKENESS = 0.75  # of a word that begins a name or its last part: "warmup", "warmup_cosine"
LEAST_PART = 2  # letters that such a word needs


def nearest(word: str, names: Iterable[str], most: int = 1) -> list[str]:
    """Return the known names that a word most likely stands for, the likeliest first.

    Upper and lower case are the same. Of equally near names, those with exactly the word's letters
    come first, then those given first.
    """
    text = word.lower()
    found = []
    for name in dict.fromkeys(names):
        other = name.lower()
        steps, mixed = edits(text, other), sorted(text) == sorted(other)
        likeness = 1 - steps / max(len(text), len(other), 1)
        part = other.startswith(text) or other.rpartition("/")[2].startswith(text)
        whole = max(likeness, PART_LIKENESS if part and len(text) >= LEAST_PART else 0)
        if mixed and steps == 1:  # "rl" for "lr", "mea" for "mae"
            whole = max(
                whole, PART_LIKENESS + likeness / 10
            )  # before the beginning of another name
        if whole >= LEAST_LIKENESS:
            found.append((-whole, -likeness, not mixed, name))
    return [name for *_, name in sorted(found, key=lambda one: one[:3])][:most]


def edits(a: str, b: str) -> int:
    """Return the fewest edits from one text to the other.

    An edit inserts, deletes or replaces a letter, or exchanges two neighbours (Damerau 1964).
    """
    before: list[int] = []
    last = list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        row = [i]
        for j, other in enumerate(b, 1):
            cost = min(last[j] + 1, row[-1] + 1, last[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == b[j - 2] and other == a[i - 2]:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before, last = last, row
    return last[-1]


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """Return a sentence that proposes the nearest of `names`; "" if none is near."""
    near = nearest(word, names)
    return f". Did you mean {near[0]}?" if near else ""


def proposing(word: str, names: Iterable[str]) -> str:
    """Return `did_you_mean` as the end of a sentence, with the blank before the next one."""
    return f"{did_you_mean(word, names) or '.'} "


def clip(text: str, most: int, mark: str = "…") -> str:
    """Return a text, without its middle if it has more than `most` letters.

    The ends stay, as long names often differ only there. `report/web/chart.js` clips the same way.
    """
    if len(text) <= most:
        return text
    kept = max(most - len(mark), 2)
    return text[: kept - kept // 2] + mark + text[len(text) - kept // 2 :]
