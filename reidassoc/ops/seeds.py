"""Seeds for every purpose from the run's one seed, so that no draw depends on which draws came before it."""

from __future__ import annotations

from hashlib import sha256

import torch

NUMPY_SEEDS = 2**32  # NumPy, and so scikit-learn, takes no larger one: take a seed modulo this


def seed_for(*parts: int | str) -> int:
    """Return a 63-bit seed that depends on all parts, such as (seed, epoch, step, "augmentation")."""
    return int.from_bytes(sha256("/".join(map(str, parts)).encode()).digest()[:8], "little") >> 1


def generator_for(*parts: int | str) -> torch.Generator:
    """Return a generator on the host, seeded by :func:`seed_for`."""
    return torch.Generator().manual_seed(seed_for(*parts))
