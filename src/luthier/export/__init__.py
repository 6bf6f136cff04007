"""What was learnt, in the forms that other programs read."""

from luthier.export.lora_gguf import write_lora_gguf

__all__ = ["write_lora_gguf"]
