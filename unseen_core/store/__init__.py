"""Files of the pipeline: atomic, resumable, with equal bytes for equal content."""

from unseen_core.store.atomic import read_json, write_bytes, write_json, write_with
from unseen_core.store.fingerprint import (
    file_hash,
    fingerprint,
    folder_hash,
    import_closure,
    syntax_tree,
)
from unseen_core.store.frames import read_frame, write_csv, write_frame
from unseen_core.store.manifest import DType, Manifest, latent_manifest, write_index
from unseen_core.store.pictures import read_pictures, write_pictures
from unseen_core.store.scratch import Scratch
from unseen_core.store.tensors import TensorStore, part_name, read_tensors, save_part, save_tensors

__all__ = [
    "DType",
    "Manifest",
    "Scratch",
    "TensorStore",
    "file_hash",
    "fingerprint",
    "folder_hash",
    "import_closure",
    "latent_manifest",
    "part_name",
    "read_frame",
    "read_json",
    "read_pictures",
    "read_tensors",
    "save_part",
    "save_tensors",
    "syntax_tree",
    "write_bytes",
    "write_csv",
    "write_frame",
    "write_index",
    "write_json",
    "write_pictures",
    "write_with",
]
