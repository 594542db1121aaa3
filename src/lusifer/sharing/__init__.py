"""Convert the authors' checkpoints into model folders, and upload model folders to the Hugging Face Hub."""
