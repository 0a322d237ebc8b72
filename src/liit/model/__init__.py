"""The vision-language model: loading it, its words, its batches, its adapter. Everything that knows `transformers`."""
