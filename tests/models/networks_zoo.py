"""Small networks of three libraries with real BatchNorm statistics, for tests that walk over all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from headstart.models import backbone as backbones
from headstart.models.backbone import Backbone

TORCHVISION = ("resnet18", "mobilenet_v2", "mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1")
TIMM = ("test_resnet", "test_vit", "test_efficientnet", "test_byobnet", "test_convnext", "test_mambaout")
TRANSFORMERS = ("vit", "dinov2", "convnext", "swin", "resnet", "beit", "deit")
QUICK = (
    *(f"torchvision/{name}" for name in TORCHVISION),
    *(f"timm/{name}" for name in TIMM),
    *(f"transformers/{name}" for name in TRANSFORMERS),
    "builtin/tiny",
)
SLOW_TORCHVISION = (
    "densenet121",
    "efficientnet_b0",
    "efficientnet_v2_s",
    "convnext_tiny",
    "swin_t",
    "swin_v2_t",
    "vit_b_32",
    "regnet_y_400mf",
    "regnet_x_400mf",
    "resnext50_32x4d",
    "mnasnet0_5",
    "googlenet",
    "inception_v3",
    "maxvit_t",
    "vgg11_bn",
    "alexnet",
)


def statistics(module: nn.Module, inputs: Tensor) -> nn.Module:
    """Give BatchNorm real running statistics: on fresh ones (mean 0, variance 1) a parity test proves nothing."""
    norms = {part: part.momentum for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)}
    module.train()
    for norm in norms:
        norm.momentum = None  # the average over the passes, not a tenth of it
    with torch.no_grad():
        for _ in range(3):
            module(inputs)
    for norm, momentum in norms.items():
        norm.momentum = momentum
    return module.eval()


def transformers_config(family: str, classes: int = 7) -> Any:
    """A config of a few thousand parameters."""
    import transformers as hf

    tokens = {
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "image_size": 32,
        "patch_size": 8,
    }
    made = {
        "vit": lambda: hf.ViTConfig(**tokens),
        "deit": lambda: hf.DeiTConfig(**tokens),
        "beit": lambda: hf.BeitConfig(**tokens),
        "dinov2": lambda: hf.Dinov2Config(**{k: v for k, v in tokens.items() if k != "intermediate_size"}),
        "convnext": lambda: hf.ConvNextConfig(hidden_sizes=[8, 16, 32, 64], depths=[1, 1, 2, 1]),
        "swin": lambda: hf.SwinConfig(
            image_size=32, patch_size=2, embed_dim=16, depths=[1, 1, 1], num_heads=[2, 2, 2], window_size=4
        ),
        "resnet": lambda: hf.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16, 32, 64], depths=[1, 1, 1, 1], layer_type="basic"
        ),
    }[family]()
    names = [f"thing {index}" for index in range(classes)]
    made.id2label = dict(enumerate(names))
    made.label2id = {name: index for index, name in enumerate(names)}
    return made


def transformers_model(family: str, classes: int = 7) -> nn.Module:
    """The family's classifier, random, with statistics."""
    from transformers import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING as MAPPING

    torch.manual_seed(0)
    config = transformers_config(family, classes)
    cls = MAPPING[type(config)]
    model = (cls[0] if isinstance(cls, tuple) else cls)(config).float()
    return statistics(model, torch.randn(8, 3, 32, 32))


def make(name: str, tmp_path: Path) -> Backbone:
    """The backbone ``library/network`` of the zoo, random weights, real statistics, pictures of 32 or 64 pixels."""
    library, _, network = name.partition("/")
    if library == "transformers":
        folder = tmp_path / "hf"
        transformers_model(network).save_pretrained(folder)
        return backbones.load(str(folder)).eval()
    size = 64
    if name in ("torchvision/inception_v3", "torchvision/densenet121"):
        size = 96
    if name == "torchvision/maxvit_t":
        size = 224
    made = backbones.load(name, pretrained=False, image_size=size)
    torch.manual_seed(0)
    statistics(made, torch.randn(8, *made.spec.input_shape))
    return made


def batch(backbone: Backbone, rows: int = 3, seed: int = 1) -> Tensor:
    """Different pictures, uint8 (B, C, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (rows, *backbone.spec.input_shape), dtype=torch.uint8, generator=generator)
