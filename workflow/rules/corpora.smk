"""Documents to packed blocks of tokens, per tokenizer and language."""


rule vary_text:
    """Change the documents of a language into those of a variant."""
    input:
        text=lambda wc: f"resources/text/{parts_of(wc.lang)[0]}.jsonl",
        about=lambda wc: f"resources/text/{parts_of(wc.lang)[0]}.json",
    output:
        text=ensure("resources/text/{lang}.jsonl", non_empty=True),
        about="resources/text/{lang}.json",
    log:
        "logs/vary_text/{lang}.log",
    benchmark:
        "benchmarks/results/vary_text/{lang}.tsv"
    wildcard_constraints:
        lang=languages_of("vary_text"),
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=minutes,
    params:
        cfg=stage("vary_text"),
        code=code("vary_text.py"),
    script:
        "../scripts/vary_text.py"


rule pack_corpus:
    """Tokenise and pack the identification and the held-out part."""
    input:
        manifest="resources/models/{model}/manifest.json",
        text=lambda wc: f"resources/text/{cfg.text_of(wc.lang)}.jsonl",
        about=lambda wc: f"resources/text/{cfg.text_of(wc.lang)}.json",
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
