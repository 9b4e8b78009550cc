"""A parent that only imports TFF, and a child that does everything; and no helper process is left by either."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from node.data.dataset import Split
from node.learning.encoding import Weights, encode
from node.learning.tff import Combiner, Learner

# TensorFlow and Keras use what others have deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

TOP = Path(__file__).resolve().parents[2]

PARENT = """
import os, sys
from pathlib import Path
import node.learning.tff
from node.learning.conversion import api, convert_templates
from node.trainer import learning_thread

convert_templates()

def processes():
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text()
            except OSError:
                continue
            name, after = fields[fields.index("(") + 1 : fields.rindex(")")], fields[fields.rindex(")") + 2 :].split()
            yield int(entry.name), name, int(after[2])  # its process group

def work():
    import hashlib
    import numpy as np
    from node.contract.plan import PartitionPlan, WorkloadPlan
    from node.data.sources import load
    from node.learning.encoding import encode
    from node.learning.tff import Combiner, Learner
    digits = load("digits")
    translated = []
    transformer = api._TRANSPILER
    def transform(nodes, context, transform_ast=transformer.transform_ast):
        translated.append(context.info.name)
        return transform_ast(nodes, context)
    transformer.transform_ast = transform
    learner = Learner(WorkloadPlan("digits", "cnn", PartitionPlan("iid"), 1, 1, 16, 0.1), (8, 8, 1), 10, None)
    learner.trace()
    model = learner.initial_weights(7)
    trained = learner.train(model, digits.train, local_epochs=1, batch_size=16, learning_rate=0.1, seed=1)
    combiner = Combiner("robust", {}, model)
    late = "".join(translated) or "nothing"
    nice = {os.getpriority(os.PRIO_PROCESS, int(task)) for task in os.listdir("/proc/self/task")}
    model, _ = combiner.combine(combiner.initial_state(), model, [(trained.update, 1.0)])
    group = os.getpgrp()
    others = sorted({name for _, name, of in processes() if of == group and not name.startswith("python")})
    return f"{hashlib.sha256(encode(model)).hexdigest()} {learner.evaluate(model, digits.test).accuracy:.3f} {late} {sorted(nice)} {others}"

children = {}
for _ in range(2):
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            with learning_thread() as thread:
                os.write(writer, thread.submit(work).result().encode())
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writer)
    children[pid] = reader
for pid, reader in children.items():
    said = open(reader).read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    print(status, said, flush=True)
print([pid for pid, name, group in processes() if group == os.getpgrp() and pid != os.getpid()])
"""


@pytest.fixture(scope="module")
def said() -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PARENT],
        cwd=TOP,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        start_new_session=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


def test_forked_children_train_and_combine_alike(said: list[str]) -> None:
    first, second = (line.split(" ") for line in said[:2])
    assert [first[0], second[0]] == ["0", "0"]
    assert first[1] == second[1]
    assert float(first[2]) > 0.4


def test_what_is_traced_was_translated_before_the_fork_to_the_same_bits(
    said: list[str], learner: Learner, model: Weights, digits: Split
) -> None:
    assert said[0].split(" ")[3] == "nothing"
    trained = learner.train(
        model, digits.train, local_epochs=1, batch_size=16, learning_rate=0.1, seed=1
    )  # translated here, as it is used
    combiner = Combiner("robust", {}, model)
    new, _ = combiner.combine(combiner.initial_state(), model, [(trained.update, 1.0)])
    assert said[0].split(" ")[1] == hashlib.sha256(encode(new)).hexdigest()


def test_all_threads_of_the_training_give_way(said: list[str]) -> None:
    own = os.getpriority(os.PRIO_PROCESS, 0)
    for line in said[:2]:
        assert line.split(" ", 4)[4].rpartition(" ")[0] == str(sorted({own, min(own + 10, 19)}))


def test_no_helper_process_runs_or_is_left(said: list[str]) -> None:
    assert [line.rsplit(" ", 1)[1] for line in said[:2]] == ["[]"] * 2
    assert said[2] == "[]"
