"""A sentence-transformers model that ONNX Runtime runs in 8-bit integers: made here from the same weights, once.

Only the products with weights are quantised: weights by column to 7 bits, so that no processor's 16-bit sums
overflow; what they are multiplied with to 8 bits, by the range of the text at hand. Each text is run by itself,
so its vector does not depend on the texts beside it, and no padding is multiplied; the threads share the texts.
"""

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tsds_pipeline.encoders.sharing import threads
from tsds_pipeline.errors import TsdsError
from tsds_pipeline.storage import write_atomically

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

VERSION = 1
"""Part of the fingerprint: another one where the same weights would give other vectors."""
OPSET = 17
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
LEAST_COSINE = 0.9


def run_with_onnx(model: "SentenceTransformer", path: Path) -> None:
    """Have ``model``, which is on a CPU, run what is in the file ``path``; it is made where it is not there.

    Raises :class:`TsdsError` where packages are missing and for a model that cannot be converted.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise TsdsError(
            f'[encoder] backend = "onnx" needs packages that are not installed ({error}): '
            'pip install "tsds-pipeline[onnx]"'
        ) from None
    import torch

    if model.default_prompt_name is not None:
        raise TsdsError('[encoder] backend = "onnx": this model puts a prompt before each text: leave it out')
    if not path.exists():
        write_atomically(path, lambda temporary: _convert(model, temporary))
    try:
        run = _runner(path)
    except Exception as error:  # its errors have no common class of their own
        raise TsdsError(
            f"{path} cannot be loaded: delete it, and it is made again ({_reason(error)})"
        ) from None
    pool = ThreadPoolExecutor(threads())

    def forward(features: dict, **kwargs: object) -> dict:
        read = features["attention_mask"].numpy().astype(bool)
        arrays = {name: features[name].numpy() for name in INPUTS if name in features}
        texts = [
            {name: array[row : row + 1, read[row]] for name, array in arrays.items()}
            for row in range(len(read))
        ]
        return {"sentence_embedding": torch.from_numpy(np.concatenate(list(pool.map(run, texts))))}

    model.forward = forward


def _runner(path: Path) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    """The model in ``path``: from the token ids (1, length) of a text to its vector (1, dim), on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = {one.name for one in session.get_inputs()}
    return lambda inputs: session.run(None, {name: inputs[name] for name in names})[0]


def _convert(model: "SentenceTransformer", path: Path) -> None:
    """Write ``model`` to ``path`` with its matrices quantised, and see that it gives what it did, nearly."""
    import torch

    with tempfile.TemporaryDirectory() as folder, _quiet():
        exact = Path(folder) / "exact.onnx"
        try:
            _export(model, exact)
            _quantize(exact, path)
            # Of another length than those of the export: a length that became a constant would show.
            features = model.preprocess(["a text of more words than those before"])
            inputs = {name: features[name].numpy() for name in INPUTS if name in features}
            with torch.inference_mode():
                (expected,) = model(features)["sentence_embedding"].numpy()
            (found,) = _runner(path)(inputs)
        except Exception as error:  # whatever the operators of a model lead to
            raise _not_converted(_reason(error)) from error
    cosine = float(found @ expected / np.linalg.norm(found) / np.linalg.norm(expected))
    if not cosine >= LEAST_COSINE:
        raise _not_converted(f"its vectors come out different: cosine {cosine:.2f}")


def _export(model: "SentenceTransformer", path: Path) -> None:
    import torch

    sample = model.preprocess(["two texts of", "different lengths"])
    names = [name for name in INPUTS if name in sample]

    class Vectors(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *values: torch.Tensor) -> torch.Tensor:
            return self.model(dict(zip(names, values, strict=True)))["sentence_embedding"]

    torch.onnx.export(
        Vectors().eval(),
        tuple(sample[name] for name in names),
        path,
        input_names=names,
        output_names=["vectors"],
        dynamic_axes={**{name: {0: "texts", 1: "tokens"} for name in names}, "vectors": {0: "texts"}},
        dynamo=False,
        opset_version=OPSET,
    )


def _quantize(exact: Path, path: Path) -> None:
    import onnx
    from onnxruntime.quantization import QuantType, quant_utils, quantize_dynamic

    model = onnx.load(exact)
    weights = {one.name for one in model.graph.initializer}
    products = [
        node.name for node in model.graph.node if node.op_type == "MatMul" and weights & set(node.input)
    ]
    quant_utils.add_pre_process_metadata(model)  # it would advise to, on the root logger
    quantize_dynamic(
        model,
        path,
        nodes_to_quantize=products,
        per_channel=True,
        reduce_range=True,
        weight_type=QuantType.QInt8,
    )


def _not_converted(reason: str) -> TsdsError:
    return TsdsError(f'[encoder] backend = "onnx": this model cannot be converted: leave it out ({reason})')


def _reason(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Neither the warnings of the tracer nor the notes of the quantiser."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
