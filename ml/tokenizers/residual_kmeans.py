"""Semantic IDs: residual k-means over text embeddings, as a frozen, versioned artefact.

Level 1 clusters the embeddings, each later level clusters what the levels before left over, so
that the codes of an item go from coarse to fine. The codebooks are fitted once, on items of the
training period; later items are only encoded.

Source: residual quantisation as in the semantic-ID papers (RQ-k-means, e.g. arXiv 2604.04976).
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

# Shapes: N items, D embedding width, L levels, K codes of a level.


@dataclass(frozen=True, kw_only=True, slots=True)
class CodebookConfig:
    """Size of the codebooks.

    Attributes:
        num_levels: Codes per item, 1 to 8.
        codes_per_level: Clusters per level; fewer where fewer distinct vectors exist.
        seed: Seed of the first level; level l uses seed + l.
        num_starts: k-means restarts per level, the best kept.
    """

    num_levels: int = 4
    codes_per_level: int = 84
    seed: int = 0
    num_starts: int = 4

    def __post_init__(self) -> None:
        """Check the invariants."""
        if not 1 <= self.num_levels <= 8:
            raise ValueError(f"num_levels must be 1..8, got {self.num_levels}")
        if self.codes_per_level < 2:
            raise ValueError(f"codes_per_level must be at least 2, got {self.codes_per_level}")
        if self.num_starts < 1:
            raise ValueError(f"num_starts must be at least 1, got {self.num_starts}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Codebooks:
    """Hold fitted centroids; equal content has an equal `version`.

    Attributes:
        levels: One [K, D] float32 array per level.
        config: What they were fitted with.
        encoder: Version of the text encoder whose space they live in.
    """

    levels: tuple[NDArray[np.float32], ...]
    config: CodebookConfig
    encoder: str

    @property
    def version(self) -> str:
        """Return a hash of centroids, sizes and encoder, 16 hexadecimal digits."""
        digest = hashlib.sha256(json.dumps(_header(self), sort_keys=True).encode())
        for centroids in self.levels:
            digest.update(np.ascontiguousarray(centroids).tobytes())
        return digest.hexdigest()[:16]


def fit_codebooks(
    embeddings_ND: NDArray[np.float32],
    *,
    encoder: str,
    config: CodebookConfig | None = None,
) -> Codebooks:
    """Fit one k-means per level on the distinct embeddings.

    Args:
        embeddings_ND: Embeddings of the items that may be fitted on.
        encoder: Version of the encoder that made them.
        config: Sizes and seeds.

    Raises:
        ValueError: If there is no embedding or one is not finite.
    """
    config = config or CodebookConfig()
    if embeddings_ND.ndim != 2 or not len(embeddings_ND):
        raise ValueError("no embeddings to fit codebooks on; is any item seen before validation?")
    if not np.isfinite(embeddings_ND).all():
        raise ValueError("embeddings to fit codebooks on hold NaN or infinity")
    residual = np.unique(embeddings_ND, axis=0).astype(np.float64)
    levels = []
    for level in range(config.num_levels):
        centroids = _fit_level(residual, config=config, level=level)
        levels.append(centroids)
        residual = residual - centroids[_nearest(residual, centroids)].astype(np.float64)
    return Codebooks(levels=tuple(levels), config=config, encoder=encoder)


def encode(embeddings_ND: NDArray[np.float32], codebooks: Codebooks) -> NDArray[np.int32]:
    """Return the codes_NL of embeddings under frozen codebooks, coarse to fine.

    Raises:
        ValueError: If the widths differ.
    """
    width = codebooks.levels[0].shape[1]
    if embeddings_ND.ndim != 2 or embeddings_ND.shape[1] != width:
        raise ValueError(f"embeddings are {embeddings_ND.shape}, codebooks are {width} wide")
    residual = embeddings_ND.astype(np.float64)
    codes = []
    for centroids in codebooks.levels:
        nearest = _nearest(residual, centroids)
        codes.append(nearest)
        residual = residual - centroids[nearest].astype(np.float64)
    return np.stack(codes, axis=1).astype(np.int32)


def disambiguate(codes_NL: NDArray[np.int32]) -> NDArray[np.int32]:
    """Number the items of each ID 0, 1, 2, ... in row order.

    Rows must come in the order of the item index, so that a new item never renumbers an old one.
    """
    seen: dict[tuple[int, ...], int] = {}
    out = np.zeros(len(codes_NL), dtype=np.int32)
    for row, codes in enumerate(map(tuple, codes_NL.tolist())):
        out[row] = seen.get(codes, 0)
        seen[codes] = int(out[row]) + 1
    return out


def save_codebooks(codebooks: Codebooks, folder: Path) -> str:
    """Write `codebooks.safetensors` and `codebooks.json`; return the version."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"level_{i}": np.ascontiguousarray(c) for i, c in enumerate(codebooks.levels)}
    save_file(tensors, folder / "codebooks.safetensors")
    header = {**_header(codebooks), "version": codebooks.version}
    (folder / "codebooks.json").write_text(json.dumps(header, indent=1, sort_keys=True))
    return codebooks.version


def load_codebooks(folder: Path) -> Codebooks:
    """Read codebooks and check their content against their version.

    Raises:
        ValueError: If the files do not belong together.
    """
    header = json.loads((folder / "codebooks.json").read_text())
    tensors = load_file(folder / "codebooks.safetensors")
    codebooks = Codebooks(
        levels=tuple(tensors[f"level_{i}"] for i in range(len(tensors))),
        config=CodebookConfig(**header["config"]),
        encoder=header["encoder"],
    )
    if codebooks.version != header["version"]:
        raise ValueError(f"codebooks in {folder} do not match their version; fit them again")
    return codebooks


def _header(codebooks: Codebooks) -> dict[str, object]:
    sizes: Sequence[int] = [len(c) for c in codebooks.levels]
    return {
        "config": asdict(codebooks.config),
        "encoder": codebooks.encoder,
        "sizes": list(sizes),
    }


def _fit_level(
    residual_ND: NDArray[np.float64], *, config: CodebookConfig, level: int
) -> NDArray[np.float32]:
    num_codes = min(config.codes_per_level, len(np.unique(residual_ND, axis=0)))
    means = KMeans(
        num_codes,
        n_init=config.num_starts,  # pyright: ignore[reportArgumentType]
        random_state=config.seed + level,
    )
    with threadpool_limits(limits=1):  # sums over threads would depend on their order
        means.fit(residual_ND)
    return means.cluster_centers_.astype(np.float32)


def _nearest(
    vectors_ND: NDArray[np.float64], centroids_KD: NDArray[np.float32]
) -> NDArray[np.intp]:
    centroids = centroids_KD.astype(np.float64)
    distance = (centroids**2).sum(axis=1) - 2.0 * vectors_ND @ centroids.T
    return distance.argmin(axis=1)
