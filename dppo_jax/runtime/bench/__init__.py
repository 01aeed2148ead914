"""What the parts cost, beside the least they could cost."""
