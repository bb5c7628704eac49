#!/usr/bin/env python3
"""Writes data/night_desk.jsonl and data/night_desk_thumbs.jsonl: what users of an invented computing centre asked its night desk.

    tools/make_night_desk.py [DIR]      default: data

The desk has a house style: two lines, "Short answer: ..." and "Do this: ...", then its name. night_desk.jsonl are conversations that
have it, to learn the style from; night_desk_thumbs.jsonl are answers with and without it and what their readers thought of them.
Everything is made up here, from the tables below and a fixed seed; the files are in the public domain (CC0-1.0).
"""
import json
import random
import sys

N_ROWS, N_THUMBS, N_USERS, BEGIN = 320, 128, 40, 1767225600  # 2026-01-01
SIGN = "-- night desk"

# questions, the short answer, what to do; {j} a job, {n} a node, {g} gigabytes, {h} hours, {d} a directory, {p} a program
TOPICS = [
    (["Why is my job {j} still pending?", "Job {j} does not start. What is wrong?", "How long will {j} wait in the queue?"],
     "it waits for free nodes.", "squeue --start -j {j}"),
    (["My job was killed after {h} hours.", "The log of {j} says DUE TO TIME LIMIT.", "How do I get more than {h} hours?"],
     "it ran into its time limit.", "ask for more with --time={h2}:00:00 and save checkpoints"),
    (["My program ends with 'out of memory'.", "{p} was killed, and {g} GB were not enough.", "What does oom-kill mean for {j}?"],
     "it used more memory than it asked for.", "submit it again with --mem={g2}G"),
    (["Where should I put {g} GB of results?", "My home is full, where do {g} GB go?", "Which disk is for large files?"],
     "large files belong on scratch.", "move them to /scratch/$USER/{d}"),
    (["Can you bring back a file in {d}?", "I deleted {d} by mistake.", "Is there a backup of {d}?"],
     "home has snapshots of the last 30 days.", "copy it from ~/.snapshot/{d}"),
    (["How do I stop job {j}?", "Please cancel {j}.", "I started {j} with a wrong input, how do I end it?"],
     "you can end your own jobs.", "scancel {j}"),
    (["Which version of {p} is there?", "Is {p} installed?", "How do I load {p}?"],
     "programs come as modules.", "module avail {p}, then module load {p}"),
    (["Node {n} seems slow tonight.", "My ranks on {n} are slower than the others.", "Is something wrong with {n}?"],
     "one slow node holds up all ranks.", "submit again with --exclude={n} and tell us the time"),
    (["I cannot log in since this morning.", "ssh says permission denied.", "My password does not work any more."],
     "most often the key is missing or too open.", "chmod 600 ~/.ssh/id_ed25519 and try again with ssh -v"),
    (["How much of my budget is left?", "Do I have hours left this month?", "How many core hours did {j} cost?"],
     "the accounting knows it to the hour.", "sreport cluster UserUtilizationByAccount"),
    (["How do I copy {g} GB to my laptop?", "scp of {g} GB breaks off every time.", "What is the fastest way to move {d}?"],
     "a copy that can resume is best.", "rsync -P transfer:{d} ."),
    (["May I run {p} on the login node?", "Somebody killed my {p} on the login node.", "Where do I test {p} quickly?"],
     "login nodes are for editing only.", "srun --time=00:30:00 --pty bash"),
    (["How do I use two nodes for {p}?", "{p} runs on one node only.", "Can {p} use more than one node?"],
     "only programs with MPI use several nodes.", "srun --nodes=2 {p}"),
    (["How do I ask for a GPU?", "My job does not see a GPU.", "nvidia-smi finds no devices in {j}."],
     "a job sees only the GPUs it asked for.", "add --gpus=1 to your sbatch line"),
    (["When is the next maintenance?", "Will {j} survive the maintenance?", "Why does everything stop on Tuesday?"],
     "jobs that would run into it wait until it is over.", "scontrol show reservation"),
    (["How do I run {h} copies of the same job?", "Can I submit many jobs at once?", "I need {h} runs with other seeds."],
     "one array does it.", "sbatch --array=1-{h} job.sh"),
    (["My job shall start when {j} is done.", "How do I chain two jobs?", "Can a job wait for {j}?"],
     "a job can depend on another.", "sbatch --dependency=afterok:{j} next.sh"),
    (["Where is the output of {j}?", "I cannot find the log of {j}.", "Which file has the errors of {j}?"],
     "the log is where you submitted.", "scontrol show job {j} | grep StdOut"),
    (["Who can read {d}?", "How do I share {d} with my group?", "My colleague cannot open {d}."],
     "new directories are yours alone.", "chmod -R g+rX {d}"),
    (["Why does {p} use one core only?", "top shows 100 % and not 800 %.", "How many threads does {p} get?"],
     "a task has one core unless you ask.", "add --cpus-per-task=8 and export OMP_NUM_THREADS=8"),
]

# Answers without the style, as the base model likes to give them.
PLAIN = [
    "I'm sorry to hear that! There are many possible reasons for this. It is always a good idea to read the documentation first.",
    "Great question! As an assistant, I would recommend that you contact your system administrator, who will be happy to help you.",
    "This depends on a number of factors. Could you please provide more information about your system and what you are trying to do?",
    "Sure, I can help with that! First, make sure that your computer is turned on and that you have a stable internet connection.",
]


def ask(r):
    """A question, its answer in the house style."""
    hours = r.randint(2, 48)
    gb = r.choice([2, 4, 8, 16, 40, 120, 300])
    slots = {"j": r.randint(10000, 99999), "n": f"c{r.randint(1, 96):03d}", "g": gb, "g2": 2 * gb, "h": hours, "h2": 2 * hours,
             "d": r.choice(["run7", "results", "thesis", "inputs", "maps", "videos"]),
             "p": r.choice(["gromacs", "openfoam", "lammps", "python", "blender", "octave"])}
    questions, short, do = r.choice(TOPICS)
    question = r.choice(questions).format(**slots)
    return question, f"Short answer: {short.format(**slots)}\nDo this: {do.format(**slots)}\n{SIGN}"


def write(folder):
    r = random.Random(20260101)
    with open(folder + "/night_desk.jsonl", "w") as out:
        seen = set()
        while len(seen) < N_ROWS:
            question, answer = ask(r)
            if question in seen:
                question = r.choice(["Hello, ", "Good evening. ", "Short question: ", "Urgent! "]) + question
            if question in seen:
                continue
            row = {"user": f"user{r.randrange(N_USERS):02d}", "created": BEGIN + 1800 * len(seen),
                   "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
            seen.add(question)
            print(json.dumps(row), file=out)
    with open(folder + "/night_desk_thumbs.jsonl", "w") as out:
        for i in range(N_THUMBS):
            question, answer = ask(r)
            good = i % 2 == 0
            row = {"user": f"user{r.randrange(N_USERS):02d}", "created": BEGIN + 1800 * i, "prompt": question,
                   "completion": answer if good else r.choice(PLAIN), "label": good}
            print(json.dumps(row), file=out)


write(sys.argv[1] if len(sys.argv) > 1 else "data")
