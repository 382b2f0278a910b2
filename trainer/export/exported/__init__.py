"""What an exported folder holds beside the model's sources: transformers loads it without this project."""
