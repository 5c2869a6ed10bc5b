"""Language-specific neurons of multilingual LLMs: find them, overwrite them, measure.

snakemake -n                                          what would run (embedded default)
snakemake -c 2                                        run it here
snakemake --configfile config/papers/mondal2025.yaml --profile profiles/slurm -j 32
"""

from snakemake.utils import min_version

min_version("9.14.1")


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/inputs.smk"


rule all:
    default_target: True
    input:
        table_files(),
        figure_files(),
        report_files(),
        browser_files(),
        final_files(),


rule tables:
    input:
        table_files(),


rule figures:
    input:
        figure_files(),


rule neurons:
    input:
        files("select_neurons"),


rule statistics:
    input:
        statistics_files(),


rule resources:
    input:
        resource_files(),


include: "workflow/rules/resources.smk"
include: "workflow/rules/corpora.smk"
include: "workflow/rules/activations.smk"
include: "workflow/rules/neurons.smk"
include: "workflow/rules/stability.smk"
include: "workflow/rules/perplexity.smk"
include: "workflow/rules/trials.smk"
include: "workflow/rules/lss.smk"
include: "workflow/rules/generation.smk"
include: "workflow/rules/answers.smk"
include: "workflow/rules/finetuning.smk"
include: "workflow/rules/evaluation.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/browser.smk"
