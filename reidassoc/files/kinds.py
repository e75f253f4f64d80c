"""What a file is, by its first bytes: an error names a web page or a cut download for what it is."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

HEAD_BYTES = 512
QUOTED = 40  # characters of a text that an error quotes
PRINTABLE = rb"[\t\n\r\x20-\x7e\x80-\xff]+"
AGAIN = "download or copy it again"
UNPACK = "unpack it and give the file inside"
TORCH = "a torch file"
NPZ = "an .npz archive of arrays"
SAFETENSORS = "a .safetensors file"
PICKLE = "a Python pickle"
KINDS = (  # first bytes, noun, next step
    (rb"(\xef\xbb\xbf)?\s*(?i:<!doctype html|<html|<head)", "a web page", "download the file itself"),
    (rb"version https://git-lfs", "a Git-LFS pointer", "run git lfs pull in the repository that it is from"),
    (rb".{4}\0{4}\{", SAFETENSORS, "its name must end in .safetensors"),
    (rb"\x93NUMPY", "one array without a name (.npy)", ""),
    (rb"\x80\x02", PICKLE, ""),
    (rb"\x80[\x03-\x05]", "a Python pickle that torch.save did not write", ""),
    (rb"\x08[\x01-\x1f](\x12|:)", "an ONNX model", "save the weights of the model that it was made from"),
    (rb"\x89HDF\r\n", "an HDF5 file", ""),
    (rb"MATLAB 5", "a MATLAB file", ""),
    (rb"\x89PNG|\xff\xd8\xff|GIF8|BM.{4}\0{4}", "an image", ""),
    (rb"%PDF", "a PDF document", ""),
    (rb"\x1f\x8b|BZh\d|\xfd7zXZ|7z\xbc\xaf|Rar!|.{257}ustar", "a compressed or tar archive", UNPACK),
)


def kind_of(path: Path) -> tuple[str, str]:
    """Return what a file is and the next step, such as ``("a web page", "download the file itself")``; empty where unknown."""
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
    if not head:
        return "empty", AGAIN
    if head.startswith(b"PK\x03\x04"):
        return kind_of_zip(path)
    for pattern, noun, step in KINDS:
        if re.match(pattern, head, re.DOTALL):
            return noun, step
    if re.fullmatch(PRINTABLE, head):
        return f"a text that begins with {' '.join(head.decode('utf-8', 'replace').split())[:QUOTED]!r}", ""
    return "", ""


def kind_of_zip(path: Path) -> tuple[str, str]:
    try:
        with zipfile.ZipFile(path) as file:
            names = file.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, LookupError, UnicodeError):
        return "a ZIP archive without its end, so it is cut off or corrupt", AGAIN
    if any(name.endswith("/constants.pkl") for name in names):
        return "a TorchScript program", "save model.state_dict() instead"
    if any(name.endswith("/data.pkl") for name in names):
        return TORCH, "save its arrays as .npz or .safetensors"
    if any(name.endswith(".npy") for name in names):
        return NPZ, ""
    return "a ZIP archive", UNPACK
