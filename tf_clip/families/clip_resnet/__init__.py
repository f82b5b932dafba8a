"""CLIP with a ResNet as its image tower: OpenAI's RN50 to RN50x64."""
