"""The files of one model: a single one, or the parts that it was split into."""

from __future__ import annotations

import mmap
import re
from dataclasses import dataclass
from pathlib import Path

from layerscale_core.formats.files import map_file
from layerscale_core.formats.gguf.reader import TensorInfo, read_header
from layerscale_core.formats.metadata import Metadata

MAX_PARTS = 1_000
_PART_NAME = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


@dataclass(frozen=True, slots=True)
class GgufPart:
    """One file, mapped, with its tensors."""

    path: Path
    data: mmap.mmap
    tensors: dict[str, TensorInfo]

    @property
    def num_bytes(self) -> int:
        """Bytes of the whole file, also where its end is missing."""
        return max([len(self.data), *(info.offset + info.num_bytes for info in self.tensors.values())])


def open_parts(path: Path, *, metadata_only: bool = False) -> tuple[list[GgufPart], Metadata]:
    """Open a file, and the other parts beside it if it is one of several; the first has the metadata of all.

    Raises:
        ModelFileError: a part is missing, corrupt or hostile, or does not belong to the others.
        UnsupportedModelError: a tensor has a type this build cannot read.
    """
    opened = part, metadata = _open(path, metadata_only=metadata_only)
    count = _count(metadata)
    if count == 1:
        return [part], metadata
    match = _PART_NAME.fullmatch(path.name)
    if match is None or int(match["count"]) != count:
        reason = f"it is one of {count} parts, which its name must say, as in name-00001-of-{count:05}.gguf"
        metadata.fail("split.count", reason)
    names = [f"{match['stem']}-{number:05}-of-{count:05}.gguf" for number in range(1, count + 1)]
    files = [
        opened if name == path.name else _open(path.with_name(name), metadata_only=metadata_only) for name in names
    ]
    for number, (_, own) in enumerate(files):
        if _count(own) != count or own.integer("split.no", minimum=0) != number:
            own.fail("split.no", f"it is not part {number + 1} of {count}")
    return [part for part, _ in files], files[0][1]


def stem_of(path: Path) -> str:
    """A file's name without extension, and without the number of its part."""
    match = _PART_NAME.fullmatch(path.name)
    return match["stem"] if match else path.stem


def is_first_part(path: Path) -> bool:
    """Whether a file's name is that of a whole model or of the first of several parts."""
    match = _PART_NAME.fullmatch(path.name)
    return match is None or int(match["number"]) == 1


def _open(path: Path, *, metadata_only: bool) -> tuple[GgufPart, Metadata]:
    data = map_file(path)
    try:
        header = read_header(data, str(path), metadata_only=metadata_only)
    except BaseException:
        data.close()
        raise
    return GgufPart(path, data, header.tensors), header.metadata


def _count(metadata: Metadata) -> int:
    return max(1, metadata.integer("split.count", default=1, minimum=0, maximum=MAX_PARTS))
