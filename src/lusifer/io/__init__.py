"""Read and write files and rows, and access the Hugging Face Hub; nothing here imports torch at module level."""
