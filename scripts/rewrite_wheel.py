"""Replaces files of a wheel, and what its RECORD says of them."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path


def record_line(data: bytes) -> list[str]:
    """Hash and size as RECORD has them."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return [f"sha256={digest}", str(len(data))]


def rewrite(wheel: Path, changed: Mapping[str, bytes]) -> None:
    """Writes the wheel again in place, with other contents for some of its files."""
    with zipfile.ZipFile(wheel) as old:
        entries = [(info, changed.get(info.filename, old.read(info))) for info in old.infolist()]
    new = wheel.with_suffix(".tmp")
    with zipfile.ZipFile(new, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as out:
        for info, data in entries:
            if info.filename.endswith(".dist-info/RECORD"):
                rows = list(csv.reader(io.StringIO(data.decode())))
                rows = [[row[0], *record_line(changed[row[0]])] if row and row[0] in changed else row for row in rows]
                text = io.StringIO()
                csv.writer(text, lineterminator="\n").writerows(rows)
                data = text.getvalue().encode()
            out.writestr(info, data, zipfile.ZIP_DEFLATED)
    new.replace(wheel)
