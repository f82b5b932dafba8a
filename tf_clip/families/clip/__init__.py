"""CLIP with a vision transformer, as OpenAI, OpenCLIP and Hugging Face publish it."""
