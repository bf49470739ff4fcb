"""`scripts/build_wheels.py`: what is done to a wheel after it was built."""

from __future__ import annotations

import base64
import csv
import hashlib
import zipfile
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"
LIST = "candlewick-1.dist-info/sboms/candlewick.cyclonedx.json"
RECORD = "candlewick-1.dist-info/RECORD"

if not SCRIPTS.is_dir():
    pytest.skip("the scripts are not in the sdist", allow_module_level=True)


def test_the_folder_of_the_build_is_not_in_the_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import build_wheels

    root = SCRIPTS.parent.resolve().as_uri()
    wheel = tmp_path / "candlewick-1-cp310-abi3-any.whl"
    with zipfile.ZipFile(wheel, "w") as made:
        made.writestr("candlewick/__init__.py", "x = 1\n")
        made.writestr(LIST, f'{{"bom-ref": "path+{root}#candlewick@1", "other": "pkg:cargo/rayon@1"}}')
        made.writestr(RECORD, f"candlewick/__init__.py,sha256=kept,6\n{LIST},sha256=old,1\n{RECORD},,\n")
    build_wheels.forget_folder(wheel)

    with zipfile.ZipFile(wheel) as read:
        data = read.read(LIST)
        rows = {row[0]: row[1:] for row in csv.reader(read.read(RECORD).decode().splitlines())}
    assert data == b'{"bom-ref": "path+file:///candlewick#candlewick@1", "other": "pkg:cargo/rayon@1"}'
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    assert rows == {
        "candlewick/__init__.py": ["sha256=kept", "6"],
        LIST: [f"sha256={digest}", str(len(data))],
        RECORD: ["", ""],
    }
