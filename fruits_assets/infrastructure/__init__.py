"""What the pipeline needs of AWS, as code: `stack.yaml`, and the command that deploys it."""
