"""A trained model for other programs: ONNX graphs, checked against torch, and a file that says how to use them."""
