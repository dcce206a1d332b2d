"""ONNX: what writes a deploy form as its operators, and ONNX Runtime to run it."""
