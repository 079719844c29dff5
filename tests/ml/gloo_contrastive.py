"""What two real processes do in the test of the global batch; imports little, to start fast."""

from multiprocessing.queues import Queue

import torch
import torch.distributed as dist
from torch import Tensor

from ml.retrieval.dual_encoder.loss import ContrastiveConfig, contrastive_loss


def worker_loss(rank: int, folder: str, results: "Queue[object]") -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    queries, items, batches = global_case()
    leaf_queries = queries[rank].clone().requires_grad_()
    leaf_items = items[rank].clone().requires_grad_()
    config = ContrastiveConfig(temperature=0.1, gather=True)
    loss = contrastive_loss(leaf_queries, leaf_items, batches[rank], config=config)
    (loss * len(queries[rank])).backward()
    assert leaf_queries.grad is not None
    assert leaf_items.grad is not None
    results.put((rank, loss.item(), leaf_queries.grad.tolist(), leaf_items.grad.tolist()))
    dist.barrier()
    dist.destroy_process_group()


def global_case() -> tuple[list[Tensor], list[Tensor], list[dict[str, Tensor]]]:
    """Two workers that share candidate row 5 (item 12); 3 and 2 queries, 3 and 4 candidates."""
    generator = torch.Generator().manual_seed(4)
    table = torch.nn.functional.normalize(torch.randn(10, 6, generator=generator), dim=1)
    queries = torch.nn.functional.normalize(torch.randn(5, 6, generator=generator), dim=1)
    rows = [torch.tensor([2, 5, 7]), torch.tensor([1, 5, 8, 9])]
    item_of = torch.tensor([0, 21, 22, 23, 24, 12, 26, 27, 28, 22])
    log_q_of = torch.log(torch.linspace(0.1, 0.9, 10))
    targets = [torch.tensor([0, 1, 2]), torch.tensor([1, 3])]
    positives = [torch.tensor([[22], [12], [27]]), torch.tensor([[12], [22]])]
    batches = [
        {
            "candidate_rows": row,
            "candidate_items": item_of[row],
            "candidate_log_q": log_q_of[row],
            "target": target,
            "query_rows": torch.arange(len(target)),
            "positives": positive,
        }
        for row, target, positive in zip(rows, targets, positives, strict=True)
    ]
    return [queries[:3], queries[3:]], [table[row] for row in rows], batches
