import pytest
import torch

from tinv.translation import crop_each, draw_shifts, fourier_shift, reduce_camera, translate


def test_shifts_depend_on_seed_epoch_and_number_alone():
    numbers = torch.arange(1000)
    all_at_once = draw_shifts(numbers, 8, seed=3, epoch=2)
    order = torch.randperm(1000)
    in_batches = torch.cat([draw_shifts(part, 8, seed=3, epoch=2) for part in order.split(7)])
    assert torch.equal(all_at_once[order], in_batches)
    assert not torch.equal(all_at_once, draw_shifts(numbers, 8, seed=4, epoch=2))
    assert not torch.equal(all_at_once, draw_shifts(numbers, 8, seed=3, epoch=3))


def test_shifts_are_uniform_over_both_signs_and_both_ends():
    shifts = draw_shifts(torch.arange(170_000), 8, seed=0)
    assert shifts.min() == -8
    assert shifts.max() == 8
    for axis in (0, 1):
        counts = torch.bincount(shifts[:, axis] + 8, minlength=17).double()
        # chi-square of 16 degrees of freedom; 39.3 is exceeded once in a thousand
        assert ((counts - 10_000) ** 2 / 10_000).sum() < 39.3
    together = torch.bincount((shifts[:, 0] + 8) * 17 + shifts[:, 1] + 8, minlength=289).double()
    expected = 170_000 / 289
    assert ((together - expected) ** 2 / expected).sum() < 373  # 288 degrees of freedom, once in a thousand


def test_zero_shift_is_the_only_draw_without_a_window():
    assert not draw_shifts(torch.arange(50), 0, seed=1).any()


@pytest.mark.parametrize("shape", [(5, 3, 9, 7), (4, 1, 6, 6)])
def test_circular_translation_is_a_roll(shape):
    x = torch.randn(shape)
    shifts = torch.tensor([[0, 0], [1, 2], [-3, 5], [2, -5], [-6, 6]])[: shape[0]]
    moved = translate(x, shifts, "circular")
    for image, result, (dx, dy) in zip(x, moved, shifts.tolist(), strict=True):
        assert torch.equal(result, image.roll((dy, dx), (1, 2)))


def test_zero_translation_moves_right_and_down_and_loses_what_leaves():
    x = torch.arange(1.0, 10).view(1, 1, 3, 3)
    assert translate(x, torch.tensor([[1, 0]])).flatten().tolist() == [0, 1, 2, 0, 4, 5, 0, 7, 8]
    assert translate(x, torch.tensor([[0, 1]])).flatten().tolist() == [0, 0, 0, 1, 2, 3, 4, 5, 6]
    assert translate(x, torch.tensor([[-3, 0]])).abs().sum() == 0


def test_windows_are_cut_where_they_are_asked_for():
    x = torch.randn(4, 9, 8, 3)
    top, left = torch.tensor([0, 4, 2, 1]), torch.tensor([3, 0, 1, 2])
    windows = crop_each(x, top, left, 5, 5)
    for image, window, t, le in zip(x, windows, top.tolist(), left.tolist(), strict=True):
        assert torch.equal(window, image[t : t + 5, le : le + 5].permute(2, 0, 1))


@pytest.mark.parametrize("shape", [(3, 2, 9, 7), (3, 2, 8, 6)])
def test_whole_fourier_shifts_are_rolls(shape):
    x = torch.randn(shape, dtype=torch.float64)
    shifts = torch.tensor([[0.0, 0.0], [3.0, -2.0], [-5.0, 9.0]])
    moved = fourier_shift(x, shifts)
    for image, result, (dx, dy) in zip(x, moved, shifts.long().tolist(), strict=True):
        assert (result - image.roll((dy, dx), (1, 2))).abs().max() < 1e-12


def test_fourier_shifts_of_odd_sizes_add_up_and_are_undone():
    x = torch.randn(2, 3, 9, 7, dtype=torch.float64)
    first, second = torch.tensor([[[0.3, -1.7], [2.25, 0.5]], [[-0.9, 0.4], [0.5, 0.25]]], dtype=torch.float64)
    assert (fourier_shift(fourier_shift(x, first), second) - fourier_shift(x, first + second)).abs().max() < 1e-12
    assert (fourier_shift(fourier_shift(x, first), -first) - x).abs().max() < 1e-12


def test_fourier_shift_equals_the_sum_over_waves():
    """The trigonometric polynomial through the pixels, evaluated point by point."""
    for size in (5, 6):
        row, by = torch.randn(size, dtype=torch.float64), 0.3
        spectrum = torch.fft.fft(row.to(torch.complex128))
        expected = []
        for place in range(size):
            total = torch.zeros((), dtype=torch.complex128)
            for k in range(size):
                wave = k if k < size / 2 else k - size
                phase = 2j * torch.pi * wave * (place - by) / size
                factor = torch.exp(torch.tensor(phase))
                if 2 * k == size:  # the two halves of the Nyquist frequency
                    factor = (factor + factor.conj()) / 2
                total = total + spectrum[k] * factor / size
            expected.append(total.real)
        moved = fourier_shift(row.view(1, 1, 1, -1), torch.tensor([[by, 0.0]])).flatten()
        assert torch.allclose(moved, torch.stack(expected), atol=1e-12)


def test_the_nyquist_frequency_is_lost_at_half_a_pixel():
    stripes = torch.tensor([1.0, -1.0] * 4, dtype=torch.float64).view(1, 1, 1, 8)
    assert fourier_shift(stripes, torch.tensor([[0.5, 0.0]])).abs().max() < 1e-12


def test_a_camera_of_fewer_pixels_sees_the_mean_of_each_area():
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert reduce_camera(x).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
