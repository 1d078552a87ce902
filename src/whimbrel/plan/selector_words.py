"""A selector as a person would say it: for the sentences of plans and verdicts."""

from whimbrel.model.selector import Operator, Selector

_WORDS: dict[Operator, str] = {
    "In": "is one of",
    "NotIn": "is none of",
    "Exists": "is there",
    "DoesNotExist": "is not there",
    "Gt": "is over",
    "Lt": "is under",
    "Version": "is a version",
    "NotVersion": "is no version",
}


def selector_words(selector: Selector) -> str:
    """Such as `region is one of AU, NZ and tier is gold`; empty for everyone."""
    terms = [f"{key} is {value}" for key, value in selector.match_labels.items()]
    for term in selector.match_expressions:
        words = "is" if term.operator == "In" and len(term.values) == 1 else _WORDS[term.operator]
        terms.append(f"{term.key} {words} {', '.join(term.values)}".strip())
    return " and ".join(terms)
