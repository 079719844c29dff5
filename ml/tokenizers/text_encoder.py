"""Text embeddings by a sentence-transformers model; the default needs no model hub.

The default, `wordllama`, is the 256-wide static token table that the wordllama package carries
(MIT), held by sentence-transformers' `StaticEmbedding`: the mean of a text's token vectors.
Static means that word order is not seen.
"""

import hashlib
import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

DEFAULT_ENCODER = "wordllama"
EMPTY_TEXT = "no description"


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderConfig:
    """Choose a text encoder.

    Attributes:
        name: `wordllama`, a local folder, or any sentence-transformers id.
        batch_size: Texts per forward pass.
        allow_download: Whether an id that is not on this machine may be fetched.
    """

    name: str = DEFAULT_ENCODER
    batch_size: int = 512
    allow_download: bool = False

    def __post_init__(self) -> None:
        """Check the invariants."""
        if not self.name:
            raise ValueError("text encoder name is empty; name a folder, an id or 'wordllama'")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")


class TextEncoder:
    """Embed texts as unit-norm float32 vectors, the same text always as the same vector."""

    def __init__(self, model: "SentenceTransformer", config: EncoderConfig) -> None:
        """Wrap a loaded model; use `load_encoder` to get one."""
        self._model = model.eval()
        self.config = config
        self.version = f"{config.name}@{_fingerprint(model)}"

    @property
    def width(self) -> int:
        """Return the embedding width."""
        return int(self._model.get_embedding_dimension() or 0)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts; blank ones are read as `EMPTY_TEXT`.

        Args:
            texts: Any number of texts.

        Returns:
            Embeddings [N, D], unit norm, float32.
        """
        if not texts:
            return np.zeros((0, self.width), dtype=np.float32)
        distinct = list(dict.fromkeys(text.strip() or EMPTY_TEXT for text in texts))
        vectors = self._model.encode(
            distinct,
            batch_size=self.config.batch_size,
            convert_to_numpy=True,
            show_progress_bar=False,
        ).astype(np.float64)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit = (vectors / np.maximum(norms, 1e-12)).astype(np.float32)
        row = {text: index for index, text in enumerate(distinct)}
        return unit[[row[text.strip() or EMPTY_TEXT] for text in texts]]


def load_encoder(config: EncoderConfig | None = None) -> TextEncoder:
    """Load an encoder on the CPU.

    Args:
        config: Which one; the embedded default if left out.

    Raises:
        FileNotFoundError: If the model is not on this machine and may not be fetched.
    """
    config = config or EncoderConfig()
    if config.name == DEFAULT_ENCODER:
        return TextEncoder(_wordllama(), config)
    from sentence_transformers import SentenceTransformer

    try:
        model = SentenceTransformer(
            config.name,
            device="cpu",
            local_files_only=not config.allow_download,
            model_kwargs={"use_safetensors": True},
        )
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"text encoder {config.name!r} could not be loaded ({error}); give a local folder, "
            f"allow the download, or use {DEFAULT_ENCODER!r}"
        ) from error
    return TextEncoder(model, config)


def wordllama_folder() -> Path:
    """Return the folder of the installed wordllama package.

    Raises:
        FileNotFoundError: If the package is not installed.
    """
    spec = importlib.util.find_spec("wordllama")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("package wordllama is missing; install requirements.lock")
    return Path(spec.origin).parent


def _wordllama() -> "SentenceTransformer":
    import torch
    from safetensors.torch import load_file
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    folder = wordllama_folder()
    tokenizer = Tokenizer.from_file(
        str(folder / "tokenizers" / "l2_supercat_tokenizer_config.json")
    )
    weights = load_file(folder / "weights" / "l2_supercat_256.safetensors")["embedding.weight"]
    static = StaticEmbedding(tokenizer, embedding_weights=weights.to(torch.float32))
    return SentenceTransformer(modules=[static], device="cpu")


def _fingerprint(model: "SentenceTransformer") -> str:
    digest = hashlib.sha256()
    for name, chunk in _weight_bytes(model):
        digest.update(name.encode())
        digest.update(chunk)
    return digest.hexdigest()[:12]


def _weight_bytes(model: "SentenceTransformer") -> Iterator[tuple[str, bytes]]:
    for name, tensor in sorted(model.state_dict().items()):
        yield name, tensor.detach().cpu().contiguous().float().numpy().tobytes()
