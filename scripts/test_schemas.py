"""JSON Schema's own test suite: every schema is refused by name, or what models write under it validates.

    python scripts/test_schemas.py [--outputs 1000] [--suite FOLDER]

The suite is that of the source distribution of `jsonschema`, which pip fetches. The models are the one in the package
and a small random one, at temperature 1.5, which is as far from sense as a text can be; the judge is `jsonschema`.
Every output that ends within 512 tokens must validate, and at least 95 % must end. Most schemas of the suite allow
texts without limit, and a model of haiku does not think of quotation marks: those end because the budget does.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from make_gguf import tiny_model

from candlewick import Generator, InvalidRequestError

DRAFTS = ("draft4", "draft6", "draft7", "draft2019-09", "draft2020-12")
VALIDATORS = {
    "draft4": jsonschema.Draft4Validator,
    "draft6": jsonschema.Draft6Validator,
    "draft7": jsonschema.Draft7Validator,
    "draft2019-09": jsonschema.Draft201909Validator,
    "draft2020-12": jsonschema.Draft202012Validator,
}
MAX_TOKENS = 512


def fetch(folder: Path) -> Path:
    """The suite of the source distribution, below `folder`."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--no-binary",
        "jsonschema",
        "jsonschema",
    ]
    subprocess.run([*command, "--dest", str(folder)], check=True)
    (archive,) = folder.glob("jsonschema-*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    (suite,) = folder.glob("jsonschema-*/json/tests")
    return suite


def schemas(suite: Path) -> Iterator[tuple[str, str, Any, list[Any]]]:
    """Draft, name, schema and the invalid instances of every case that needs no other document."""
    for draft in DRAFTS:
        for path in sorted((suite / draft).glob("*.json")):
            if path.stem in ("refRemote", "vocabulary"):
                continue
            for case in json.loads(path.read_text(encoding="utf-8")):
                invalid = [test["data"] for test in case["tests"] if not test["valid"]]
                yield draft, f"{draft}/{path.stem}: {case['description']}", case["schema"], invalid


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outputs", type=int, default=1000)
    parser.add_argument("--suite", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        suite = options.suite or fetch(Path(folder))
        models = {"demo": Generator("demo"), "random": Generator(tiny_model(Path(folder) / "tiny.gguf", context=1024))}
        return run(suite, models, options.outputs, options.seed)


def run(suite: Path, models: dict[str, Generator], wanted: int, seed: int) -> int:
    taken, refused = [], collections.Counter()
    for draft, name, schema, _ in schemas(suite):
        if isinstance(schema, bool):
            schema = {"allOf": [schema]}
        try:
            models["demo"].stream("x", json_schema=schema).cancel()
        except InvalidRequestError as error:
            refused[str(error).split(" at ")[0][:70]] += 1
            continue
        taken.append((draft, name, schema))
    print(f"{len(taken)} schemas are taken, {sum(refused.values())} refused:")
    for text, n in refused.most_common():
        print(f"  {n:4} {text}")
    finished, wrong = 0, []
    written: collections.Counter[str] = collections.Counter()
    unfinished: collections.Counter[str] = collections.Counter()
    rng = random.Random(seed)
    for i in range(wanted):
        draft, name, schema = taken[i % len(taken)]
        model = ("demo", "random")[i // len(taken) % 2]
        answer = models[model].generate(
            "Write JSON", json_schema=schema, temperature=1.5, max_tokens=MAX_TOKENS, seed=rng.randrange(2**32)
        )
        written[model] += 1
        if answer.finish_reason != "stop":
            unfinished[model] += 1
            continue
        finished += 1
        try:
            value = json.loads(answer.text)
            VALIDATORS[draft](schema).validate(value)
        except (ValueError, jsonschema.ValidationError) as error:
            wrong.append(f"{name}, {model}, seed {answer.seed}: {answer.text[:200]!r}: {str(error).splitlines()[0]}")
    print(f"{finished} of {wanted} outputs finished within {MAX_TOKENS} tokens ({finished / wanted:.1%})")
    for model, n in written.items():
        print(f"  {model}: {1 - unfinished[model] / n:.1%} of {n}")
    print(f"{len(wrong)} do not validate")
    print(*wrong, sep="\n")
    return 1 if wrong or finished < 0.95 * wanted else 0


if __name__ == "__main__":
    sys.exit(main())
