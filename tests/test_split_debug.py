"""`scripts/split_debug.py`: a wheel is still a wheel after its symbols were taken out."""

from __future__ import annotations

import base64
import csv
import hashlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from candlewick import _native

SCRIPT = Path(__file__).parent.parent / "scripts" / "split_debug.py"
MODULE = "candlewick/_native.abi3.so"
RECORD = "candlewick-1.dist-info/RECORD"

if not SCRIPT.is_file():
    pytest.skip("the scripts are not in the sdist", allow_module_level=True)
if sys.platform != "linux" or not shutil.which("objcopy"):
    pytest.skip("needs Linux and binutils", allow_module_level=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dist") / "candlewick-1-cp310-abi3-any.whl"
    with zipfile.ZipFile(path, "w") as made:
        made.write(_native.__file__, MODULE)
        made.writestr("candlewick/__init__.py", "x = 1\n")
        made.writestr(RECORD, f"{MODULE},sha256=old,1\ncandlewick/__init__.py,sha256=kept,6\n{RECORD},,\n")
    command = [sys.executable, SCRIPT, path, path.parent / "symbols"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if "file format not recognized" in done.stderr or "Unable to recognise" in done.stderr:
        pytest.skip("these binutils were built for another machine (emulated, this one is)")
    assert done.returncode == 0, done.stderr
    return path


def test_the_record_is_true_again(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as read:
        rows = {row[0]: row[1:] for row in csv.reader(read.read(RECORD).decode().splitlines())}
        data = read.read(MODULE)
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    assert rows == {
        MODULE: [f"sha256={digest}", str(len(data))],
        "candlewick/__init__.py": ["sha256=kept", "6"],
        RECORD: ["", ""],
    }


def test_the_module_is_stripped_and_says_where_its_symbols_are(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as read:
        module = read.extract(MODULE, tmp_path)
    sections = subprocess.run(["readelf", "--sections", "--wide", module], capture_output=True, text=True, check=True)
    assert ".gnu_debuglink" in sections.stdout
    assert ".symtab" not in sections.stdout and ".debug_info" not in sections.stdout
    assert (wheel.parent / "symbols" / f"{wheel.name}.debug").stat().st_size > 0
