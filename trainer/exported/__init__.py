"""What `trainer.export` puts beside the model's sources: transformers loads them without this project."""
