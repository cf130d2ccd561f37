"""What is done with the folders of finished runs: status, comparison, export, advice. Nothing is computed again."""
