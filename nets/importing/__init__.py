"""Networks from elsewhere: read from their files, checked against their own runtime, quantized."""
