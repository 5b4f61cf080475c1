"""As much of torch as `director._ipc.tensors` asks for. Itself the module that stands for it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

strided, sparse = "strided", "sparse"
uint8 = np.uint8
__spec__ = SimpleNamespace(_initializing=False)  # type: ignore[assignment]


class Tensor:
    def __init__(self, array: Any, odd: str = "") -> None:
        self.array = array
        self.odd = odd
        self.shape = array.shape
        self.dtype = array.dtype
        self.nbytes = array.nbytes
        self.is_cuda = odd == "cuda"
        self.requires_grad = odd == "requires_grad"
        self.is_quantized = odd == "is_quantized"
        self.layout = sparse if odd == "sparse" else strided
        self.device = SimpleNamespace(type="cpu")

    def is_contiguous(self) -> bool:
        return self.odd != "not contiguous"

    def is_conj(self) -> bool:
        return self.odd == "conj"

    def is_neg(self) -> bool:
        return False

    def reshape(self, *shape: Any) -> Tensor:
        return Tensor(self.array.reshape(*shape))

    def view(self, dtype: Any) -> Tensor:
        return Tensor(self.array.view(dtype))

    def numpy(self) -> Any:
        return self.array

    def __reduce__(self) -> Any:
        return str, ("torch's own way",)


def frombuffer(buffer: Any, dtype: Any) -> Tensor:
    return Tensor(np.frombuffer(buffer, dtype))
