"""Torch and ONNX in, bundle out."""
