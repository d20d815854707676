"""make_steps.py: steps.json, what PyTorch says of one training step.

"distill": soft losses of a student's logits against a teacher's, with the gradient by the student's logits.
"steps": BertForSequenceClassification of tiny/bert with a head of zeros: loss over all rows at once, and the gradient of its head. However the
rows are cut into batches whose gradients are added up, the step must be this one.
"""

import torch
import torch.nn.functional as F
from transformers import BertForSequenceClassification

from reference import HERE, write_json

TEMPERATURE = 2.5
# Token 2 is [CLS], 3 is [SEP]; the others are words of their own.
ROWS = [[2, 17, 45, 99, 3], [2, 5, 3], [2, 61, 8, 30, 77, 12, 64, 3], [2, 20, 21, 3], [2, 90, 33, 71, 8, 3]]
CLASSES = [1, 0, 2, 1, 1]
LABELS = [[1, 0, 1], [0, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 1]]
VALUES = [0.5, -2.0, 3.25, 1.0, 0.0]


def flat(tensor):
    return [float(value) for value in tensor.detach().flatten()]


def distill():
    generator = torch.Generator().manual_seed(7)
    cases = []
    for kind, width in [("classes", 4), ("labels", 4), ("labels", 1), ("values", 1)]:
        teacher = 2 * torch.randn(3, width, generator=generator)
        student = (2 * torch.randn(3, width, generator=generator)).requires_grad_()
        s, t = student / TEMPERATURE, teacher / TEMPERATURE
        if kind == "classes":
            loss = F.kl_div(F.log_softmax(s, -1), F.log_softmax(t, -1), reduction="batchmean", log_target=True)
        elif kind == "labels":
            # A label is on or off; KL over the two, mean over rows and labels.
            both = [torch.stack([F.logsigmoid(x), F.logsigmoid(-x)]) for x in (s, t)]
            loss = F.kl_div(*both, reduction="none", log_target=True).sum(0).mean()
        if kind == "values":
            loss = F.mse_loss(student, teacher)
        else:
            loss = TEMPERATURE**2 * loss
        loss.backward()
        cases.append({"kind": kind, "width": width, "teacher": flat(teacher), "student": flat(student),
                      "loss": float(loss), "gradient": flat(student.grad)})
    return cases


def step(problem, targets, outputs, ignore=-100):
    model = BertForSequenceClassification.from_pretrained(HERE / "tiny" / "bert", num_labels=outputs,
                                                          ignore_mismatched_sizes=True).eval()
    torch.nn.init.zeros_(model.classifier.weight)
    torch.nn.init.zeros_(model.classifier.bias)
    logits = torch.cat([model(input_ids=torch.tensor([ids])).logits for ids in ROWS])
    if problem == "multi-class":
        loss = F.cross_entropy(logits, torch.tensor(targets), ignore_index=ignore)
    elif problem == "multi-label":
        loss = F.binary_cross_entropy_with_logits(logits, torch.tensor(targets, dtype=torch.float32))
    else:
        loss = F.mse_loss(logits[:, 0], torch.tensor(targets))
    loss.backward()
    return {"problem": problem, "ignore": ignore, "targets": targets, "loss": float(loss),
            "weight": flat(model.classifier.weight.grad), "bias": flat(model.classifier.bias.grad)}


steps = [
    step("multi-class", CLASSES, 3),
    step("multi-class", CLASSES, 3, ignore=0),
    step("multi-label", LABELS, 3),
    step("regression", VALUES, 1),
]
write_json(HERE / "steps.json", {"temperature": TEMPERATURE, "distill": distill(), "rows": ROWS, "steps": steps}, indent=None)
