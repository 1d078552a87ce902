"""Bytes from others cost a sentence, whatever they are: what fuzzers begin with, what they found, and mutations of it.

`make fuzz` looks further, guided by coverage (tests/fuzz/run.py); this runs everywhere.
"""

import random

import pytest

from support.fuzz import TARGETS, kept

MUTATIONS = 60  # of each target


@pytest.mark.parametrize("name", TARGETS)
def test_parser_takes_or_refuses_what_fuzzers_begin_with(name: str) -> None:
    for seed in TARGETS[name].seeds():
        TARGETS[name].run(seed)
    TARGETS[name].run(b"")


@pytest.mark.parametrize("name", TARGETS)
def test_parser_withstands_what_was_found_once(name: str) -> None:
    for path in kept(name):
        TARGETS[name].run(path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_parser_takes_or_refuses_mutations(name: str) -> None:
    chance, seeds = random.Random(name), [seed for seed in TARGETS[name].seeds() if seed]
    for _ in range(MUTATIONS):
        content = bytearray(chance.choice(seeds))
        for _ in range(chance.randint(1, 4)):
            place = chance.randrange(1, max(2, len(content)))
            match chance.randrange(4):
                case 0:
                    content[place : place + 1] = chance.randbytes(1)
                case 1:
                    del content[place : place + chance.randint(1, 16)]
                case 2:
                    other = chance.choice(seeds)
                    start = chance.randrange(len(other))
                    content[place:place] = other[start : start + 32]
                case _:
                    content[place:place] = content[max(0, place - 16) : place]
        TARGETS[name].run(bytes(content))
