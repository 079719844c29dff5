"""Number format of the forward pass: bfloat16 only where the processor computes in it."""

from contextlib import AbstractContextManager, nullcontext

import torch


def supports_bfloat16(device: torch.device) -> bool:
    """Return whether the device multiplies bfloat16 in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def number_format(name: str, *, device: torch.device) -> torch.dtype:
    """Return the format of "auto", "float32" or "bfloat16".

    Raises:
        ValueError: If the name is another one, or the device has no bfloat16.
    """
    if name not in ("auto", "float32", "bfloat16"):
        raise ValueError(f"precision is auto, float32 or bfloat16, not {name!r}")
    if name == "bfloat16" and not supports_bfloat16(device):
        raise ValueError(f"{device.type} has no bfloat16 here; use precision auto or float32")
    if name != "float32" and supports_bfloat16(device):
        return torch.bfloat16
    return torch.float32


def forward_pass(dtype: torch.dtype, *, device: torch.device) -> AbstractContextManager[object]:
    """Return the context in which to run the forward pass."""
    if dtype is torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype=dtype)
