"""A web service that reads handwritten digits, on every GPU or without one.

    pip install 'gpu-director[demo,fastapi]' uvicorn python-multipart pillow
    uvicorn --app-dir docs/examples digits_server:app

    python docs/examples/digits_server.py seven.png 7         # scans that the network has never seen
    python docs/examples/digits_server.py strip.png 31415926
    curl -F image=@seven.png localhost:8000/digits
    curl -F images=@seven.png -F images=@seven.png localhost:8000/digits/many
    curl -N -F image=@strip.png localhost:8000/strip

The network is trained while the server starts, which takes some seconds. ``DIGITS_DEVICES=cpu:2`` chooses the devices.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator  # noqa: TC003 - FastAPI reads the annotations
from contextlib import aclosing
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import anyio.to_thread
import numpy as np
from digits import load, scans
from fastapi import Depends, FastAPI, HTTPException, UploadFile
from fastapi.responses import StreamingResponse
from fastapi.sse import EventSourceResponse
from PIL import Image, UnidentifiedImageError
from pydantic import BaseModel

from director import Director, Model, Stream
from director.asgi import time_left
from director.fastapi import PROBLEMS, install, lifespan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from digits import Network

MOST_BYTES = 1_000_000  # of an upload

director = Director(os.environ.get("DIGITS_DEVICES"), max_queue=256, when_full="refuse")
model = Model(load, name="digits")

app = FastAPI(title="Digits", responses=PROBLEMS, lifespan=lifespan(director, load=[model]))
install(app, director, models=[model], request_deadlines=True)


class Reading(BaseModel):
    digit: int
    probability: float


@director.function(model=model, max_batch_size=32)
def read(network: Network, images: list[np.ndarray]) -> list[Reading]:
    """What is on some images; runs on the thread of the device that is free, with whatever waits by then."""
    rows = network(np.stack(images))
    return [Reading(digit=int(row.argmax()), probability=round(float(row.max()), 4)) for row in rows]


def read_along(network: Network, squares: list[np.ndarray]) -> Iterator[Reading]:
    """What is on a strip of squares, one after the other; the device is held until the last."""
    for square in squares:
        row = network(square)
        yield Reading(digit=int(row.argmax()), probability=round(float(row.max()), 4))


@app.post("/digits")
async def read_one(image: UploadFile) -> Reading:
    """The digit on one image."""
    (pixels, *_) = await decode(image)
    return await read.with_options(deadline=time_left())(pixels)


@app.post("/digits/many")
async def read_many(images: list[UploadFile]) -> StreamingResponse:
    """The digits on many images: a line of JSON for each, in their order, as soon as it is there."""
    decoded = [(await decode(image))[0] for image in images]

    async def lines() -> AsyncIterator[str]:
        async with aclosing(read.map(decoded)) as readings:  # what is left is cancelled when the client leaves
            async for reading in readings:
                yield reading.model_dump_json() + "\n"

    return StreamingResponse(lines(), media_type="application/jsonl")


async def readings_of(image: UploadFile) -> AsyncIterator[Stream[Reading]]:
    """A dependency: the stream is queued, or refused, before the answer begins."""
    squares = await decode(image)
    # A client who takes nothing for ten seconds loses the device to others.
    async with director.stream(read_along, squares, model=model, on_slow_reader="cancel") as readings:
        yield readings


@app.post("/strip", response_class=EventSourceResponse)
async def read_strip(readings: Annotated[Stream[Reading], Depends(readings_of)]) -> AsyncIterator[Reading]:
    """The digits on a strip that is as many squares wide: server-sent events, each as soon as it is read."""
    async for reading in readings:
        yield reading


async def decode(upload: UploadFile) -> list[np.ndarray]:
    """The squares of an uploaded image. On a thread of its own: neither the event loop nor a device waits for it."""
    if upload.size is not None and upload.size > MOST_BYTES:
        raise HTTPException(413, f"an image may have {MOST_BYTES:,} bytes")
    return await anyio.to_thread.run_sync(_decode, await upload.read())


def _decode(content: bytes) -> list[np.ndarray]:
    try:
        image = Image.open(BytesIO(content)).convert("L")
        count = max(1, round(image.width / image.height))
        image = image.resize((8 * count, 8), Image.Resampling.BOX)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError) as error:
        raise HTTPException(422, "this is no image that can be read") from error
    return [square.ravel() / 255 for square in np.split(np.asarray(image, dtype=np.float64), count, axis=1)]


def draw(path: Path, *digits: int) -> None:
    """Write a strip of scans that are held out of the training."""
    pixels, labels = scans()
    found = [pixels[1::2][labels[1::2] == digit][0].reshape(8, 8) for digit in digits]
    image = Image.fromarray((np.hstack(found) * 255).astype(np.uint8))
    image.resize((64 * len(digits), 64), Image.Resampling.NEAREST).save(path)


if __name__ == "__main__":
    draw(Path(sys.argv[1]), *map(int, sys.argv[2]))
    print(f"wrote {sys.argv[1]}")
