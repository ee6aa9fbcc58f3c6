"""Networks: the one trained from scratch, pretrained backbones, and what they cost."""
