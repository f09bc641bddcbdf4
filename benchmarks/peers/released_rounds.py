"""Unlearning rounds of the code that was released with the FUSED paper, as it is, from a checkout of it.

PYTHON released_rounds.py fused TASK ROUNDS CHECKOUT

For an environment that has torch, peft, timm and transformers, and not fused_ray. Two modules that the checkout imports
and does not have, and one whose name it misspells, are given empty or under that name; none is used here. Its own
loader of data, which downloads, is left out: clients get what the task says. Prints a line of JSON a round: seconds,
and those of training and of evaluation alone.
"""

import argparse
import contextlib
import importlib
import os
import sys
import tempfile
import types
from pathlib import Path

import common
import torch
from torch.utils.data import DataLoader, TensorDataset


def mended():
    """What keeps torchvision importable where it was built for another PyTorch: two operators without an inside."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return library
    return None


def imported(checkout):
    """The modules with its algorithm and its network."""
    sys.path.insert(0, checkout)
    nets = importlib.import_module("models.LeNet_FashionMNIST")
    importlib.import_module("peft")
    importlib.import_module("transformers").AdamW = torch.optim.AdamW  # newer versions leave it to torch
    models = sys.modules["models"]
    for name in ("Model_adults", "Model_purchase"):
        sys.modules[f"models.{name}"] = module = types.ModuleType(name)
        setattr(models, name, module)
    sys.modules["alg_utils.ada_hessain"] = importlib.import_module("alg_utils.ada_hessian")
    return importlib.import_module("algs.fused_unlearning"), nets


def loaders(task, batch):
    """Clients' images, and the test set in as many parts."""
    images, labels = task.test
    parts = zip(images.chunk(task.clients), labels.chunk(task.clients), strict=True)
    clients = [DataLoader(TensorDataset(*task.share(c)), batch_size=batch, shuffle=True) for c in range(task.clients)]
    return clients, [DataLoader(TensorDataset(*part), batch_size=batch, shuffle=True) for part in parts]


def arguments(task, rounds):
    """What its command line would have made of this task."""
    return argparse.Namespace(
        data_name="fashionmnist",
        paradigm="fused",
        forget_paradigm="class",
        forget_class_idx=[0],
        forget_client_idx=[0],
        if_unlearning=True,
        alpha=1.0,
        cut_sample=1.0,
        fraction=1.0,
        num_user=task.clients,
        num_classes=task.classes,
        global_epoch=rounds,
        local_epoch=task.local_epochs,
        local_batch_size=task.batch_size,
        test_batch_size=task.batch_size,
        lr=task.lr,
        save_normal_result=False,
        device=torch.device("cpu"),
    )


def timed(function, seconds):
    """The function, whose seconds are added to a list."""

    def wrapped(*given, **named):
        clock = common.Clock()
        answer = function(*given, **named)
        seconds.append(clock.lap())
        return answer

    return wrapped


def main(folder, rounds, checkout):
    library = mended()  # noqa: F841  (its operators last as long as it does)
    algorithm, nets = imported(checkout)
    task = common.task(folder)
    given = arguments(task, rounds)
    model = nets.Model(given)
    model.load_state_dict(task.weights)
    os.makedirs("save_model")
    torch.save(model.state_dict(), "save_model/global_model_fashionmnist.pth")
    clients, tests = loaders(task, given.test_batch_size)
    case = algorithm.FUSED(given)
    training, evaluation = [], []
    case.global_train_once = timed(case.global_train_once, training)
    evaluate, whole = timed(algorithm.test_class_forget, evaluation), common.Clock()

    def evaluated(*arguments):
        answer = evaluate(*arguments)
        common.tell(round=len(evaluation), seconds=whole.lap(), train=training[-1], evaluate=evaluation[-1])
        return answer

    algorithm.test_class_forget = evaluated
    case.forget_class(model, clients, tests)


if __name__ == "__main__":
    where, count, place = sys.argv[2], int(sys.argv[3]), str(Path(sys.argv[4]).resolve())
    with tempfile.TemporaryDirectory() as cwd, contextlib.chdir(cwd), contextlib.redirect_stdout(sys.stderr):
        main(where, count, place)
