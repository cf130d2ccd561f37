"""What a profile keeps of a stream of images: commutative monoids, merged over batches and processes."""
