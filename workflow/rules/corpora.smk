"""Documents to packed blocks of tokens, per tokenizer and language."""


rule pack_corpus:
    """Tokenise and pack the identification and the held-out part."""
    input:
        manifest="resources/models/{model}/manifest.json",
        text="resources/text/{lang}.jsonl",
        about="resources/text/{lang}.json",
    output:
        ensure("results/{model}/corpora/{lang}.safetensors", non_empty=True),
    log:
        "logs/pack_corpus/{model}/{lang}.log",
    benchmark:
        "benchmarks/results/pack_corpus/{model}/{lang}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=240,
    params:
        cfg=stage("pack_corpus"),
        code=code("pack_corpus.py"),
    script:
        "../scripts/pack_corpus.py"
