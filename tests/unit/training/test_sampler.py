"""The sampler is a pure function and covers what it should."""

from __future__ import annotations

from umscosod.training.sampler import Visit, count_steps, draw_images, locate_step, shuffle_groups


def test_every_epoch_holds_each_group_once_in_another_order() -> None:
    orders = [shuffle_groups(1, epoch, 20) for epoch in range(3)]
    assert all(sorted(order) == list(range(20)) for order in orders)
    assert len(set(orders)) == 3
    assert shuffle_groups(2, 0, 20) != orders[0]


def test_position_depends_on_the_step_number_alone() -> None:
    for groups_per_step in (1, 2, 3, 9):
        total = 3 * count_steps(7, groups_per_step)
        walked = [locate_step(1, step, 7, groups_per_step) for step in range(total)]
        assert [locate_step(1, step, 7, groups_per_step) for step in reversed(range(total))] == walked[::-1]
        for epoch in range(3):
            visits = [at.group for step in walked for at in step if at.epoch == epoch]
            assert visits == list(shuffle_groups(1, epoch, 7))
        assert {len({at.epoch for at in step}) for step in walked} == {1}


def test_images_are_drawn_without_replacement_from_those_available() -> None:
    available = tuple(range(100, 140))
    draws = [draw_images(1, Visit(epoch, 4), available, 24) for epoch in range(4)]
    for draw in draws:
        assert len(draw) == len(set(draw)) == 24
        assert set(draw) <= set(available)
        assert list(draw) == sorted(draw)
    assert len(set(draws)) == 4
    assert draw_images(1, Visit(0, 4), available, 24) == draws[0]
    assert draw_images(1, Visit(0, 4), available, 64) == available


def test_every_image_is_seen_in_time() -> None:
    seen = {image for epoch in range(40) for image in draw_images(0, Visit(epoch, 0), tuple(range(50)), 10)}
    assert seen == set(range(50))
