"""Block-sparse networks that run faster: format, kernels, layers, compression, files."""
