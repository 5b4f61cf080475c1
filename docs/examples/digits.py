"""Classify scikit-learn's 1,797 scanned digits, on CPU cores or GPUs.

    pip install 'gpu-director[demo]'
    python docs/examples/digits.py --write digits
    director run docs/examples/digits.py:classify 'digits/*/*.pgm' --model docs/examples/digits.py:model \
        --devices cpu:2 --output digits.jsonl
    python docs/examples/digits.py --score digits.jsonl

The same command without `--devices` runs on every GPU; there the network runs in torch.

Every second digit is held out: the network never sees it while it is trained, and only those tell how good it is.
"""

from __future__ import annotations

import argparse
import json
import threading
import warnings
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from director import Model

if TYPE_CHECKING:
    from collections.abc import Callable

    from director import Device

    # 64 pixels from 0 to 1 -> 10 probabilities; or a batch of such rows -> as many rows
    Network = Callable[[np.ndarray], np.ndarray]

# ---- what `director run` calls


def load(device: Device) -> Network:
    """A replica of the trained network on `device`; runs once for each device."""
    weights = train()
    return _torch_network(weights, device) if device.kind == "cuda" else _numpy_network(weights)


model = Model(load, name="digits")


def classify(network: Network, path: str) -> dict[str, object]:
    """The digit on the scan at `path`; runs once for each file, on a thread of the device that is free."""
    probabilities = network(read_pgm(Path(path)))
    return {"digit": int(probabilities.argmax()), "probability": round(float(probabilities.max()), 4)}


# ---- the network


class Weights(NamedTuple):
    hidden: np.ndarray  # 64 x 256
    hidden_bias: np.ndarray
    out: np.ndarray  # 256 x 10
    out_bias: np.ndarray


_training = threading.Lock()  # the devices load at the same time, and one training is enough for all


def train() -> Weights:
    with _training:
        return _train()


@cache
def _train() -> Weights:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier
    from threadpoolctl import threadpool_limits

    pixels, labels = scans()
    network = MLPClassifier((256,), batch_size=64, learning_rate_init=0.01, max_iter=40, random_state=0)
    with warnings.catch_warnings(), threadpool_limits(1):  # so small a network is slower on several threads
        warnings.simplefilter("ignore", ConvergenceWarning)  # 40 rounds are enough, and quick
        network.fit(pixels[0::2], labels[0::2])
    (hidden, out), (hidden_bias, out_bias) = network.coefs_, network.intercepts_
    return Weights(hidden, hidden_bias, out, out_bias)


def _numpy_network(weights: Weights) -> Network:
    def network(pixels: np.ndarray) -> np.ndarray:
        scores = np.maximum(pixels @ weights.hidden + weights.hidden_bias, 0) @ weights.out + weights.out_bias
        powers = np.exp(scores - scores.max(-1, keepdims=True))
        return powers / powers.sum(-1, keepdims=True)

    return network


def _torch_network(weights: Weights, device: Device) -> Network:
    try:
        import torch
    except ImportError:
        raise RuntimeError(f"{device} needs torch: pip install torch, or choose --devices cpu:2") from None

    hidden, hidden_bias, out, out_bias = (torch.tensor(w, dtype=torch.float32, device=str(device)) for w in weights)

    @torch.inference_mode()
    def network(pixels: np.ndarray) -> np.ndarray:
        x = torch.tensor(pixels, dtype=torch.float32, device=str(device))
        scores = torch.relu(x @ hidden + hidden_bias) @ out + out_bias
        return torch.softmax(scores, -1).cpu().numpy()

    return network


# ---- the scans


def scans() -> tuple[np.ndarray, np.ndarray]:
    """1,797 rows of 64 pixels from 0 to 1, and what digit each is."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return digits.data / 16, digits.target


def write_pgm(path: Path, pixels: np.ndarray) -> None:
    path.write_bytes(b"P5 8 8 16\n" + (pixels * 16).astype(np.uint8).tobytes())


def read_pgm(path: Path) -> np.ndarray:
    head, _, body = path.read_bytes().partition(b"\n")
    if head != b"P5 8 8 16" or len(body) != 64:
        raise ValueError("not a PGM image of 8 by 8 pixels and 17 greys")
    return np.frombuffer(body, np.uint8) / 16


def write_all(folder: Path) -> int:
    """Write the scans as `train/0000-is-0.pgm`, `held-out/0001-is-1.pgm`, ...; the number of files."""
    pixels, labels = scans()
    for part in ("train", "held-out"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for index, (scan, label) in enumerate(zip(pixels, labels, strict=True)):
        part = "held-out" if index % 2 else "train"
        write_pgm(folder / part / f"{index:04}-is-{label}.pgm", scan)
    return len(labels)


def score(results: Path) -> list[str]:
    """How many digits are right, of those held out and of those the network was trained on."""
    counts = {"held-out": [0, 0, 0], "train": [0, 0, 0]}  # right, wrong, failed
    with results.open() as lines:
        for line in lines:
            record = json.loads(line)
            path = Path(record["input"])
            right = "result" in record and path.stem.endswith(f"-is-{record['result']['digit']}")
            counts[path.parent.name][2 if "error" in record else 0 if right else 1] += 1
    return [_verdict(part, *count) for part, count in counts.items() if any(count)]


def _verdict(part: str, right: int, wrong: int, failed: int) -> str:
    total = right + wrong
    meaning = "never seen in training: this is the accuracy" if part == "held-out" else "it was trained on these"
    return f"{part:8}  {right} of {total} right ({right / max(total, 1):.1%}), {failed} failed; {meaning}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the digits as images, or score the results of a run.")
    parser.add_argument("--write", metavar="FOLDER", type=Path, help="write 1,797 PGM images")
    parser.add_argument("--score", metavar="RESULTS", type=Path, help="print the accuracy of a run")
    options = parser.parse_args()
    if options.write:
        print(f"{write_all(options.write)} scans in {options.write}")
    if options.score:
        print("\n".join(score(options.score)))


if __name__ == "__main__":
    main()
