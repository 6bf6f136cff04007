"""Fine-tune a language model, and know whether it helped."""
