"""The sides of the libraries that run on PyTorch."""

from __future__ import annotations

import importlib.machinery
import io
import json
import sys
import types
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from library import LEARNING_RATE, MATMUL_SIDE, Call, Library, similarities


class Transformers(Library):
    """transformers; the mode is `eager`, `sdpa` or `compile`, or `torchvision` for its faster processor with `sdpa`."""

    imports: ClassVar[tuple[str, ...]] = ("torch", "transformers")

    @classmethod
    def kinds(cls, mode: str) -> list[str]:
        """Returns what is measured in a mode."""
        if mode == "torchvision":
            return ["end_to_end"]
        return super().kinds(mode)

    @classmethod
    def warm_up(cls, mode: str) -> None:
        """Imports the model's own modules, which transformers does late."""
        import torch
        from transformers import CLIPModel  # noqa: F401

        torch.ones((2, 2)) @ torch.ones((2, 2))

    def load(self) -> None:
        """Loads the model."""
        import torch
        from transformers import CLIPModel

        attention = "eager" if self.mode == "eager" else "sdpa"
        path = self.inputs.folder / "weights"
        self.model = CLIPModel.from_pretrained(path, attn_implementation=attention, dtype=torch.float32).eval()
        self.encode_image, self.encode_text = self.model.get_image_features, self.model.get_text_features
        if self.mode == "compile":
            torch._dynamo.config.recompile_limit = 64
            self.encode_image = torch.compile(self.encode_image, dynamic=False)
            self.encode_text = torch.compile(self.encode_text, dynamic=False)

    def image(self, images: int, texts: int) -> Call:
        """Encodes images."""
        pixels = self._pixels(images)
        return _without_gradients(lambda: self.encode_image(pixel_values=pixels).pooler_output.numpy())

    def text(self, images: int, texts: int) -> Call:
        """Encodes captions, padded to the longest as its tokenizer does when asked for a batch."""
        tokens = self._tokens(texts)
        return _without_gradients(lambda: self.encode_text(**tokens).pooler_output.numpy())

    def joint(self, images: int, texts: int) -> Call:
        """Compares images and captions."""
        tokens, pixels = self._tokens(texts), self._pixels(images)
        return _without_gradients(lambda: self._compare(pixels, tokens))

    def end_to_end(self, images: int, texts: int) -> Call:
        """Compares files and strings, with Pillow's processor or torchvision's."""
        from PIL import Image

        processor = self._processor()
        files, strings = self.inputs.files(images), self.inputs.strings[:texts]

        def run() -> np.ndarray:
            images = [Image.open(io.BytesIO(data)) for data in files]
            inputs = processor(text=strings, images=images, return_tensors="pt", padding=True)
            pixels = inputs.pop("pixel_values")
            return self._compare(pixels, dict(inputs))

        return _without_gradients(run)

    def zero_shot(self, images: int, texts: int) -> Call:
        """Names images."""
        import torch

        pixels, class_embeds = self._pixels(images), torch.from_numpy(self.inputs.class_embeds)

        def run() -> np.ndarray:
            features = self.encode_image(pixel_values=pixels).pooler_output
            embeds = features / features.norm(dim=-1, keepdim=True)
            return (100.0 * embeds @ class_embeds.T).softmax(dim=-1).numpy()

        return _without_gradients(run)

    def training(self, images: int, texts: int) -> Call:
        """Trains on the same batch again and again."""
        import torch

        inputs = {**self._tokens(texts), "pixel_values": self._pixels(images)}
        model = self.model.train()
        run = torch.compile(model, dynamic=False) if self.mode == "compile" else model
        options = {"betas": (0.9, 0.98), "eps": 1e-6, "weight_decay": 0.01}
        optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, **options)

        def step() -> np.ndarray:
            optimizer.zero_grad()
            loss = run(**inputs, return_loss=True).loss
            loss.backward()
            optimizer.step()
            return loss.detach().numpy()

        return step

    def matmul(self, images: int, texts: int) -> Call:
        """Multiplies two large matrices."""
        import torch

        one, other = torch.randn((MATMUL_SIDE, MATMUL_SIDE)), torch.randn((MATMUL_SIDE, MATMUL_SIDE))
        return lambda: (one @ other)[0, 0].item()

    def _compare(self, pixels: Any, tokens: dict[str, Any]) -> np.ndarray:
        if self.mode != "compile":
            return self.model(pixel_values=pixels, **tokens).logits_per_image.numpy()
        # Compiled apart: each encoder has few shapes, and both together have many.
        image_features = self.encode_image(pixel_values=pixels).pooler_output.numpy()
        text_features = self.encode_text(**tokens).pooler_output.numpy()
        return similarities(image_features, text_features, float(self.model.logit_scale.exp()))

    def _processor(self) -> Any:
        from transformers import CLIPProcessor, CLIPTokenizerFast

        folder = self.inputs.folder / "weights"
        if self.mode == "torchvision":
            import torch

            # In a folder of its own, since it changes what transformers does elsewhere. Without a GPU's libraries it
            # cannot load its own operators; resizing is PyTorch's and needs none.
            sys.path.insert(0, str(Path(sys.prefix) / "torchvision"))
            torch.library.register_fake = lambda *_, **__: lambda function: function
            from transformers import CLIPImageProcessor as Images
        else:
            from transformers import CLIPImageProcessorPil as Images
        return CLIPProcessor(Images.from_pretrained(folder), CLIPTokenizerFast.from_pretrained(folder))

    def _pixels(self, count: int) -> Any:
        import torch

        return torch.from_numpy(self.inputs.pixels(count, channels_first=True))

    def _tokens(self, count: int) -> dict[str, Any]:
        import torch

        return {name: torch.from_numpy(value).long() for name, value in self.inputs.tokens(count).items()}


class OpenCLIP(Library):
    """OpenCLIP, whose tokenizer pads to 77."""

    imports: ClassVar[tuple[str, ...]] = ("torch", "open_clip")

    @classmethod
    def prepare_imports(cls) -> None:
        """Lets it be imported without torchvision and ftfy, which its models do not use."""
        for name in ("torchvision", "torchvision.ops", "torchvision.ops.misc", "torchvision.transforms", "ftfy"):
            sys.modules[name] = _stand_in(name)
        sys.modules["torchvision.transforms.functional"] = functional = _stand_in("torchvision.transforms.functional")
        sys.modules["torchvision.transforms"].functional = functional  # type: ignore[attr-defined]

    @classmethod
    def warm_up(cls, mode: str) -> None:
        """Starts PyTorch."""
        import torch

        torch.ones((2, 2)) @ torch.ones((2, 2))

    def load(self) -> None:
        """Makes the model that the folder describes, and loads its weights."""
        import open_clip
        from safetensors.torch import load_file

        folder = self.inputs.folder / "openclip"
        described = json.loads((folder / "open_clip_config.json").read_text())
        self.model = open_clip.CLIP(**described["model_cfg"]).eval()
        self.model.load_state_dict(load_file(folder / "open_clip_model.safetensors"))

    def image(self, images: int, texts: int) -> Call:
        """Encodes images."""
        import torch

        pixels = torch.from_numpy(self.inputs.pixels(images, channels_first=True))
        return _without_gradients(lambda: self.model.encode_image(pixels).numpy())

    def text(self, images: int, texts: int) -> Call:
        """Encodes captions, padded to 77 with zeros."""
        ids = self._ids(texts)
        return _without_gradients(lambda: self.model.encode_text(ids).numpy())

    def joint(self, images: int, texts: int) -> Call:
        """Compares images and captions."""
        import torch

        pixels, ids = torch.from_numpy(self.inputs.pixels(images, channels_first=True)), self._ids(texts)
        return _without_gradients(lambda: self.model.get_logits(pixels, ids)[0].numpy())

    def zero_shot(self, images: int, texts: int) -> Call:
        """Names images."""
        import torch

        pixels = torch.from_numpy(self.inputs.pixels(images, channels_first=True))
        class_embeds = torch.from_numpy(self.inputs.class_embeds)

        def run() -> np.ndarray:
            embeds = self.model.encode_image(pixels, normalize=True)
            return (100.0 * embeds @ class_embeds.T).softmax(dim=-1).numpy()

        return _without_gradients(run)

    def _ids(self, count: int) -> Any:
        import torch

        return torch.from_numpy(self.inputs.tokens(count, length=77, padding=0)["input_ids"]).long()


def _without_gradients(call: Call) -> Call:
    import torch

    def run() -> Any:
        with torch.inference_mode():
            return call()

    return run


class _Names(type):
    def __getattr__(cls, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return name


def _stand_in(name: str) -> types.ModuleType:
    """Returns a module that has every name, for one that is imported and not used."""

    class Module(types.ModuleType):
        __path__: ClassVar[list[str]] = []

        def __getattr__(self, wanted: str) -> Any:
            if wanted.startswith("__"):
                raise AttributeError(wanted)
            return _Names(wanted, (), {})

    module = Module(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    return module
