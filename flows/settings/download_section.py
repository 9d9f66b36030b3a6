"""The section ``downloads`` of params.yaml: what may come from the network."""

import re
from collections.abc import Iterator
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from flows.settings.sections import Count, Section

__all__ = ["Download"]

_FILE = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
_SHA256 = r"[0-9a-f]{64}"


class Download(Section):
    """A file by its ``url``, or files of a repository on a ``hub``.

    ``sha256`` is one hash for a ``url``. For a ``hub`` it maps files to hashes and may be left
    out: the commit that ``revision`` stands for fixes the content.
    """

    url: str | None = None
    file: str | None = Field(default=None, pattern=_FILE)
    hub: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][\w.-]*/[\w.-]+$")
    revision: str | None = Field(default=None, min_length=1)
    repo_type: Literal["model", "dataset"] = "model"
    files: list[str] = Field(default=["*"], min_length=1)
    sha256: str | dict[str, str] | None = None
    max_mib: Count = 16384

    @property
    def max_bytes(self) -> int:
        """The largest size that is taken."""
        return self.max_mib * 2**20

    def file_name(self) -> str:
        """Return what the file of a ``url`` is called: ``file``, or the end of the address."""
        return self.file or urlsplit(self.url or "").path.rpartition("/")[2]

    def file_hash(self) -> str | None:
        """Return the hash of the file of a ``url``."""
        return self.sha256 if isinstance(self.sha256, str) else None

    def file_hashes(self) -> dict[str, str]:
        """Return the hashes of files of a ``hub``."""
        return self.sha256 if isinstance(self.sha256, dict) else {}

    @model_validator(mode="after")
    def _is_one_kind(self) -> "Download":
        """Refuse keys of one kind beside those of the other."""
        for mistake in self._mistakes():
            raise PydanticCustomError("download", mistake)
        return self

    def _mistakes(self) -> Iterator[str]:
        """Yield what is wrong with the keys together."""
        hashes = self.file_hashes().values() if self.file_hash() is None else [self.sha256]
        if not all(re.fullmatch(_SHA256, str(sha256)) for sha256 in hashes):
            yield "a sha256 has 64 digits of 0-9a-f"
        if (self.url is None) == (self.hub is None):
            yield "give url or hub, one of the two"
        elif self.url is not None:
            if isinstance(self.sha256, dict):
                yield "the sha256 of a url is one hash"
            if not re.fullmatch(_FILE, self.file_name()):
                yield "the address ends in no plain file name; give file"
            if self.model_fields_set & {"revision", "repo_type", "files"}:
                yield "revision, repo_type and files belong to a hub"
        else:
            if self.revision is None:
                yield "a hub needs a revision, a commit or a tag that never moves"
            if self.file_hash() is not None:
                yield "the sha256 of a hub maps files to hashes"
            if self.file is not None:
                yield "a hub takes files, a list, not file"
