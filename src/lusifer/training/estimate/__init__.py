"""What a recipe needs: memory, operations and hours, before anything is downloaded."""
