import pytest
import torch

from tinv.metrics import VideoAccuracy


@pytest.mark.parametrize("batch", [60, 7])
@pytest.mark.parametrize("classes", [8, 3])
def test_it_is_that_of_one_video_at_a_time(batch, classes):
    draw = torch.Generator().manual_seed(classes)
    video = torch.randint(9, (60,), generator=draw) * 10
    target = (video // 10) % classes
    logits = torch.randn(60, classes, generator=draw) + torch.nn.functional.one_hot(target, classes)
    metric = VideoAccuracy()
    for part in torch.randperm(60, generator=draw).split(batch):
        metric.update(logits[part], target[part], video[part])
    top1, top5, clip5 = [], [], []
    for number in video.unique():
        mine = video == number
        score = logits[mine].softmax(dim=1).mean(dim=0)
        wanted = int(target[mine][0])
        ranked = score.argsort(descending=True).tolist()
        top1.append(ranked[0] == wanted)
        top5.append(wanted in ranked[:5])
    for answer, wanted in zip(logits, target.tolist(), strict=True):
        clip5.append(wanted in answer.argsort(descending=True).tolist()[:5])
    found = {key: float(value) for key, value in metric.compute().items()}
    expected = {"acc5": clip5, "video_acc": top1, "video_acc5": top5}
    assert found == pytest.approx({key: 100 * sum(value) / len(value) for key, value in expected.items()})
