"""From a model to what runs without torch: ONNX files, their proof, and the predictor that reads them."""
