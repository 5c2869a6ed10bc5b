"""The front door: neurons of languages in a few calls, without Snakemake or configuration files.

    import langneurons as ln

    model = ln.load("google/gemma-3-270m")  # or a folder, a GGUF file, the embedded gemma3-270m
    statistics = ln.collect(model, {"de": german, "fr": french})
    neurons = ln.select(statistics, "lape", rate=0.01)
    plan = ln.plan(neurons, "de", "set", 0)
    ln.generate(model, ["Der Zug nach Wien"], under=plan)

Shapes: n_layers layers of d_mlp neurons; log-probabilities in nats. The functions are those of the
Snakemake graph, and the files that `Statistics` and `Neurons` write are those of its results.
"""
