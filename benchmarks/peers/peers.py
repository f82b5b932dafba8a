"""Who is compared: the library and its mode, and the environment that has it."""

from __future__ import annotations

from dataclasses import dataclass

from attempts import WAYS


@dataclass(frozen=True)
class Peer:
    """One row of the tables.

    Args:
        name: in the tables.
        library: module and class of its side.
        mode: which of the library's ways to run.
        python: `"ours"` or `"engines"`, the environment that has it.
        packages: whose versions are noted.
        only_small: whether it is left out of large models, for which the machine's memory is too small.
    """

    name: str
    library: str
    mode: str = ""
    python: str = "ours"
    packages: tuple[str, ...] = ()
    only_small: bool = False


BASE = "tf_clip"
"""What the others are compared with; it runs beside every group of them."""
_TORCH = ("torch", "transformers")
ALL = (
    Peer(BASE, "ours:TFClip", "auto", packages=("tensorflow", "keras")),
    Peer("tf_clip, engine tensorflow", "ours:TFClip", "tensorflow"),
    Peer("tf_clip, engine xla", "ours:TFClip", "xla"),
    Peer("tf_clip, engine litert", "ours:TFClip", "litert", packages=("ai-edge-litert",), only_small=True),
    Peer("transformers eager", "in_torch:Transformers", "eager", packages=_TORCH),
    Peer("transformers sdpa", "in_torch:Transformers", "sdpa", packages=_TORCH),
    Peer("transformers torch.compile", "in_torch:Transformers", "compile", packages=_TORCH),
    Peer("transformers sdpa, torchvision's processor", "in_torch:Transformers", "torchvision"),
    Peer("TFCLIPModel of transformers 4", "in_tensorflow:TFCLIPModel"),
    Peer("OpenCLIP", "in_torch:OpenCLIP", packages=("open-clip-torch",)),
    Peer("KerasHub", "in_tensorflow:KerasHub", packages=("keras-hub",)),
    Peer("ZeroModels", "in_tensorflow:ZeroModels"),
    Peer("ONNX Runtime", "in_engines:OnnxRuntime", python="engines", packages=("onnxruntime",)),
    Peer("OpenVINO", "in_engines:OpenVINO", python="engines", packages=("openvino",)),
)
_ENGINES = tuple(peer for peer in ALL if peer.python == "engines")
ATTEMPTS = (ALL[0], *(Peer(name, "attempts:Attempt", name) for name in WAYS), *_ENGINES)
"""Ways to compute one thing, beside the engines that are hardest to be faster than."""
MATMUL = Peer("NumPy", "in_engines:NumPy", packages=("numpy",))
"""Beside every group, too: it says how fast the machine can multiply, as TensorFlow and PyTorch do."""
BY_NAME = {peer.name: peer for peer in (*ALL, *ATTEMPTS, MATMUL)}
TORCH = ("transformers eager", "transformers sdpa", "transformers torch.compile")
PADS_TO_77 = ("OpenCLIP", "KerasHub")
ENGINES = ("ONNX Runtime", "OpenVINO")


def groups(peers: list[Peer], at_once: int) -> list[list[Peer]]:
    """Cuts the peers into groups of at most `at_once`, without the base, which is beside each."""
    others = [peer for peer in peers if peer.name != BASE]
    return [others[start : start + at_once] for start in range(0, len(others), at_once)] or [[]]
