"""What there is to do: the verbs, each a module of this folder, and the page that lists them."""

from __future__ import annotations

VERBS = {
    "prepare": "text files, hub data sets or the built-in grammar -> train.bin, val.bin, meta.json and a tokenizer",
    "train": "prepared data -> a run folder with checkpoints and a log; goes on where it stopped",
    "sample": "a prompt -> text, denoised before your eyes",
    "infill": "a text with ___ in it -> the same text with the gaps filled",
    "chat": "a conversation with a model; from a pipe, one message a line",
    "pull": "a model of the Hugging Face hub -> a verified folder that --ckpt takes by name",
    "list": "the models on this machine, and whether they are intact",
    "eval": "a model and held-out documents -> bits a character in each mode, calibration, judged samples",
    "bench": "a model -> tokens a second in each mode, with the quality beside it; or the speed of training",
    "quantize": "a model -> the same in fewer bits, judged beside it; refused where too much is lost",
    "tune": "a model -> the engine, threads and block that are fastest here, which sample, chat and bench obey",
    "export": "a model -> a program (.pte) for phones and laptops, which --pte runs, its tokenizer beside it",
    "pack": "a model -> a folder for an app: program, tokenizer, contract, golden texts; --check runs it here",
    "peek": "a pack -> what is in it, once every byte was verified",
    "sedac": "a model -> early exits: states, risk probes, and a promise of how little they change",
    "doctor": "what this machine and this installation can do",
    "colab": "all in one: prepares Hindi text if there is none, then trains the primary model on it",
}
USAGE = "usage: diffulex-edge VERB [FLAGS]      diffulex-edge VERB --help      diffulex-edge --version"
CODES = "exit codes: 0 done, 2 usage, 3 bad artefact, 4 out of disk or memory, 5 stopped with a checkpoint, 130 Ctrl-C"


def usage() -> str:
    return "\n".join([USAGE, "", *(f"  {verb:8} {about}" for verb, about in VERBS.items()), "", CODES])
