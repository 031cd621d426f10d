"""The graphs of a bundle on ONNX Runtime."""
