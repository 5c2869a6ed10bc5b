"""The last words of a failed run: which jobs, why, where to look, what to type."""

from langneurons.failures import describe, failures

LOG = """Building DAG of jobs...
[Sat Nov 21 15:25:51 2026]
Error in rule collect_statistics:
    message: SLURM-job '2' failed, SLURM status is: 'TIMEOUT'.
    jobid: 7
    input: resources/models/tiny/manifest.json, results/tiny/corpora/en.safetensors
    output: results/tiny/shards/en/0.safetensors
    log: {log}, slurm/2.log (check log file(s) for error details)
    external_jobid: 2
Trying to restart job 7.
[Sat Nov 21 15:25:52 2026]
Error in rule finetune:
    message: None
    jobid: 9
    output: results/tiny/adapters/corrected/nli+none/adapter_model.safetensors, b.json
    log: {missing} (check log file(s) for error details)
[Sat Nov 21 15:26:13 2026]
{last}
"""


def test_jobs_that_finished_later_did_not_fail(tmp_path):
    text = LOG.format(log="a.log", missing="b.log", last="Finished jobid: 7 (Rule: x)")
    assert [one.rule for one in failures(text)] == ["finetune"]
    text = LOG.format(log="a.log", missing="b.log", last="Finished jobid: 70 (Rule: x)")
    assert [one.rule for one in failures(text)] == ["collect_statistics", "finetune"]
    assert failures("") == []


def test_the_words_name_reason_log_and_command(tmp_path):
    log, controller = tmp_path / "a.log", tmp_path / "snakemake.log"
    log.write_text("15:25:50 loaded\nTraceback ...\nValueError: no rows of 'vi'\n\n")
    controller.write_text(LOG.format(log=log, missing="no/such.log", last=""))
    text = describe([str(controller)], ["--configfile", "my runs/a.yaml", "-c", "2"])
    assert "2 job(s) failed" in text
    assert "collect_statistics -> results/tiny/shards/en/0.safetensors" in text
    assert "reason: ValueError: no rows of 'vi'" in text
    assert "TIMEOUT" in text and f"log: {log}" in text and "log: slurm/2.log" in text
    assert "reason: no log was written" in text
    assert text.splitlines()[-1] == "  snakemake --configfile 'my runs/a.yaml' -c 2"
