"""What a model says of itself: the runtime and the page read it alike, whatever it says."""

import json
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from flexunet_runtime.metadata import read_metadata

HERE = Path(__file__).parent
CASES = json.loads((HERE / "metadata_cases.json").read_text(encoding="utf-8"))


def by_runtime(text):
    try:
        found = read_metadata(text)
    except ValueError as error:
        return {"reason": str(error)}
    return {"names": list(found.names), "colors": [list(color) for color in found.colors]}


def by_page(texts):
    """What the page's reader makes of texts, in Node."""
    if shutil.which("node") is None:
        pytest.skip("Node is not installed")
    done = subprocess.run(
        [shutil.which("node"), str(HERE / "read_metadata.mjs")],
        input=json.dumps(texts),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.case("H1")
@pytest.mark.parametrize("case", CASES, ids=[case["what"] for case in CASES])
def test_the_runtime_reads_or_refuses(case):
    found = by_runtime(case["text"])
    assert found.get("reason") == case.get("reason")
    assert found.get("names") == case.get("names")


def test_the_page_reads_and_refuses_alike_in_the_same_words(count):
    found = by_page([case["text"] for case in CASES])
    differing = [
        case["what"] for case, got in zip(CASES, found, strict=True)
        if got.get("reason") != case.get("reason") or got.get("names") != case.get("names")
    ]  # fmt: skip
    count("H1", len(CASES) - len(differing), len(CASES), f"the page reads and refuses alike {differing or ''}")


PIECES = [
    '"', "{", "}", "[", "]", ",", ":", "\\", "\\u0041", "\\ud800", "0", "-1", "1e999", "256", "1.5", "true", "null",
    "NaN", " ", "\n", "\x00", "\u202e", "\U0001fac1", '"classes"', '"rgb_map"', '"__proto__"', "[0,0,0]",
    '"a"', "[" * 120,
]  # fmt: skip


def mutants(number, seed=137):
    """Texts that are nearly metadata."""
    chance = random.Random(seed)
    seeds = [case["text"] for case in CASES if case["text"]]
    for _ in range(number):
        text = chance.choice(seeds)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(text) + 1)
            kind = chance.random()
            if kind < 0.4:
                text = text[:at] + chance.choice(PIECES) + text[at:]
            elif kind < 0.6:
                text = text[:at] + text[at + chance.randint(1, 9) :]
            elif kind < 0.8:
                other = chance.choice(seeds)
                cut = chance.randrange(len(other) + 1)
                text = text[:at] + other[cut : cut + chance.randint(1, 40)] + text[at:]
            else:
                text = (
                    text[:at] + chr(chance.choice([chance.randrange(128), chance.randrange(0x2100)])) + text[at + 1 :]
                )
        yield text


@pytest.mark.fuzz
def test_whatever_the_text_runtime_and_page_say_the_same(count):
    number = max(2000, int(os.environ.get("FLEXUNET_FUZZ", "0")) // 4)
    texts = list(mutants(number))
    differing = []
    for start in range(0, number, 20_000):
        part = texts[start : start + 20_000]
        pairs = zip(part, map(by_runtime, part), by_page(part), strict=True)
        differing += [text for text, ours, theirs in pairs if ours != theirs]
    count("fuzz", number - len(differing), number, f"mutants of metadata, runtime and page {differing[:3] or ''}")
