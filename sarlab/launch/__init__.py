"""Training on several GPUs or machines: ``accelerate launch -m sarlab.launch``."""
