"""The built-in model: a small LLaVA with a pretrained, frozen EfficientNet-Lite0 as its vision tower."""
