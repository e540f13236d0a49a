"""Stage 1's objectives (paper, section 2.2), each a pure function of tensors in a file of its own."""
