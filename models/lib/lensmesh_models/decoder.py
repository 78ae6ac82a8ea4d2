"""A sequence-to-sequence decoder in this process, with the keys and values of what it has already seen.

The graph is Optimum's `decoder_model_merged`: one network for the first call and one for the others, behind the switch
`use_cache_branch`. What its tensors are called, how many layers and heads there are, is read from the graph.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

_PAST, _PRESENT = "past_key_values.", "present."
_SWITCH = "use_cache_branch"
_KNOWN = {"inputs_embeds", "encoder_hidden_states", "encoder_attention_mask", _SWITCH}


def open_network(path: Path) -> onnxruntime.InferenceSession:
    """A session on the best device that this onnxruntime knows; one thread, as requests are the unit of parallelism."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
    available = onnxruntime.get_available_providers()
    return onnxruntime.InferenceSession(str(path), options, providers=[name for name in wanted if name in available])


class Embedder:
    """Token ids to the vectors that encoder and decoder read."""

    def __init__(self, path: Path) -> None:
        self._session = open_network(path)
        (self._input,) = [value.name for value in self._session.get_inputs()]

    def __call__(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        """float32 [N,S,D] of int64 [N,S]."""
        return np.asarray(self._session.run(None, {self._input: tokens})[0])


class Decoder:
    """The decoder network; shared by all texts that are generated with it."""

    def __init__(self, path: Path, embedder: Embedder) -> None:
        self.session, self.embedder = open_network(path), embedder
        inputs = {value.name: value for value in self.session.get_inputs()}
        unknown = sorted(name for name in inputs if name not in _KNOWN and not name.startswith(_PAST))
        if unknown or _SWITCH not in inputs:
            raise ValueError(f"{path.name} is no merged decoder: it has {', '.join(inputs)}")
        self.inputs = frozenset(inputs)
        self.outputs = [value.name for value in self.session.get_outputs()]
        # [batch, heads, tokens, width]: heads and width are numbers in the graph, the others names.
        self.past_shapes = {name: inputs[name].shape for name in inputs if name.startswith(_PAST)}
        if not all(isinstance(shape[axis], int) for shape in self.past_shapes.values() for axis in (1, 3)):
            raise ValueError(f"{path.name} does not say how many heads its layers have")


class Decoding:
    """One text in the making. Begin with ``first``, then call it as ``generation.Decode``."""

    def __init__(self, decoder: Decoder, states: NDArray[np.float32]) -> None:
        """``states`` float32 [1,T,D]: what the encoder says, all of it to be attended to."""
        self._decoder = decoder
        self._states = states
        self._past = {
            name: np.zeros((1, shape[1], 0, shape[3]), np.float32) for name, shape in decoder.past_shapes.items()
        }

    def first(self, prefix: NDArray[np.int64]) -> NDArray[np.float32]:
        """What may come after the fixed beginning, int64 [S]: float32 [1,V]."""
        return self._run(prefix[None], cached=False)

    def __call__(self, tokens: NDArray[np.int64], parents: NDArray[np.int64]) -> NDArray[np.float32]:
        """What may come after each token, int64 [N], of the hypothesis that goes on from row ``parents``: [N,V]."""
        rows = len(self._states)
        if len(parents) != rows or (parents != np.arange(rows)).any():
            # All rows attend to the same image: what is kept of the encoder only has to be there as often.
            spread = np.zeros_like(parents) if len(parents) != rows else None
            self._past = {
                name: value[parents] if ".decoder." in name else value if spread is None else value[spread]
                for name, value in self._past.items()
            }
            self._states = self._states if spread is None else self._states[spread]
        return self._run(tokens[:, None], cached=True)

    def _run(self, tokens: NDArray[np.int64], *, cached: bool) -> NDArray[np.float32]:
        decoder = self._decoder
        feed: dict[str, Any] = {
            "inputs_embeds": decoder.embedder(tokens),
            "encoder_hidden_states": self._states,
            "encoder_attention_mask": np.ones(self._states.shape[:2], np.int64),
            _SWITCH: np.array([cached]),
            **self._past,
        }
        outputs = decoder.session.run(None, {name: value for name, value in feed.items() if name in decoder.inputs})
        found = dict(zip(decoder.outputs, outputs, strict=True))
        for name, value in found.items():
            # With the cache the encoder's part is not computed again, and these outputs hold nothing.
            if name.startswith(_PRESENT) and not (cached and ".encoder." in name):
                self._past[_PAST + name.removeprefix(_PRESENT)] = value
        return np.asarray(found["logits"][:, -1])
