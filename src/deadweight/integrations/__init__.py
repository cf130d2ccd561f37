"""deadweight inside other people's tools: timm, transformers, lm-evaluation-harness."""
