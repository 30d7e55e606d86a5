"""Memory exhaustion: recognised, halved, rewound; the result is the one of a run that began with that micro-batch."""

import gc
import weakref

import pytest
import torch
from torch import nn

from headstart.core.errors import TrainingError
from headstart.engine import memory
from headstart.tasks.classify import loss

FAILURES = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 123 bytes."),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("MPS backend out of memory (MPS allocated: 1.00 GB, other allocations: 2 MB)"),
    RuntimeError("Invalid buffer size: 20.00 GB"),
    OSError(12, "Cannot allocate memory"),
]
OTHERS = [
    RuntimeError("mat1 and mat2 shapes cannot be multiplied (4x3 and 2x2)"),
    ValueError("out of memory, says a value error of the user's own augmentation"),
    KeyError("memory"),
    OSError(28, "No space left on device"),
]


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: str(error)[:25])
def test_memory_failures_are_recognised(error):
    assert memory.is_exhausted(error)
    wrapped = ValueError("in a loader thread")
    wrapped.__cause__ = error
    assert memory.is_exhausted(wrapped)


@pytest.mark.parametrize("error", OTHERS, ids=lambda error: str(error)[:25])
def test_other_failures_are_not(error):
    assert not memory.is_exhausted(error)
    with pytest.raises(type(error)):
        memory.halving(lambda micro: (_ for _ in ()).throw(error), 8)


def test_the_real_allocators_message_is_recognised():
    """Not a text that we remember, but the one this torch raises for a petabyte."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50, dtype=torch.uint8)
    assert memory.is_exhausted(caught.value)


@pytest.mark.parametrize("batch", [1, 2, 7, 9, 32])
@pytest.mark.parametrize("micro", [1, 2, 4, 5, 64])
def test_parts_cover_the_batch_and_are_even(batch, micro):
    parts = memory.split(batch, micro)
    sizes = [part.stop - part.start for part in parts]
    assert [row for part in parts for row in range(batch)[part]] == list(range(batch))
    assert max(sizes) <= micro
    assert max(sizes) - min(sizes) <= 1
    assert len(parts) == -(-batch // micro)


@pytest.mark.parametrize("fits", [1, 2, 3, 5, 16, 100])
def test_at_most_log2_repeats(fits, monkeypatch):
    monkeypatch.setattr(memory, "release", lambda: None)  # collecting garbage each time takes long
    tried = []

    def attempt(micro):
        tried.append(micro)
        if micro > fits:
            raise MemoryError
        return "done"

    outcome, micro = memory.halving(attempt, 100)
    assert outcome == "done"
    assert micro == tried[-1] <= fits
    assert tried[0] == 100
    assert len(tried) - 1 <= 6  # floor(log2(100))
    assert len(tried) == 1 or tried[-2] > fits


def test_a_single_row_that_does_not_fit_is_said():
    def attempt(micro):
        raise RuntimeError("MPS backend out of memory (much)\nmore")

    with pytest.raises(TrainingError, match="single row") as caught:
        memory.halving(attempt, 8, where="evaluation")
    assert "evaluation" in str(caught.value)
    assert "smaller inputs (image_size, max_length, seconds)" in str(caught.value)


def test_the_failed_attempts_tensors_are_free_before_the_next():
    held = []

    def attempt(micro):
        gc.collect()
        assert all(reference() is None for reference in held), "a frame of the failed attempt still holds its tensors"
        activations = torch.zeros(micro, 10)
        held.append(weakref.ref(activations))
        if micro > 1:
            raise MemoryError
        return float(activations.sum())

    assert memory.halving(attempt, 8) == (0.0, 1)
    assert len(held) == 4


class Hungry(nn.Module):
    """Dropout, BatchNorm, and no memory for more than ``fits`` rows, noticed only after the first layers ran."""

    def __init__(self, fits):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.drop = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5)
        self.last = nn.Linear(8, 3)
        self.fits = fits

    def forward(self, inputs):
        hidden = self.drop(self.norm(self.first(inputs)))
        if len(inputs) > self.fits:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return self.last(hidden)


def fit(fits, micro, failing=(), rewinds=True, failures=None):
    """Twelve updates of batches of 10 rows, failing above ``fits`` rows at the updates named."""
    model = Hungry(10)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    torch.manual_seed(1)
    for update in range(12):
        inputs, targets = torch.randn(10, 4), torch.randint(0, 3, (10,))
        model.fits = fits if update in failing else 10

        def attempt(micro, inputs=inputs, targets=targets):
            for rows in memory.split(10, micro):
                loss(model(inputs[rows]), targets[rows], total=10).backward()

        optimizer.zero_grad()
        before = memory.rewinder(model) if rewinds else lambda: None
        halved = failures.append if failures is not None else lambda micro: None
        _, micro = memory.halving(attempt, micro, rewind=before, on_halved=halved)
        optimizer.step()
    return model.state_dict(), micro


def test_the_result_is_that_of_a_run_started_with_the_smaller_micro_batch():
    failures = []
    halved, micro = fit(fits=3, micro=10, failing=range(12), failures=failures)
    assert (micro, failures) == (2, [5, 2])
    expected, _ = fit(fits=10, micro=2)
    assert all(torch.equal(halved[name], value) for name, value in expected.items())
    careless, _ = fit(fits=3, micro=10, failing=range(12), rewinds=False)
    assert not all(torch.equal(careless[name], value) for name, value in expected.items()), "the check sees no rewind"


def test_a_failure_in_the_middle_keeps_the_effective_batch():
    """Without dropout or BatchNorm the micro-batch changes nothing but rounding. Memory runs out after the first part's
    gradients are there: they must not count twice.
    """
    results = []
    for failing in ((), (7,)):
        model = nn.Linear(4, 3).double()
        nn.init.ones_(model.weight)
        nn.init.zeros_(model.bias)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        rng = torch.Generator().manual_seed(3)
        micro = 10
        for update in range(12):
            inputs = torch.randn(10, 4, generator=rng).double()
            targets = torch.randint(0, 3, (10,), generator=rng)

            def attempt(size, model=model, inputs=inputs, targets=targets, hungry=update in failing):
                for rows in memory.split(10, size):
                    loss(model(inputs[rows]), targets[rows], total=10).backward()
                    if hungry and size > 4:
                        raise MemoryError

            optimizer.zero_grad()
            _, micro = memory.halving(attempt, micro, rewind=memory.rewinder(model))
            optimizer.step()
        results.append((micro, model.weight.detach().clone()))
    assert [micro for micro, _ in results] == [10, 2]
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-12, atol=1e-14)
